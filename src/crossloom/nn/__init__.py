"""Trainable layers whose weight is woven, and their quantisers."""

from crossloom.nn.layers import Conv2d, Linear, MatrixWeave, Weave, held_weights, woven_layers
from crossloom.nn.quantisers import Quantised, Quantiser, QuantiserConfig, WeightQuantiser, round_half_up

__all__ = [
    "Conv2d", "Linear", "MatrixWeave", "Quantised", "Quantiser", "QuantiserConfig", "Weave", "WeightQuantiser",
    "held_weights", "round_half_up", "woven_layers",
]  # fmt: skip
