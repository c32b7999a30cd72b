"""A network through ADMM's points: pruned, narrowed, retrained at eight bits, then at fewer; resumable anywhere.

While training, activations stay float: eight bits of them change a per mille of the answers and cost half the time.
Their steps are set afterwards, and every accuracy that is reported is of the integer program.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from crossloom.codesign.admm_points import Point, Recipe, counted
from crossloom.codesign.config import file_sha256
from crossloom.codesign.machine import placed
from crossloom.codesign.phases import digest
from crossloom.codesign.reproduce import Request
from crossloom.compiled import CompiledChip, quantisation_for
from crossloom.frontend import calibrate, convert, lower, quantisers
from crossloom.hardware import Chip
from crossloom.mapping import map_program
from crossloom.methods import ADMM, FixedPoint, Flow, Support, narrow
from crossloom.nn import woven_layers
from crossloom.training import (
    DataSet,
    TrainingConfig,
    build_network,
    checkpoint_path,
    fit,
    load_weights,
    recipe,
)
from crossloom.weave.compaction import compacted

CALIBRATION_IMAGES = 512


@dataclass(frozen=True)
class Reached:
    """A point at one bit width.

    Attributes:
        point: whose structures.
        bits: of the weights.
        chip: the compacted integer program on the engine.
        kept: weights that are not zero, by layer.
        dense: weights of the unpruned network.
        epochs: of training, all phases up to here.
        key: hash of all that led here.
        residuals: primal residual before the first and after the last update of the point's ADMM, means over sets.
    """

    point: Point
    bits: int
    chip: CompiledChip
    kept: dict[str, int]
    dense: int
    epochs: int
    key: str
    residuals: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """Weights of the network over weights that are not zero."""
        return self.dense / sum(self.kept.values())

    @property
    def stored_ratio(self) -> float:
        """Weights of the network over weights that arrays store: zeros in kept rows and columns count as stored."""
        return self.dense / sum(layer.core.size for layer in self.chip.program.layers)


@contextmanager
def float_activations(module: nn.Module) -> Iterator[None]:
    """Inside the block the activation quantisers pass values on as they are."""
    found = quantisers(module).values()
    for quantiser in found:
        quantiser.forward = lambda x: x  # type: ignore[method-assign]
    try:
        yield
    finally:
        for quantiser in found:
            del quantiser.forward


class AdmmCourse:
    """Trains one network through its recipe.

    Args:
        recipe: points, structures and epochs.
        request: what was asked for: weights, machine, folders.
        data: the images.
        chip: the engine.
        weights: a file of trained float weights; None: the network is trained here first.
    """

    def __init__(self, recipe: Recipe, request: Request, data: DataSet, chip: Chip, weights: Path | None) -> None:
        self.recipe, self.request, self.data, self.chip, self.weights = recipe, request, data, chip, weights
        self.folder = request.runs / f"admm-{request.network}"
        self.epochs = 0
        self.key = digest(
            {
                "network": request.network, "data": data.fingerprint(), "chip": chip.hash,
                "weights": None if weights is None else file_sha256(weights),
            }
        )  # fmt: skip
        self.module, self.teacher = self._start()
        self.shapes = {name: tuple(layer.weight_shape) for name, layer in woven_layers(self.module).items()}
        self.dense = sum(math.prod(shape) for shape in self.shapes.values())
        self.dense_chip = self._compiled(self.module)

    def _start(self) -> tuple[fx.GraphModule, nn.Module]:
        """The converted float network, and the float network as the teacher."""
        network = build_network(self.request.network, len(self.data.classes), self.data.image_shape, 0)
        if self.weights is None:
            training = recipe(self.request.network, self.recipe.data)
            training = training.updated(epochs=min(training.epochs, self.request.epochs or training.epochs))
            self._trained(network, training, "float", [], None)
        else:
            load_weights(network, self.weights)
        teacher = copy.deepcopy(network).eval()
        module = convert(network.eval(), torch.zeros(2, *self.data.image_shape), quantisation_for(self.chip))
        calibrate(module, self._calibration())
        return module, teacher

    def _calibration(self) -> list[Tensor]:
        images = min(CALIBRATION_IMAGES, len(self.data.train.labels))
        return [x for x, _ in self.data.calibration_loader(images, seed=0)]

    def run(self) -> Iterator[Reached]:
        """Every point at every bit width, one after another."""
        for index, point in enumerate(self.recipe.points):
            residuals = self._prune(point, self.recipe.prune[index])
            module, key, epochs = self.module, self.key, self.epochs
            for number, bits in enumerate(sorted(point.bits, reverse=True)):
                if number:
                    module = copy.deepcopy(module)
                length = self.recipe.requantise if number else self.recipe.retrain[index]
                reached = self._quantise(module, point, bits, length)
                yield replace(reached, residuals=residuals)
                if not number:
                    key, epochs = self.key, self.epochs
            self.key, self.epochs = key, epochs  # the next point starts from the first bit width

    # -- stages -----------------------------------------------------------------------------------------------------

    def _prune(self, point: Point, epochs: int) -> tuple[float, float] | None:
        """ADMM, then the useless channels out."""
        for layer in woven_layers(self.module).values():
            layer.weight_quantiser.enabled = False
        flow, sets = Flow(self.module), counted(point.sets, self.shapes)
        method = ADMM(
            sets, self.recipe.rho, self.recipe.every, retrain=0.0, restart=False, flow=flow, purify=point.purify,
            teacher=self.teacher, distillation=self.recipe.share,
        )  # fmt: skip
        training = self.recipe.prune_training.updated(epochs=epochs)
        options = {
            "sets": sets, "purify": point.purify, "rho": self.recipe.rho, "every": self.recipe.every,
            "share": self.recipe.share,
        }  # fmt: skip
        said = self._trained(self.module, training, f"{point.ratio:g}-prune", [method], options)
        narrow(self.module)
        return said

    def _quantise(self, module: fx.GraphModule, point: Point, bits: int, epochs: int) -> Reached:
        """Masked retraining on the levels; the program that comes of it."""
        layers = woven_layers(module)
        sets = {name: [Support(layer.weight.detach() != 0), FixedPoint(bits)] for name, layer in layers.items()}
        method = ADMM(
            sets, every=max(0.5, epochs / 8), retrain=1.0, restart=True, flow=Flow(module),
            teacher=self.teacher, distillation=self.recipe.share,
        )  # fmt: skip
        training = self.recipe.retrain_training.updated(epochs=epochs)
        options = {"bits": bits, "share": self.recipe.share}
        self._trained(module, training, f"{point.ratio:g}-{bits}bit", [method], options)
        method.finish(module)
        kept = {name: int(layer.weight.count_nonzero()) for name, layer in layers.items()}
        calibrate(module, self._calibration())
        return Reached(point, bits, self._compiled(module), kept, self.dense, self.epochs, self.key)

    def _compiled(self, module: fx.GraphModule) -> CompiledChip:
        """The integer program without the rows and columns that are zero, on the engine."""
        program = compacted(lower(module.eval(), self.request.network, self.data.classes))
        return CompiledChip(map_program(program, self.chip), module)

    def _trained(
        self, network: nn.Module, training: TrainingConfig, name: str, methods: list[ADMM], options: Any
    ) -> tuple[float, float] | None:
        """Train into a folder of its own, go on there, or load what it holds; ADMM's first and last primal residual."""
        training = self.request.training(training)
        machine = {"accelerator", "threads", "validate_every", "checkpoint_every"}
        decides = {"training": training.model_dump(mode="json", exclude=machine), "options": options}
        self.key = digest({"before": self.key, "name": name, **decides})
        self.epochs += training.epochs
        where, progress = self.folder / f"{name}-{self.key[:10]}", self.request.progress
        kept = where / "weights.safetensors"
        for method in methods:
            method.prepare(network)
        if self.request.fresh or not kept.is_file():
            progress.begin(where.name, f"{training.epochs} epochs")
            with float_activations(network):
                result = fit(
                    network, self.data, placed(training, self.request.machine), where,
                    resume=not self.request.fresh and checkpoint_path(where).is_file(),
                    callbacks=[c for method in methods for c in method.callbacks()],
                    extra_loss=next((method.extra_loss() for method in methods), None), progress=progress.bars,
                )  # fmt: skip
            progress.end(where.name, result.seconds, f"{100 * result.accuracy:.2f} %, activations float")
        saved = torch.load(checkpoint_path(where), map_location="cpu", weights_only=True)
        load_weights(network, kept)
        network.eval()
        return _residuals(saved)


def _residuals(checkpoint: dict[str, Any]) -> tuple[float, float] | None:
    """Mean primal residual after the first and after the last update that a checkpoint knows of."""
    states = [s["admm"]["history"] for s in checkpoint.get("callbacks", {}).values() if "admm" in s]
    history = cast(list[dict[str, float]], states[0] if states else [])
    if not history:
        return None

    def mean(update: float) -> float:
        values = [r["primal"] for r in history if r["update"] == update]
        return sum(values) / len(values)

    return mean(0), mean(history[-1]["update"])
