"""Trainable layers whose weight is woven, and their quantisers."""

from crossloom.nn.layers import Conv2d, Linear, MatrixWeave, Weave, held_weights, hold_again, woven_layers
from crossloom.nn.prefix import Prefix
from crossloom.nn.quantisers import Quantised, Quantiser, QuantiserConfig, WeightQuantiser, round_half_up

__all__ = [
    "Conv2d", "Linear", "MatrixWeave", "Prefix", "Quantised", "Quantiser", "QuantiserConfig", "Weave",
    "WeightQuantiser", "held_weights", "hold_again", "round_half_up", "woven_layers",
]  # fmt: skip
