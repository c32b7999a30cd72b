"""CRIMP's rows that need its training: pruned networks, hardened networks, and accuracy against ε and array height.

Every training is a `Course` whose phases are kept in the study's folder, every measurement a part kept beside them, so
the study goes on wherever it stopped.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from crossloom.codesign.crimp_plans import PLANS, Noise, Plan
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
from crossloom.training import PRETRAINED
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
        request: what is asked for; with weights, the float training is left out.
        plan: how to train; None: the network's of `PLANS`.
    """

    def __init__(self, request: Request, plan: Plan | None = None) -> None:
        self.request = request
        plan = plan or PLANS[request.network]
        if request.epochs is not None and request.epochs < 1:
            raise InputError("--epochs", request.epochs, "at least 1 epoch, or 0 for the rows without training")
        if request.weights is not None:
            plan = replace(plan, float_training=None)
        plan = plan if request.epochs is None else plan.within(request.epochs)
        self.plan = plan.changed(request.training)
        machine = request.machine
        data = open_data(default_data(request.network), machine.data_dir, machine.download)
        weights = request.weights
        if self.plan.float_training is None and any(known.network == request.network for known in PRETRAINED):
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
            float_training=self.plan.float_training,
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
        epochs = recipe.harden_epochs * ((self.plan.longer or 1) if copies else 1)
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
