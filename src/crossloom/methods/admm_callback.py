"""ADMM's schedule in any Lightning loop: pull, update, harden, retrain.

Imported only by `ADMM.callbacks`, because Lightning takes seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from crossloom.errors import InputError
from crossloom.methods.admm import ADMM


class ADMMCallback(Callback):
    """Runs an `ADMM` over `max_epochs` of a trainer.

    The first epochs are trained with the penalty's pull and end in periods of `admm.every`; the last `admm.retrain` of
    them are masked retraining. Validation while retraining sees the projected weights. The whole state is in
    Lightning's checkpoints; one that is written between two batches whose gradients are accumulated holds projected
    weights.

    Args:
        admm: the method; it is prepared on the module being trained unless it was before.
    """

    def __init__(self, admm: ADMM) -> None:
        self.admm = admm
        self.rates: list[float] = []

    # -- the schedule -----------------------------------------------------------------------------------------------

    def _retraining_from(self, trainer: pl.Trainer) -> int:
        """First epoch of masked retraining."""
        total = int(trainer.max_epochs or 0)
        if total < 1:
            raise InputError("trainer.max_epochs", trainer.max_epochs, "a number of epochs, for ADMM's periods", "10")
        return total - math.floor(self.admm.retrain * total + 0.5)

    def _period(self, trainer: pl.Trainer) -> tuple[int, int]:
        """(first epoch, epochs) of the period that the current epoch belongs to."""
        start, epoch, every = self._retraining_from(trainer), trainer.current_epoch, self.admm.every
        if epoch >= start:
            return start, int(trainer.max_epochs or 0) - start
        first = epoch // every * every
        return first, min(every, start - first)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the layers."""
        if not self.admm.targets:
            self.admm.prepare(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update, harden or refit, as the epoch is."""
        admm, epoch, start = self.admm, trainer.current_epoch, self._retraining_from(trainer)
        if epoch == start:
            if epoch and not admm.hardened:
                self._log(pl_module, admm.update())
            admm.harden()
        elif epoch > start:
            if (epoch - start) % admm.every == 0 and (epoch - start) <= 2 * (int(trainer.max_epochs or 0) - start) // 3:
                admm.refit()
        elif epoch and epoch % admm.every == 0:
            self._log(pl_module, admm.update())

    def _log(self, module: pl.LightningModule, residuals: list[Any]) -> None:
        """Mean residuals over the sets, to the loop's loggers."""
        for kind in ("primal", "dual"):
            value = sum(getattr(r, kind) for r in residuals) / len(residuals)
            module.log(f"admm_{kind}", value, on_step=False, on_epoch=True, batch_size=1)
        module.log("admm_rho", self.admm.rho, on_step=False, on_epoch=True, batch_size=1)

    # -- steps ------------------------------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Show the projected weights while retraining; restart the rate."""
        if self.admm.hardened:
            self.admm.show()
        if self.admm.restart:
            if not self.rates:
                self.rates = [g["lr"] for optimiser in trainer.optimizers for g in optimiser.param_groups]
            first, epochs = self._period(trainer)
            done = (trainer.current_epoch - first + batch_idx / max(int(trainer.num_training_batches), 1)) / epochs
            groups = [g for optimiser in trainer.optimizers for g in optimiser.param_groups]
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep what is gone at 0."""
        self.admm.freeze()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """The penalty's gradient, or the latent weights back in their place."""
        if self.admm.hardened:
            self.admm.hide()
        else:
            self.admm.pull()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate what will be left."""
        if self.admm.hardened:
            self.admm.show()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the latent weights back."""
        self.admm.hide()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the projected weights in for good."""
        network: nn.Module = pl_module
        self.admm.finish(network)

    # -- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """See `ADMM.state_dict`."""
        return {"admm": self.admm.state_dict(), "rates": self.rates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.admm.load_state_dict(state_dict["admm"])
        self.rates = list(state_dict["rates"])
