"""ADMM's schedule in any Lightning loop: pull, update, harden, retrain.

Imported only by `ADMM.callbacks`, because Lightning takes seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import fx, nn
from torch.optim import Optimizer

from crossloom.errors import InputError
from crossloom.methods.admm import ADMM

REFITTED = 2 / 3
"""Of masked retraining: after that the levels' scales stay, so that the weights can settle."""


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
        self.refits = 0

    # -- the schedule -----------------------------------------------------------------------------------------------

    def _retraining_from(self, trainer: pl.Trainer) -> int:
        """First epoch of masked retraining."""
        total = int(trainer.max_epochs or 0)
        if total < 1:
            raise InputError("trainer.max_epochs", trainer.max_epochs, "a number of epochs, for ADMM's periods", "10")
        return total - math.floor(self.admm.retrain * total + 0.5)

    def _progress(self, trainer: pl.Trainer, batch: int) -> float:
        """Epochs done."""
        return trainer.current_epoch + batch / max(int(trainer.num_training_batches), 1)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the layers: of the converted network in the module if there is one, else of the module."""
        if not self.admm.targets:
            converted = [m for m in pl_module.modules() if isinstance(m, fx.GraphModule) and "example_shape" in m.meta]
            self.admm.prepare(converted[0] if converted else pl_module)

    def _turn(self, module: pl.LightningModule, progress: float, start: int, total: int) -> None:
        """Update, harden or refit, if it is time."""
        admm = self.admm
        if progress < start:
            if math.floor(progress / admm.every) > admm.updates:
                self._log(module, admm.update())
        elif not admm.hardened:
            if start:
                self._log(module, admm.update())
            admm.harden()
            self.refits = 0
        elif (done := progress - start) <= REFITTED * (total - start) and math.floor(done / admm.every) > self.refits:
            admm.refit()
            self.refits = math.floor(done / admm.every)

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
        """Do what is due; show the projected weights while retraining; restart the rate."""
        progress, start = self._progress(trainer, batch_idx), self._retraining_from(trainer)
        self._turn(pl_module, progress, start, int(trainer.max_epochs or 0))
        if self.admm.hardened:
            self.admm.show()
        if self.admm.restart:
            groups = [g for optimiser in trainer.optimizers for g in optimiser.param_groups]
            self.rates = self.rates or [g["lr"] for g in groups]
            first, length = float(start), float(int(trainer.max_epochs or 0) - start)
            if progress < start:
                first = progress // self.admm.every * self.admm.every
                length = min(self.admm.every, start - first)
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * (progress - first) / length))

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
        return {"admm": self.admm.state_dict(), "rates": self.rates, "refits": self.refits}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.admm.load_state_dict(state_dict["admm"])
        self.rates, self.refits = list(state_dict["rates"]), int(state_dict["refits"])
