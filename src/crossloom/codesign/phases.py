"""A recipe as phases: each a training with methods on it, kept in a folder of its own and resumable anywhere.

A phase's folder is named by a hash of everything that decides what comes out of it, the phases before it included.
So a study that tries several endings after the same beginning trains the beginning once, and a changed option never
meets old weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from crossloom.codesign.config import Machine, file_sha256
from crossloom.codesign.machine import placed
from crossloom.codesign.progress import Progress, Silent
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert
from crossloom.methods import Method, method
from crossloom.training import (
    DataSet,
    FitResult,
    TrainingConfig,
    build_network,
    checkpoint_path,
    fit,
    load_weights,
)
from crossloom.weave.store import write_text

CALIBRATION_IMAGES = 512
"""Training images from which activation steps are set before every phase."""

Step = tuple[str, dict[str, Any]]
"""A method by name, and its options as JSON values."""


@dataclass(frozen=True)
class Phase:
    """One training.

    Attributes:
        name: for people and the folder.
        steps: the methods, prepared in this order before and finished in it after training.
        training: how to train; None: the methods are prepared and finished without training.
        spread: standard deviation of the logits over the calibration images at which the loss sees them as they are;
            larger ones are divided down to it. A network whose logits have grown through noise would otherwise learn
            from its few mistakes alone. None: never.
    """

    name: str
    steps: tuple[Step, ...]
    training: TrainingConfig | None
    spread: float | None = None

    def plain(self) -> dict[str, Any]:
        """What decides the phase's result, as JSON values."""
        machine = {"accelerator", "threads", "validate_every", "checkpoint_every"}
        training = None if self.training is None else self.training.model_dump(mode="json", exclude=machine)
        return {"name": self.name, "steps": [list(step) for step in self.steps], "training": training} | (
            {} if self.spread is None else {"spread": self.spread}
        )


@dataclass
class Trained:
    """A network as a recipe left it.

    Attributes:
        module: the converted network, calibrated; float before the first phase.
        key: hash of all that led to it.
        epochs: of training, all phases, the float one included.
        figures: what the methods' ends said, by phase and method.
    """

    module: nn.Module
    key: str
    epochs: int
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> fx.GraphModule:
        """The converted network."""
        assert isinstance(self.module, fx.GraphModule)
        return self.module


class Course:
    """Trains recipes on one network and data set.

    Args:
        network: name of the network.
        data: the images.
        folder: where the phases' folders go.
        float_training: of the float network.
        weights: trained float weights in place of that.
        machine: where to compute.
        progress: who watches.
    """

    def __init__(
        self, network: str, data: DataSet, folder: Path, *, float_training: TrainingConfig | None = None,
        weights: Path | None = None, machine: Machine | None = None, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        if (float_training is None) == (weights is None):
            raise InputError("course", (float_training, weights), "a float training or trained weights, one of them")
        self.network, self.data, self.folder = network, data, folder
        self.float_training, self.weights = float_training, weights
        self.machine, self.progress = machine or Machine(), progress or Silent()

    def start(self) -> Trained:
        """The float network, trained or loaded."""
        module = build_network(self.network, len(self.data.classes), self.data.image_shape, 0)
        base: dict[str, Any] = {"network": self.network, "data": self.data.fingerprint()}
        if self.weights is not None:
            load_weights(module, self.weights)
            return Trained(module.eval(), digest({**base, "weights": file_sha256(self.weights)}), 0)
        phase = Phase("float", (), self.float_training)
        key = digest({**base, **phase.plain()})
        self._fit(module, phase, key, [])
        assert self.float_training is not None
        return Trained(module.eval(), key, self.float_training.epochs)

    def run(self, phases: Sequence[Phase]) -> Trained:
        """The network after all phases."""
        found = self.start()
        example = torch.zeros(2, *self.data.image_shape)
        found.module = convert(found.module, example)
        for phase in phases:
            found = self._phase(found, phase)
        return found

    def _phase(self, before: Trained, phase: Phase) -> Trained:
        module = before.graph
        key = digest({"before": before.key, **phase.plain()})
        steps = [method(name, **options) for name, options in phase.steps]
        for step in steps:
            step.prepare(module)
        calibrate(module, self.calibration())
        if phase.training is not None:
            self._fit(module, phase, key, steps)
        module.eval()
        figures = {step.name: step.finish(module) for step in steps}
        calibrate(module, self.calibration())
        epochs = before.epochs + (phase.training.epochs if phase.training else 0)
        return Trained(module, key, epochs, {**before.figures, phase.name: figures})

    def calibration(self) -> list[Tensor]:
        """The training images that steps are set from."""
        loader = self.data.calibration_loader(min(CALIBRATION_IMAGES, len(self.data.train.labels)), seed=0)
        return [images for images, _ in loader]

    def _fit(self, module: nn.Module, phase: Phase, key: str, steps: Sequence[Method]) -> None:
        """Train into the phase's folder, go on there, or load what it holds."""
        assert phase.training is not None
        where = self.folder / f"{phase.name}-{key[:10]}"
        if (where / "weights.safetensors").is_file():
            load_weights(module, where / "weights.safetensors")
            return
        self.progress.begin(where.name, f"{phase.name}: {phase.training.epochs} epochs")
        write_text(where / "phase.json", json.dumps(phase.plain(), indent=1) + "\n")
        result = train(
            module, self.data, phase.training, where, steps, self.machine, bars=self.progress.bars,
            spread=phase.spread, images=self.calibration()[0] if phase.spread else None,
        )  # fmt: skip
        self.progress.end(where.name, result.seconds, f"{100 * result.accuracy:.2f} % on the test images")


def train(
    module: nn.Module, data: DataSet, config: TrainingConfig, where: Path, methods: Sequence[Method], machine: Machine,
    *, bars: bool = False, spread: float | None = None, images: Tensor | None = None,
) -> FitResult:  # fmt: skip
    """Train with methods on, or go on where a training in this folder stopped.

    Args:
        module: prepared by the methods and calibrated.
        data: the images.
        config: how to train.
        where: the training's folder.
        methods: whose callbacks act and whose losses count; of those with a loss of their own, the first one's.
        machine: where to compute.
        bars: whether to show a bar.
        spread: see `Phase.spread`; without effect where a method has a loss of its own.
        images: from which the spread of the logits is taken.

    Raises:
        What `crossloom.training.fit` raises.
    """
    config = placed(config, machine)
    loss = next((found for m in methods if (found := m.loss()) is not None), None)
    if loss is None and spread is not None and images is not None:
        loss = tempered(module, images, spread, config.label_smoothing)
    return fit(
        module, data, config, where, resume=checkpoint_path(where).is_file(),
        callbacks=[c for m in methods for c in m.callbacks()], extra_loss=_sum_of_losses(methods), loss=loss,
        progress=bars,
    )  # fmt: skip


@torch.no_grad()
def tempered(module: nn.Module, images: Tensor, spread: float, smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy of the logits over a temperature that brings them to `spread` at most."""
    found = float(module.eval()(images).std())
    temperature = max(found / spread, 1.0)
    return lambda logits, labels: F.cross_entropy(logits / temperature, labels, label_smoothing=smoothing)


def _sum_of_losses(steps: Sequence[Method]) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] | None:
    """The methods' extra losses as one, or None."""
    terms = [term for step in steps if (term := step.extra_loss()) is not None]
    if not terms:
        return None

    def total(network: nn.Module, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([term(network, images, logits, labels) for term in terms]).sum()

    return total


def digest(content: dict[str, Any]) -> str:
    """SHA-256, hex, of JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
