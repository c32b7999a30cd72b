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
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from crossloom.codesign import passes
from crossloom.codesign.config import Machine
from crossloom.codesign.kept import Kept
from crossloom.codesign.phases import train
from crossloom.codesign.progress import Progress
from crossloom.codesign.recipe import Call, MapStep, Recipe, TrainStep, named
from crossloom.codesign.recipe_methods import Bench, labelled, made, reachable, resolved
from crossloom.codesign.record import Candidate, StepRecord
from crossloom.compiled import CompiledChip
from crossloom.errors import InputError
from crossloom.frontend import QuantisationConfig, calibrate, convert, lower, quantisers
from crossloom.hardware import Chip
from crossloom.mapping import map_program
from crossloom.methods import Method
from crossloom.simulate import calibrate_converters
from crossloom.training import DataSet, Loader, TrainingConfig, load_weights
from crossloom.weave import Program
from crossloom.weave.store import write_text

REHEARSAL_IMAGES = 32
DENSE, MAPPING, OWNER = "dense", "mapping.json", "owner.json"


@dataclass
class State:
    """A network between two steps.

    Attributes:
        count: steps done.
        module: the network, calibrated.
        lasting: methods whose loss and callbacks go on.
        pruned: whether zeros must stay zeros.
    """

    count: int
    module: fx.GraphModule
    lasting: list[Method]
    pruned: bool


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
    machine: Machine
    progress: Progress
    activity: Tensor
    images: int | None = None
    _latest: State | None = None
    _passes: list[tuple[Program, list[dict[str, Any]]]] = field(default_factory=list)

    # -- the network ------------------------------------------------------------------------------------------------

    def converted(self) -> fx.GraphModule:
        """The float network with quantisers, calibrated."""
        module = convert(copy.deepcopy(self.network), torch.zeros(2, *self.data.image_shape), self.quantisation)
        calibrate(module, self.calibration)
        return module

    def after(self, count: int) -> fx.GraphModule:
        """The network as so many training steps left it; they are done already. It is not to be changed."""
        return self._state(count).module

    def _state(self, count: int) -> State:
        """The network after so many steps, from memory or made again; the last one asked for is remembered."""
        if self._latest is None or self._latest.count != count:
            here = self._latest
            if here is None or here.count > count:
                here = State(0, self.converted(), [], False)
            while here.count < count:
                step = self.recipe.training[here.count]
                where = self.place(here.count + 1, step)
                here = copy.deepcopy(here)
                if "left_out" in json.loads((where / "figures.json").read_text("utf-8")):
                    here = self._finished(here, [])
                    continue
                steps = self._prepared(here, step, json.loads((where / "options.json").read_text("utf-8")))
                if step.epochs:
                    load_weights(here.module, where / "weights.safetensors")
                finish(here.module, steps)
                here = self._finished(here, steps)
            self._latest = here
        return self._latest

    def _finished(self, state: State, steps: Sequence[Method]) -> State:
        """The state behind a step, whose methods are finished; activations keep the steps that it trained with."""
        lasting = state.lasting + [m for m in steps if m.lasting]
        return State(state.count + 1, state.module.eval(), lasting, state.pruned or any(m.prunes for m in steps))

    def place(self, number: int, step: TrainStep | MapStep) -> Path:
        """A step's folder."""
        return self.folder / f"{number}-{re.sub(r'[^A-Za-z0-9._-]+', '-', step.name)}"

    def _prepared(
        self, state: State, step: TrainStep, options: list[dict[str, Any]] | None = None, few: bool = False
    ) -> list[Method]:
        """The step's methods, prepared on the state's network, which is calibrated then.

        Args:
            state: whose network is changed.
            step: the step.
            options: of its methods, resolved; None: not yet. An empty list receives them.
            few: a rehearsal: calibrated on few images, and methods that search are left out (they take minutes, and
                what they find fits).
        """
        module, found = state.module, list[Method]()
        calibration = [self._few] if few else self.calibration
        for place, call in enumerate(step.methods):
            bench = Bench(module, self.chip, self._labelled, self.network, self.progress.tick)
            if few and "budget" in call.options:
                settle(module, found, calibration)
                reachable(call, bench)
                continue
            if options and place < len(options):
                chosen = options[place]
            else:
                settle(module, found, calibration)
                if "budget" in call.options:
                    self.progress.note(f"{call.method}: searching for a plan within the budget, seconds to minutes")
                chosen = resolved(call, bench)
                if options is not None:
                    options.append(chosen)
            found.append(made(call, chosen, bench))
            found[-1].prepare(module)
        if state.pruned:
            found.append(made(Call(method="keep-zeros"), {}, Bench(module, self.chip, (), self.network)))
            found[-1].prepare(module)
        settle(module, found, calibration)
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
        state = State(0, module, [], False)
        for step in self.recipe.training:
            before = copy.deepcopy(state) if step.optional else state
            try:
                step.schedule(self.base)
                steps = self._prepared(state, step, few=True)
                finish(state.module, steps)
            except InputError as error:
                if step.optional:
                    state, steps = before, []
                    continue
                raise InputError(
                    f"recipe.{step.name}: {error.field}", error.value, error.expected, error.nearest
                ) from error
            state.pruned |= any(m.prunes for m in steps)
        self.mapped(self._lowered(state.module.eval()), few, self.recipe.mapping, rehearsal=True)

    def claim(self) -> None:
        """Say whose folder this is, or refuse another one's.

        Raises:
            InputError: the folder holds steps of another network, data set, recipe, chip or training.
        """
        weights = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            weights.update(name.encode() + value.detach().cpu().contiguous().view(-1).numpy().tobytes())
        mine = {
            "recipe": self.recipe.plain(), "chip": self.chip.hash, "data": self.data.fingerprint(),
            "weights": weights.hexdigest(), "quantisation": self.quantisation.model_dump(mode="json"),
            "training": self.base.model_dump(mode="json", exclude={"accelerator", "threads"}),
        }  # fmt: skip
        path = self.folder / OWNER
        if path.is_file():
            there = json.loads(path.read_text("utf-8"))
            changed = [key for key, value in mine.items() if there.get(key) != value]
            if changed:
                raise InputError("folder", str(self.folder), f"a folder of its own: this one's {changed[0]} is another")
        write_text(path, json.dumps(mine, indent=1) + "\n")

    # -- training steps ---------------------------------------------------------------------------------------------

    def train(self, number: int) -> None:
        """Do a training step, or what is left of it. Steps are counted from 1."""
        step = self.recipe.training[number - 1]
        where = self.place(number, step)
        if (where / "figures.json").is_file():
            return
        state = copy.deepcopy(self._state(number - 1))
        module, path = state.module, where / "options.json"
        options: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
        try:
            steps = self._prepared(state, step, options)
        except InputError as error:
            if not step.optional:
                raise
            write_text(where / "figures.json", json.dumps({"left_out": str(error)}, indent=1) + "\n")
            return
        write_text(path, json.dumps(options, indent=1) + "\n")
        schedule, said = step.schedule(self.base), dict[str, Any]()
        if schedule is not None:
            fitted = train(
                module, self.data, schedule, where, [*state.lasting, *steps], self.machine, bars=self.progress.bars,
                spread=step.spread, images=self._labelled[0][0],
            )  # fmt: skip
            said["training"] = {"test_accuracy": fitted.accuracy, "images": fitted.images}
        said |= finish(module, steps)
        self._latest = self._finished(state, steps)
        write_text(where / "figures.json", json.dumps(said, indent=1, allow_nan=False) + "\n")

    # -- mapping steps ----------------------------------------------------------------------------------------------

    def mapped(
        self, program: Program, images: Tensor, steps: Sequence[MapStep], rehearsal: bool = False
    ) -> tuple[Program, list[dict[str, Any]]]:
        """A program after mapping passes, and what each of them said.

        Raises:
            InputError: a pass that the program or the chip does not allow and that is not optional; it names the step.
        """
        figures = []
        layers = [layer.name for layer in program.layers]
        for step in steps:
            try:
                program, said = passes.apply(
                    step.map, passes.Site(program, self.chip, images, rehearsal), named(step.options, layers)
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

    def after_passes(self, count: int) -> tuple[Program, list[dict[str, Any]]]:
        """The trained network after so many of the mapping passes, each done once, and what they said."""
        if not self._passes:
            self._passes.append((self._lowered(self.after(len(self.recipe.training))), []))
        while len(self._passes) <= count:
            program, said = self._passes[-1]
            step = self.recipe.mapping[len(said)]
            program, more = self.mapped(program, self.calibration_images, [step])
            self._passes.append((program, said + more))
        return self._passes[count]

    def chip_made(self) -> CompiledChip:
        """The network after all steps, on the chip; what the mapping passes said is kept."""
        program, said = self.after_passes(len(self.recipe.mapping))
        write_text(self.folder / MAPPING, json.dumps(said, indent=1, allow_nan=False) + "\n")
        mapping, converters = map_program(program, self.chip), None
        if self.chip.array.adc_range == "calibrated":
            converters = calibrate_converters(mapping, self.calibration_images)
        return CompiledChip(mapping, None, converters)

    # -- what came of it --------------------------------------------------------------------------------------------

    def candidate(self, number: int) -> Candidate:
        """The network as it stood after a step (0: dense, quantised as the chip asks for), with cost and accuracy.

        A training step's candidate is costed without its rows and columns of zeros if the recipe compacts. On arrays
        of polarised cells one that is not trained for them yet is held by pairs of cells where that takes fewer.
        """
        if number == 0:
            where = Kept(self.folder, self.progress)
            made_now = where.part(
                DENSE, "the dense network on the chip", lambda: self._measured(self._lowered(self.converted()), False)
            )
            return Candidate(name=DENSE, **made_now)
        step, trained = self.recipe.steps[number - 1], len(self.recipe.training)

        def program() -> Program:
            if number > trained:
                return self.after_passes(number - trained)[0]
            compact = [s for s in self.recipe.mapping if s.map == "compact"]
            return self.mapped(self._lowered(self.after(number)), self.calibration_images, compact)[0]

        last = number == len(self.recipe.steps)
        made_now = Kept(self.place(number, step), self.progress).part(
            "candidate", "the network so far on the chip", lambda: self._measured(program(), last)
        )
        return Candidate(name=step.name, **made_now)

    def _lowered(self, module: fx.GraphModule) -> Program:
        return lower(module, self.recipe.name, self.data.classes)

    def _measured(self, program: Program, last: bool) -> dict[str, Any]:
        from crossloom.cost import estimate, measure

        mapping = map_program(program, self.chip)
        if self.chip.array.fragment is not None and not last:
            pairs = map_program(program, self.chip.override({"array.encoding": "differential"}))
            mapping = min(mapping, pairs, key=lambda m: m.crossbars)
        chip = CompiledChip(mapping)
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


def settle(module: fx.GraphModule, steps: Sequence[Method], calibration: Loader | list[Tensor]) -> None:
    """Set the steps of activations anew if a method put in new quantisers or new cores; else leave them.

    A network that was trained with few bits has learnt with its steps: another power of two would undo the training.
    """
    if any(q.observing for q in quantisers(module).values()) or any(m.recores and not m.keeps_zeros for m in steps):
        calibrate(module, calibration)
