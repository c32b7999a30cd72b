"""The clip of latent weights after every training step, as a Lightning callback."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from crossloom.methods.cores import clip
from crossloom.nn import woven_layers


class ClipLatents(pl.Callback):
    """Keep every latent weight under a fixed step s and b bits within ±s·2^(b−1) (Courbariaux et al., BinaryConnect,
    NeurIPS 2015, section 2.4): beyond it the straight-through gradient vanishes and a weight could not come back.
    """

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Clip."""
        for layer in woven_layers(pl_module).values():
            clip(layer)
