"""CRIMP's rows that need its training: pruned networks, hardened networks, and accuracy against ε and array height.

Every training is a `Course` whose phases are kept in the study's folder, every measurement a part kept beside them, so
the study goes on wherever it stopped.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from crossloom.codesign.crimp_recipe import CrimpRecipe
from crossloom.codesign.kept import Kept
from crossloom.codesign.phases import Course, Phase, Trained, digest
from crossloom.codesign.plugins import default_data, open_data
from crossloom.codesign.reproduce import Request, published_weights
from crossloom.compiled import CompiledChip
from crossloom.errors import InputError
from crossloom.frontend import lower
from crossloom.hardware import Chip, load
from crossloom.mapping import Mapping, map_program
from crossloom.mapping.fault_placement import filled, place_all
from crossloom.mapping.idle_rows import repeated
from crossloom.methods.cell_draws import ArrayCells
from crossloom.simulate import Conditions
from crossloom.simulate.analog_chip import AnalogChip
from crossloom.simulate.compensation import compensate, stuck_cells
from crossloom.training import TrainingConfig, recipe
from crossloom.weave import Program

if TYPE_CHECKING:
    from crossloom.cost.validation.crimp import Published

CHIPS = 20
"""Chips of a row, as in the paper."""

REFERENCES = 4
"""Other chips whose mean accumulators are the target of compensation."""

HELPED_IMAGES = 1000
"""Test images on which placed and compensated chips are measured."""

CHIP = "crimp-isaac"


@dataclass(frozen=True)
class Noise:
    """Under what a network is hardened or measured.

    Attributes:
        epsilon: ε of programming variation.
        faults: whether cells are stuck (9.04 % at HRS, 1.75 % at LRS).
    """

    epsilon: float
    faults: bool = True

    def cells(self, cells: ArrayCells) -> ArrayCells:
        """The array with these cells."""
        return replace(cells, epsilon=self.epsilon) if self.faults else replace(
            cells, epsilon=self.epsilon, stuck_hrs=0.0, stuck_lrs=0.0
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{'stuck-at faults and ' if self.faults else ''}ε = {self.epsilon:g}"


@dataclass(frozen=True)
class Plan:
    """How one network is trained, and what the paper says of it.

    Attributes:
        row: the network in the paper's words.
        recipe: CRIMP's training.
        float_training: of the float network; None: published weights.
        normalisation: of the input, by name; None: the data set's own.
        sparsity: the paper's, in per cent of the crossbars.
        pruned: the paper's accuracy, pruned and quantised, %.
        noisy: the paper's accuracies with noise of the pruned network, %.
        dense: those of the network that is not pruned.
        adapted: accuracy against ε, hardened for that ε, % ({} where the paper has no curve).
        unadapted: accuracy against ε of the network that is not hardened.
        heights: accuracy against (array rows, ε).
        longer: times `recipe.harden_epochs` that networks for chips with copies in idle rows are hardened (ours).
    """

    row: str
    recipe: CrimpRecipe
    float_training: TrainingConfig | None
    normalisation: str | None
    sparsity: float
    pruned: float
    noisy: dict[Noise, float]
    dense: dict[Noise, float]
    adapted: dict[float, float | None]
    unadapted: dict[float, float | None]
    heights: dict[tuple[int, float], float | None]
    longer: int = 1

    def within(self, epochs: int) -> Plan:
        """The same in about `epochs` epochs in all: the phases shortened alike."""
        given = self.float_training.epochs if self.float_training else 0
        share = epochs / (given + 2 * self.recipe.prune_epochs + self.recipe.harden_epochs)
        made = [max(round(e * share), 1) for e in (self.recipe.prune_epochs, self.recipe.harden_epochs)]
        return replace(
            self,
            recipe=replace(self.recipe, prune_epochs=made[0], harden_epochs=made[1]),
            float_training=self.float_training and self.float_training.updated(epochs=max(round(given * share), 1)),
        )


MNIST = recipe("lenet5-caffe", "mnist").updated(
    epochs=16, lr=2e-3, threads=1, channels_last=True, precision="bf16-mixed", validate_every=4
)
"""LeNet-5 in float: the reference recipe at a higher rate, in the arithmetic that is fastest on a CPU with AMX."""

CIFAR = recipe("vgg16", "cifar10").updated(precision="bf16-mixed", validate_every=10)
FINE = CIFAR.updated(lr=0.02, warmup=0.02)

CODE: dict[str, Any] = {
    "cells": ArrayCells(encoding="differential"), "bits": 7, "per_channel": True, "weight_step": "nearest",
    "weight_reach": 1.5,
}  # fmt: skip
"""Weights in sign and 6 bits of magnitude, 3 + 3 cells, one shift per output channel. Of the codes tried it suffers
least: in the offset code a weight of 0 is stored as 128, so that every weight of a layer loses half its range to one
stuck cell, and the network does not train through stuck-at faults; in 8 bits of sign and magnitude the top cell holds
one bit, and stuck at the top level it reads 1.5 times the largest weight. Weights above 1.5 times the mean |w| are
clipped: they fill the range, and a stuck digit weighs less beside them."""

PLANS: dict[str, Plan] = {
    "lenet5-caffe": Plan(
        row="LeNet-5, MNIST",
        recipe=CrimpRecipe(
            MNIST.updated(lr=2e-3, batch_size=256, validate_every=100), prune_epochs=3, harden_epochs=12,
            keep_kernels=0.1, keep_arrays=9, **CODE,
        ),
        float_training=MNIST, normalisation="unit", sparsity=94.89, pruned=98.90,
        noisy={Noise(0.1): 98.60, Noise(0.5): 97.31}, dense={Noise(0.1): 99.15, Noise(0.5): 98.90},
        adapted={0.1: 98.6, 0.3: 98.05, 0.5: 97.31, 1.0: 96.0, 1.4: 92.6},
        unadapted={0.1: 97.8, 0.3: 95.45, 0.5: 93.1, 0.8: 90.54},
        heights={(32, 0.5): 98.1, (64, 0.5): None, (128, 0.5): 97.31, (256, 0.5): 96.8}, longer=3,
    ),
    "vgg16": Plan(
        row="VGG-16, CIFAR-10",
        recipe=CrimpRecipe(FINE, prune_epochs=80, harden_epochs=20, keep_kernels=0.5, keep_arrays=665, **CODE),
        float_training=CIFAR.updated(epochs=160), normalisation=None, sparsity=88.25, pruned=93.71,
        noisy={Noise(0.1): 91.09, Noise(0.1, False): 93.20, Noise(0.5, False): 90.31}, dense={}, adapted={},
        unadapted={}, heights={},
    ),
    "resnet56": Plan(
        row="ResNet-56, CIFAR-10",
        recipe=CrimpRecipe(
            FINE.updated(weight_decay=1e-4), prune_epochs=80, harden_epochs=20, keep_kernels=0.8, keep_arrays=241,
            **CODE,
        ),
        float_training=None, normalisation=None, sparsity=51.36, pruned=93.18,
        noisy={Noise(0.1): 92.08, Noise(0.1, False): 93.18, Noise(0.5, False): 91.88}, dense={}, adapted={},
        unadapted={}, heights={},
    ),
}  # fmt: skip
"""The trainings. LeNet-5's epochs are what reaches the paper's rows in minutes of CPU time (the paper: 200); VGG-16 and
ResNet-56 follow the paper's 160 epochs of pruning, and 20 more through the simulator."""


@dataclass(frozen=True)
class Measured:
    """A number and what it took."""

    value: float
    spread: float | None
    images: int
    epochs: int
    key: str


def measuring_chip(cells: ArrayCells) -> Chip:
    """The chip on which the analog rung computes CRIMP's formula: no converter that clips, no column flipped.

    Converters of one step a level, with bits for every row at the top level (9 at 128 rows, a third more than the
    largest nominal read), so that only a read far in the tail of the variation could clip. The floor of a finite on/off
    ratio is left out by `Conditions(on_off="infinite")`.
    """
    bits = (cells.rows * cells.top).bit_length()
    model = {"model": "lognormal", "sigma": cells.epsilon} if cells.epsilon else {"model": "none"}
    return load(
        CHIP,
        {
            "array.flip": False, "array.b_adc": bits, "array.adc_range": "unit", "array.encoding": cells.encoding,
            "array.rows": cells.rows, "array.active_rows": cells.rows, "array.columns": cells.columns,
            "device.variation": model, "device.stuck_hrs": cells.stuck_hrs, "device.stuck_lrs": cells.stuck_lrs,
        },
    )  # fmt: skip


class Study:
    """One network's trainings and measurements.

    Args:
        request: what is asked for.
        plan: how to train; None: the network's of `PLANS`.
    """

    def __init__(self, request: Request, plan: Plan | None = None) -> None:
        self.request = request
        plan = plan or PLANS[request.network]
        if request.epochs is not None and request.epochs < 1:
            raise InputError("--epochs", request.epochs, "at least 1 epoch, or 0 for the rows without training")
        self.plan = plan if request.epochs is None else plan.within(request.epochs)
        machine = request.machine
        data = open_data(default_data(request.network), machine.data_dir, machine.download)
        weights: Path | None = None
        if self.plan.float_training is None or request.weights is not None:
            weights, known = published_weights(request)
            data = data.normalised(known.normalisation)
        elif self.plan.normalisation is not None:
            data = data.normalised(self.plan.normalisation)
        if request.train_images is not None:
            data = data.subset(request.train_images, 0)
        self.data = data
        self.folder = request.runs / f"crimp-{request.network}-training"
        self.course = Course(
            request.network, data, self.folder, weights=weights, machine=machine, progress=request.progress,
            float_training=None if weights is not None else self.plan.float_training,
        )  # fmt: skip
        self.kept = Kept(self.folder / "measured", request.progress)
        self._trained: dict[str, Trained] = {}

    def trained(self, *phases: Phase) -> Trained:
        """The network after some phases."""
        key = digest({"phases": [phase.plain() for phase in phases]})
        if key not in self._trained:
            self._trained[key] = self.course.run(phases)
        return self._trained[key]

    # -- networks -----------------------------------------------------------------------------------------------

    def pruned(self, noise: Noise | None, copies: bool = False) -> Trained:
        """Pruned and quantised, hardened for some noise or for none; `copies`: in chips whose idle rows hold copies."""
        recipe = self.plan.recipe
        return self.trained(*recipe.pruning(), self._hardening(noise, copies=copies))

    def dense(self, noise: Noise | None) -> Trained:
        """Quantised, hardened for some noise or for none."""
        return self.trained(self._hardening(noise, dense=True))

    def _hardening(self, noise: Noise | None, dense: bool = False, copies: bool = False) -> Phase:
        recipe = self.plan.recipe
        if noise is None:
            return recipe.hardening(None, dense=dense)
        epochs = recipe.harden_epochs * (self.plan.longer if copies else 1)
        made = replace(recipe, cells=noise.cells(recipe.cells), harden_epochs=epochs)
        return made.hardening(noise.epsilon, dense=dense, copies=copies)

    # -- measurements -------------------------------------------------------------------------------------------

    def float_accuracy(self) -> Measured:
        """Of the float network."""
        found = self.trained()
        value = self.kept.part(f"float-{found.key[:12]}", "float network", lambda: self._evaluate(found.module))
        return Measured(100 * value, None, len(self.data.test.labels), found.epochs, found.key)

    def _evaluate(self, module: nn.Module) -> float:
        from crossloom.training import evaluate

        return evaluate(module, self.data.test_loader())

    def integer(self, found: Trained) -> Measured:
        """On the integer rung, all test images."""

        def make() -> float:
            chip = CompiledChip(map_program(lower(found.graph), load(CHIP)))
            return chip.accuracy(self.data.test_loader(), "integer").value

        value = self.kept.part(f"integer-{found.key[:12]}", "integer rung", make)
        return Measured(100 * value, None, len(self.data.test.labels), found.epochs, found.key)

    def analog(self, found: Trained, noise: Noise, rows: int | None = None, copied: bool = False) -> Measured:
        """On the analog rung: the mean of 20 chips; `copied`: with idle rows that hold copies of the others (ours)."""
        cells = noise.cells(self.plan.recipe.cells)
        if rows is not None:
            cells = replace(cells, rows=rows)
        limit = self.request.limit
        what = {"key": found.key, "cells": asdict(cells), "chips": CHIPS, "limit": limit}
        name = digest(what | ({"copied": True} if copied else {}))[:12]

        def make() -> dict[str, Any]:
            chip = CompiledChip(self.mapped(found, measuring_chip(cells), copied))
            made = chip.accuracy(
                self.data.test_loader(), "analog", limit, "cuda" if self.request.machine.device == "cuda" else "cpu",
                chips=CHIPS, conditions=Conditions(on_off="infinite"),
            )  # fmt: skip
            return {"mean": made.value, "spread": made.spread, "images": made.images, "cells": asdict(cells)}

        doing = f"{CHIPS} chips, {noise}, {cells.rows} rows{', idle ones with copies' if copied else ''}"
        made = self.kept.part(f"analog-{name}", doing, make)
        return Measured(100 * made["mean"], 100 * made["spread"], made["images"], found.epochs, found.key)

    def mapped(self, found: Trained, hardware: Chip, copied: bool) -> Mapping:
        """A network on arrays, with or without copies in idle rows."""
        mapping = map_program(lower(found.graph), hardware)
        if not copied:
            return mapping
        made = {name: repeated(layer) for name, layer in mapping.layers.items()}
        return map_program(mapping.program.replace_layers(made), hardware)

    def helped(self, found: Trained, noise: Noise) -> Measured:
        """As `analog` with copies, and what needs to know the chip: its faults placed, its offsets folded into biases.

        Offsets are calibrated on the calibration images, against the mean of `REFERENCES` other chips: the network was
        hardened on such chips. Test images: `HELPED_IMAGES`, since every chip has a program of its own.
        """
        cells = noise.cells(self.plan.recipe.cells)
        images = min(self.request.limit or HELPED_IMAGES, HELPED_IMAGES)
        name = digest({"key": found.key, "cells": asdict(cells), "chips": CHIPS, "images": images, "helped": 2})[:12]

        def make() -> dict[str, Any]:
            hardware = measuring_chip(cells)
            program = self.mapped(found, hardware, copied=True).program
            values = [self._helped(hardware, program, k, images) for k in range(CHIPS)]
            return {"mean": statistics.fmean(values), "spread": statistics.stdev(values)}

        made = self.kept.part(f"helped-{name}", f"{CHIPS} chips, {noise}, copies, placed and compensated", make)
        return Measured(100 * made["mean"], 100 * made["spread"], images, found.epochs, found.key)

    def _helped(self, hardware: Chip, program: Program, k: int, images: int) -> float:
        floorless = Conditions(on_off="infinite")
        bare = map_program(program, hardware).layers
        program = program.replace_layers({name: filled(layer) for name, layer in bare.items()})
        mapping = map_program(program, hardware)
        chip = AnalogChip.of(hardware, 0, k, floorless)
        faults = {name: stuck_cells(layer, chip) for name, layer in mapping.layers.items()}
        mapping = map_program(program.replace_layers(place_all(mapping.layers, faults)), hardware)
        others = [AnalogChip.of(hardware, 1, i, floorless) for i in range(REFERENCES)]
        batch = self.course.calibration()[0]
        mapping = map_program(compensate(mapping, chip, batch, references=others), hardware)
        executor = CompiledChip(mapping).executor("analog", seed=0, chip=k, conditions=floorless)
        right = seen = 0
        for x, y in self.data.test_loader():
            x, y = x[: images - seen], y[: images - seen]
            right, seen = right + int((executor.logits(x).argmax(1) == y).sum()), seen + len(y)
            if seen >= images:
                break
        return right / seen

    def arrays(self, found: Trained) -> int:
        """Arrays that the network takes on the chip."""
        encoding = self.plan.recipe.cells.encoding
        chip = load(CHIP, {"array.encoding": encoding, "array.flip": encoding == "offset"})
        return map_program(lower(found.graph), chip).crossbars

    def dense_arrays(self) -> int:
        """Arrays of the network before pruning, in the same code."""
        recipe = self.plan.recipe
        return self.arrays(self.trained(Phase("integers", (recipe.integers,), None)))

    def describe(self) -> str:
        """The weight code and bits that every row of this study used."""
        recipe = self.plan.recipe
        return f"{recipe.bits}-bit weights, {recipe.cells.encoding} code"


def computing_reduction(network: str, left: int) -> tuple[float, float]:
    """(power, area) of an original network's computing parts over those of its compressed form (Fig. 7).

    The original is stored in 32 bits, in the paper's code and on its chip with sparsity table and floating-point
    multiplier; the compressed form has neither.

    Args:
        network: one of Fig. 7's.
        left: arrays after compression.
    """
    from crossloom.cost.validation.crimp import STORED_BITS, computing, crossbars, shapes

    before, after = computing().per_array()
    whole = sum(crossbars(shapes(figure_7(network)), load(CHIP), STORED_BITS))
    return before[0] * whole / (after[0] * left), before[1] * whole / (after[1] * left)


def figure_7(network: str) -> Published:
    """What Fig. 7 says of a network."""
    from crossloom.cost.validation.crimp import FIGURE_7

    return next(case for case in FIGURE_7.values() if case.network == network)


def unpruned_arrays(network: str) -> int:
    """Arrays of the unpruned network in the paper's code: ⌈C_out/32⌉·⌈k²C_in/128⌉ a layer."""
    from crossloom.cost.validation.crimp import crossbars, shapes

    chip = load(CHIP)
    return sum(crossbars(shapes(figure_7(network)), chip, chip.precision.weights))
