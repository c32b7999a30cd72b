"""The clip of latent weights after every training step, as a Lightning callback."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from crossloom.nn import woven_layers


class ClipLatents(pl.Callback):
    """Keep every woven layer's latent weight within [−bound, bound] (Courbariaux et al., BinaryConnect, NeurIPS 2015,
    section 2.4): beyond it the straight-through gradient vanishes and a weight could not come back.

    Args:
        bound: of the absolute value.
    """

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Clip."""
        with torch.no_grad():
            for layer in woven_layers(pl_module).values():
                layer.weight.clamp_(-self.bound, self.bound)
