"""The Lightning side of training: module, data module, checkpoints and progress.

Imported only by `fit`, because Lightning takes seconds to import.

A run can stop anywhere and go on to the same bits: order and augmentation of epoch e depend on (seed, e) alone, torch's
own generator (dropout) is reseeded from (seed, e) as each epoch begins, and checkpoints are written between epochs.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from crossloom.training.config import TrainingConfig
from crossloom.training.data import DataSet, Loader
from crossloom.training.readers import Split
from crossloom.training.seeds import derive
from crossloom.weave.store import atomic_path, write_text

Batch = tuple[Float[Tensor, "B C H W"], Int64[Tensor, " B"]]
LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, classes], labels [B]) → scalar."""

ExtraLoss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
"""(network, images, logits, labels) → scalar added to the loss at every step."""


class Classifier(pl.LightningModule):
    """Any module from images to logits, with loss, optimiser and schedule as a `TrainingConfig` says."""

    def __init__(
        self,
        network: nn.Module,
        config: TrainingConfig,
        loss: LossFunction | None = None,
        extra_loss: ExtraLoss | None = None,
    ) -> None:
        """Wrap `network`, which stays the same object.

        Args:
            network: the module to train.
            config: how.
            loss: in place of cross-entropy with `config.label_smoothing`.
            extra_loss: a term that a method adds.
        """
        super().__init__()
        self.network, self.config = network, config
        self.loss: LossFunction = loss or self.cross_entropy
        self.extra_loss = extra_loss

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The default loss."""
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] → logits [B, classes]."""
        if self.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(images)
        return logits

    def on_train_epoch_start(self) -> None:
        """Reseed torch's generator and clear the sums."""
        torch.manual_seed(derive(self.config.seed, "epoch", self.current_epoch, self.global_rank))
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of one batch."""
        images, labels = batch
        logits = self(images)
        loss = self.loss(logits, labels)
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(self.network, images, logits, labels)
        with torch.no_grad():
            correct = (logits.argmax(1) == labels).sum()
            self.sums += torch.stack([loss.detach().double() * len(labels), correct, correct.new_tensor(len(labels))])
        return loss

    def on_train_epoch_end(self) -> None:
        """Log mean loss and accuracy of the epoch's training batches."""
        loss, correct, count = self.total(self.sums)
        self.log_dict({"train_loss": loss / count, "train_accuracy": correct / count})

    def on_validation_epoch_start(self) -> None:
        """Clear the counts."""
        self.counts = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Count right answers."""
        images, labels = batch
        correct = (self(images).argmax(1) == labels).sum()
        self.counts += torch.stack([correct, correct.new_tensor(len(labels))])

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy on the test images."""
        correct, count = self.total(self.counts)
        self.log("test_accuracy", correct / count)

    def total(self, sums: Tensor) -> list[float]:
        """Sums over all processes."""
        reduced = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return [float(value) for value in reduced]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser and per-step schedule."""
        config = self.config
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimiser: torch.optim.Optimizer
        if config.optimiser == "sgd":
            optimiser = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
        elif config.optimiser == "adam":
            optimiser = torch.optim.Adam(groups, lr=config.lr, betas=(config.momentum, 0.999))
        else:
            optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(config, step, steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Learning rate at `step` of `steps`, as a fraction of `config.lr`."""
    warmup = config.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if config.schedule == "step":
        return config.gamma ** sum(step >= milestone * steps for milestone in config.milestones)
    return 1.0


class DataModule(pl.LightningDataModule):
    """A `DataSet` for Lightning: moved to the device once, cut into equal parts for several processes."""

    def __init__(self, data: DataSet, config: TrainingConfig) -> None:
        """Serve `data` in batches of `config.batch_size`."""
        super().__init__()
        self.data, self.config = data, config
        self.placed: dict[str, Split] = {}

    def half(self, name: str, split: Split) -> Split:
        """One half on the trainer's device."""
        if name not in self.placed:
            device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
            self.placed[name] = Split(split.images.to(device), split.labels.to(device))
        return self.placed[name]

    def loader(self, name: str, split: Split, **options: Any) -> Loader:
        """A loader for this process's part."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        split = self.half(name, split)
        return Loader(split, self.data.normalisation, rank=rank, world_size=world, seed=self.config.seed, **options)

    def train_dataloader(self) -> Loader:
        """This epoch's training batches (Lightning asks again every epoch)."""
        augment = self.data.augment if self.config.augment == "default" else self.config.augment
        epoch = self.trainer.current_epoch if self.trainer else 0
        size = self.config.batch_size
        return self.loader("train", self.data.train, batch_size=size, shuffle=True, augment=augment, epoch=epoch)

    def val_dataloader(self) -> Loader:
        """The test images."""
        return self.loader("test", self.data.test, batch_size=max(self.config.batch_size, 250))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and that are read without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside `path`, then rename."""
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Plain tensors and containers only, whatever `weights_only` says."""
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return checkpoint


class Record(Checkpoint):
    """Checkpoints between epochs and the history that goes with them, as `metrics.csv`.

    Lightning runs `Checkpoint` callbacks after all others and after the module's own hooks, so that a checkpoint holds
    what the methods' callbacks did at the end of the epoch.
    """

    def __init__(self, checkpoint: Path, metrics: Path, config: TrainingConfig, identity: dict[str, Any]) -> None:
        """Write to `checkpoint` and `metrics`; `identity` says what a checkpoint may be resumed with."""
        self.checkpoint, self.metrics, self.config, self.identity = checkpoint, metrics, config, identity
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint keeps."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.history = list(state["history"])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say in the checkpoint what run it belongs to."""
        checkpoint["crossloom"] = self.identity

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A checkpoint before the first step, so that an interrupt at any time leaves one."""
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.checkpoint)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a line to the history, and write a checkpoint when one is due."""
        epoch = trainer.current_epoch + 1
        numbers = {name: float(f"{float(value):.6g}") for name, value in sorted(trainer.callback_metrics.items())}
        if epoch % self.config.validate_every:
            numbers.pop("test_accuracy", None)
        self.history.append({"epoch": epoch} | numbers)
        if trainer.is_global_zero:
            self.write_metrics()
        if epoch % self.config.checkpoint_every == 0 or epoch == self.config.epochs:
            trainer.save_checkpoint(self.checkpoint)

    def write_metrics(self) -> None:
        """The whole history as CSV, one line per epoch."""
        text = io.StringIO()
        names = ["epoch", "train_loss", "train_accuracy", "test_accuracy"]
        others = sorted({name for line in self.history for name in line} - set(names))
        writer = csv.DictWriter(text, names + others, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.metrics, text.getvalue())


class Bar(Callback):
    """A progress bar on standard error: epochs, time left, loss and accuracy of the last epoch."""

    def __init__(self, title: str) -> None:
        """`title` stands before the bar."""
        self.title = title
        self.progress: Progress | None = None
        self.task = TaskID(0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show it."""
        if not trainer.is_global_zero:
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
            TimeRemainingColumn(), TextColumn("{task.fields[status]}"),
        )  # fmt: skip
        self.progress = Progress(*columns, console=Console(file=sys.stderr), transient=True)
        total = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task(self.title, total=total, completed=trainer.global_step, status="")
        self.progress.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """One step on."""
        if self.progress is not None:
            self.progress.update(self.task, completed=trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Numbers of the epoch before."""
        if self.progress is not None and "train_loss" in trainer.callback_metrics:
            numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
            shown = [f"loss {numbers['train_loss']:.3f}", f"train {100 * numbers['train_accuracy']:.1f} %"]
            if "test_accuracy" in numbers:
                shown.append(f"test {100 * numbers['test_accuracy']:.2f} %")
            self.progress.update(self.task, status="  ".join(shown))

    def close(self) -> None:
        """Take it away, however training ended."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training ended well."""
        self.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Training ended otherwise."""
        self.close()
