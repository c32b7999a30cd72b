"""Outputs of every rung on the test images, kept as the evidence that accuracies are computed from.

`logits/<rung>.safetensors` holds `logits` (float64 [N, classes]) and `labels` (int64 [N]) of the first N test images;
its header holds `rung` and `chip`, the hash of the compiled chip. A long evaluation writes what it has from time to
time and goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crossloom.codesign.record import Agreement
from crossloom.compiled import RUNGS, CompiledChip, Rung
from crossloom.errors import InputError
from crossloom.training import DataSet, Loader, Split
from crossloom.weave.store import atomic_path

BATCH = 100
"""Images between two calls of `tick`; engines split them further where memory asks for it."""

SAVE_SECONDS = 20.0
"""Time between two writes of a long evaluation."""


class Outputs:
    """Logits of one rung on the first images of a test set.

    Attributes:
        logits: float64 [N, classes].
        labels: int64 [N].
    """

    def __init__(self, logits: Float[Tensor, "N classes"], labels: Int64[Tensor, " N"]) -> None:
        self.logits, self.labels = logits, labels

    @property
    def images(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Fraction of images whose largest logit is the label's; of equal logits the first counts."""
        return float((self.logits.argmax(1) == self.labels).double().mean())

    def save(self, path: Path, rung: str, chip: str) -> None:
        """Write atomically."""
        header = {"rung": rung, "chip": chip}
        with atomic_path(path) as temporary:
            save_file({"logits": self.logits.contiguous(), "labels": self.labels}, temporary, metadata=header)

    @staticmethod
    def load(path: Path, rung: str, chip: str) -> Outputs | None:
        """What was written for this rung of this chip; None if there is nothing, or something else."""
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}) != {"rung": rung, "chip": chip}:
                    return None
                return Outputs(file.get_tensor("logits"), file.get_tensor("labels"))
        except (OSError, SafetensorError):
            return None


def agreement(lower: Outputs, upper: Outputs) -> Agreement:
    """How far two rungs agree on the images that both ran on."""
    images = min(lower.images, upper.images)
    one, other = lower.logits[:images], upper.logits[:images]
    return Agreement(
        images=images,
        equal=torch.equal(one, other),
        largest_difference=float((one - other).abs().max()),
        same_class=float((one.argmax(1) == other.argmax(1)).double().mean()),
    )


def outputs(
    chip: CompiledChip,
    rung: Rung,
    data: DataSet,
    images: int | None = None,
    *,
    path: Path | None = None,
    device: str = "cpu",
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Outputs:
    """Run a rung on which all chips compute the same on the first test images.

    Args:
        chip: the compiled chip; for the `float` rung with its float network.
        rung: of the fidelity ladder.
        data: the data set.
        images: how many test images; None or more than there are: all.
        path: where to keep the outputs; what is already there for this chip is not computed again.
        device: where to compute.
        tick: called with (images done, images in all) after every batch.

    Raises:
        InputError: the rung cannot run, or chips differ on it (`CompiledChip.accuracy` runs those).
        KeyboardInterrupt: Ctrl-C; what was computed is kept at `path`.
    """
    if rung not in RUNGS:
        raise InputError.choice("rung", rung, RUNGS)
    total = min(images or data.test.labels.numel(), data.test.labels.numel())
    kept = Outputs.load(path, rung, chip.hash) if path else None
    if kept is not None and kept.images >= total:
        return Outputs(kept.logits[:total], kept.labels[:total])
    parts = [] if kept is None else [(kept.logits, kept.labels)]
    done = 0 if kept is None else kept.images

    def joined() -> Outputs:
        return Outputs(torch.cat([logits for logits, _ in parts]), torch.cat([labels for _, labels in parts]))

    rest = Split(data.test.images[done:total], data.test.labels[done:total])
    saved = time.monotonic()
    tick(done, total)
    try:
        for x, labels in Loader(rest, data.normalisation, BATCH):
            logits = chip.logits(x, rung, device).to("cpu", torch.float64)
            parts.append((logits, labels.cpu()))
            done += len(labels)
            tick(done, total)
            if path and time.monotonic() - saved > SAVE_SECONDS:
                joined().save(path, rung, chip.hash)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if path and parts:
            joined().save(path, rung, chip.hash)
        raise
    result = joined()
    if path:
        result.save(path, rung, chip.hash)
    return result
