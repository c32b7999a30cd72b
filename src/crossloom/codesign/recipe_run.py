"""A recipe at work on one network: rehearsed first, then step by step, each kept on disk.

    <run>/steps/dense.json             the candidate that nothing was done to
    <run>/steps/1-<name>/options.json  the methods' options, searches done and layers named
    <run>/steps/1-<name>/              checkpoint, weights and metrics.csv of the training
    <run>/steps/1-<name>/figures.json  what the methods said at their end: the step is done
    <run>/steps/1-<name>/candidate.json

The network after some steps is never stored: it is made again from the float network by preparing, loading and
finishing them in turn, which gives the same bits.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from crossloom.codesign import passes
from crossloom.codesign.kept import Kept
from crossloom.codesign.phases import train
from crossloom.codesign.progress import Progress
from crossloom.codesign.recipe import Call, MapStep, Recipe, TrainStep, named
from crossloom.codesign.recipe_methods import Bench, labelled, made, resolved
from crossloom.codesign.record import Candidate, StepRecord
from crossloom.compiled import CompiledChip
from crossloom.errors import InputError
from crossloom.frontend import QuantisationConfig, calibrate, convert, lower
from crossloom.hardware import Chip
from crossloom.mapping import map_program
from crossloom.methods import Method
from crossloom.simulate import calibrate_converters
from crossloom.training import DataSet, Loader, TrainingConfig, load_weights
from crossloom.weave import Program
from crossloom.weave.store import write_text

REHEARSAL_IMAGES = 32
DENSE, MAPPING = "dense", "mapping.json"


@dataclass
class Weaving:
    """One network, data set, chip and recipe.

    Attributes:
        recipe: the steps.
        network: the float network, trained.
        data: the images.
        chip: the hardware.
        quantisation: what the network is converted with.
        base: the network's reference training, which the steps' schedules start from.
        calibration: training images with labels, in batches.
        folder: where the steps' folders go.
        machine: where to compute.
        progress: who watches.
        activity: images that the cost model takes the statistics of inputs from.
        images: test images of a candidate's accuracy; None: all.
    """

    recipe: Recipe
    network: nn.Module
    data: DataSet
    chip: Chip
    quantisation: QuantisationConfig
    base: TrainingConfig
    calibration: Loader
    folder: Path
    machine: Any
    progress: Progress
    activity: Tensor
    images: int | None = None

    # -- the network ------------------------------------------------------------------------------------------------

    def converted(self) -> fx.GraphModule:
        """The float network with quantisers, calibrated."""
        module = convert(copy.deepcopy(self.network), torch.zeros(2, *self.data.image_shape), self.quantisation)
        calibrate(module, self.calibration)
        return module

    def after(self, count: int) -> fx.GraphModule:
        """The network as so many training steps left it; they are done already."""
        return self._replayed(count)[0]

    def _replayed(self, count: int) -> tuple[fx.GraphModule, list[Method], bool]:
        """The network, the methods that last, and whether zeros must stay."""
        module, lasting, pruned = self.converted(), list[Method](), False
        for number, step in enumerate(self.recipe.training[:count], 1):
            where = self.place(number, step)
            steps = self._prepared(module, step, json.loads((where / "options.json").read_text("utf-8")), pruned)
            if step.epochs:
                load_weights(module, where / "weights.safetensors")
            finish(module, steps)
            calibrate(module, self.calibration)
            lasting += [m for m in steps if m.lasting]
            pruned |= any(m.prunes for m in steps)
        return module.eval(), lasting, pruned

    def place(self, number: int, step: TrainStep | MapStep) -> Path:
        """A step's folder."""
        return self.folder / f"{number}-{re.sub(r'[^A-Za-z0-9._-]+', '-', step.name)}"

    def _prepared(
        self, module: fx.GraphModule, step: TrainStep, options: Sequence[dict[str, Any]] | None, pruned: bool,
        rehearsal: bool = False,
    ) -> list[Method]:  # fmt: skip
        """The step's methods, prepared; `options` receives what they came to where it is an empty list."""
        found: list[Method] = []
        new: list[dict[str, Any]] = []
        for place, call in enumerate(step.methods):
            bench = Bench(module, self.chip, self._labelled, self.network)
            if rehearsal and "budget" in call.options:
                continue  # a search of minutes; what it finds fits
            chosen = options[place] if options else resolved(call, bench)
            one = made(call, chosen, bench)
            one.prepare(module)
            calibrate(module, self.calibration if not rehearsal else [self._few])
            found.append(one)
            new.append(chosen)
        if pruned:
            keeper = made(Call(method="keep-zeros"), {}, Bench(module, self.chip, self._labelled, self.network))
            keeper.prepare(module)
            found.append(keeper)
        if isinstance(options, list) and not options:
            options.extend(new)
        return found

    @cached_property
    def _labelled(self) -> list[tuple[Tensor, Tensor]]:
        return labelled(self.calibration)

    @property
    def _few(self) -> Tensor:
        return self._labelled[0][0][:REHEARSAL_IMAGES]

    # -- before anything --------------------------------------------------------------------------------------------

    def rehearse(self) -> None:
        """Prepare and finish every step on the network without training, lower it, map it, and do the mapping passes.

        Raises:
            InputError: a step that this network, its predecessors or this chip do not allow; it names the step.
        """
        few = self._few
        module = convert(copy.deepcopy(self.network), torch.zeros(2, *self.data.image_shape), self.quantisation)
        calibrate(module, [few])
        pruned = False
        for step in self.recipe.training:
            try:
                step.schedule(self.base)
                steps = self._prepared(module, step, None, pruned, rehearsal=True)
                calibrate(module, [few])
                finish(module, steps)
                calibrate(module, [few])
            except InputError as error:
                raise InputError(
                    f"recipe.{step.name}: {error.field}", error.value, error.expected, error.nearest
                ) from error
            pruned |= any(m.prunes for m in steps)
        self.mapped(lower(module.eval(), self.recipe.name), few)

    # -- training steps ---------------------------------------------------------------------------------------------

    def train(self, number: int) -> None:
        """Do a training step, or what is left of it. Steps are counted from 1."""
        step = self.recipe.training[number - 1]
        where = self.place(number, step)
        if (where / "figures.json").is_file():
            return
        module, lasting, pruned = self._replayed(number - 1)
        path = where / "options.json"
        options: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
        steps = self._prepared(module, step, options, pruned)
        write_text(path, json.dumps(options, indent=1) + "\n")
        schedule, said = step.schedule(self.base), dict[str, Any]()
        if schedule is not None:
            fitted = train(
                module, self.data, schedule, where, [*lasting, *steps], self.machine, bars=self.progress.bars,
                spread=step.spread, images=self._labelled[0][0],
            )  # fmt: skip
            said["training"] = {"test_accuracy": fitted.accuracy, "images": fitted.images}
        said |= finish(module, steps)
        write_text(where / "figures.json", json.dumps(said, indent=1, allow_nan=False) + "\n")

    # -- mapping steps ----------------------------------------------------------------------------------------------

    def mapped(
        self, program: Program, images: Tensor, steps: Sequence[MapStep] | None = None
    ) -> tuple[Program, list[dict[str, Any]]]:
        """A program after the mapping passes (all of the recipe's if None), and what each of them said.

        Raises:
            InputError: a pass that the program or the chip does not allow and that is not optional; it names the step.
        """
        figures = []
        layers = [layer.name for layer in program.layers]
        for step in self.recipe.mapping if steps is None else steps:
            try:
                program, said = passes.apply(
                    step.map, passes.Site(program, self.chip, images), named(step.options, layers)
                )
            except InputError as error:
                if not step.optional:
                    raise InputError(
                        f"recipe.{step.name}: {error.field}", error.value, error.expected, error.nearest
                    ) from error
                said = {"left_out": str(error)}
            figures.append(said)
        return program, figures

    @cached_property
    def calibration_images(self) -> Tensor:
        """All calibration images."""
        return torch.cat([images for images, _ in self.calibration])

    def chip_made(self) -> CompiledChip:
        """The network after all steps, on the chip; what the mapping passes said is kept."""
        module = self.after(len(self.recipe.training))
        program, said = self.mapped(lower(module, self.recipe.name, self.data.classes), self.calibration_images)
        write_text(self.folder / MAPPING, json.dumps(said, indent=1, allow_nan=False) + "\n")
        mapping, converters = map_program(program, self.chip), None
        if self.chip.array.adc_range == "calibrated":
            converters = calibrate_converters(mapping, self.calibration_images)
        return CompiledChip(mapping, None, converters)

    # -- what came of it --------------------------------------------------------------------------------------------

    def candidate(self, number: int) -> Candidate:
        """The network as it stood after a step (0: dense, quantised as the chip asks for), with cost and accuracy.

        A training step's candidate is costed without its rows and columns of zeros if the recipe compacts.
        """
        if number == 0:
            name, where = DENSE, Kept(self.folder, self.progress)
            made_now = where.part(DENSE, "the dense network on the chip", lambda: self._measured(self.converted(), ()))
        else:
            steps = self.recipe.steps[:number]
            name, trained = steps[-1].name, [s for s in steps if isinstance(s, TrainStep)]
            done = [s for s in steps if isinstance(s, MapStep)]
            early = () if done else [s for s in self.recipe.mapping if s.map == "compact"]
            where = Kept(self.place(number, steps[-1]), self.progress)
            made_now = where.part(
                "candidate", "the network so far on the chip",
                lambda: self._measured(self.after(len(trained)), done or early),
            )  # fmt: skip
        return Candidate(name=name, **made_now)

    def _measured(self, module: fx.GraphModule, steps: Sequence[MapStep]) -> dict[str, Any]:
        from crossloom.cost import estimate, measure

        program, _ = self.mapped(lower(module, self.recipe.name), self.calibration_images, list(steps))
        chip = CompiledChip(map_program(program, self.chip))
        accuracy = chip.accuracy(self.data.test_loader(), "integer", self.images)
        cost = estimate(chip.mapping, measure(chip.mapping, self.activity))
        return {
            "accuracy": accuracy.value, "images": accuracy.images, "crossbars": chip.crossbars,
            "area_m2": cost.area_m2, "energy_j": cost.energy_j, "latency_s": cost.latency_s,
        }  # fmt: skip

    def records(self) -> list[StepRecord]:
        """What the steps came to; they are all done."""
        found, mapping = [], json.loads((self.folder / MAPPING).read_text("utf-8"))
        for number, step in enumerate(self.recipe.training, 1):
            said = json.loads((self.place(number, step) / "figures.json").read_text("utf-8"))
            found.append(StepRecord(name=step.name, kind="training", epochs=step.epochs, figures=said))
        for one, said in zip(self.recipe.mapping, mapping, strict=True):
            found.append(StepRecord(name=one.name, kind="mapping", figures={one.map: said}))
        return found


def finish(module: fx.GraphModule, steps: Sequence[Method]) -> dict[str, Any]:
    """Make the methods' edits final; what they say, by name."""
    module.eval()
    return {step.name: step.finish(module) for step in steps}
