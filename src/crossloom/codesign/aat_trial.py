"""One network under one approximation plan: projected from the dense network, fine-tuned, compiled, measured.

Every trial of a study starts from the same dense float network and is trained on with the recipe that the dense one is
trained on with, quantised, so that accuracies compare. Each is kept in a folder of its own and resumes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx

from crossloom.codesign.config import RunConfig
from crossloom.codesign.evaluation import outputs
from crossloom.codesign.folder import CHIP, RunFolder
from crossloom.codesign.job import Job, activity_images
from crossloom.codesign.kept import Kept
from crossloom.codesign.machine import placed, threads
from crossloom.codesign.run import run as run_job
from crossloom.compiled import CompiledChip, Rung, compile
from crossloom.cost import CostReport, estimate, measure
from crossloom.frontend import calibrate, convert
from crossloom.hardware import Action, Chip
from crossloom.hardware.components import components
from crossloom.methods import Approximation
from crossloom.training import TrainingConfig, checkpoint_path, fit, load_weights

Figures = dict[str, Any]
"""What is measured of one chip: accuracies (fractions), images, crossbars, cost."""

TRANSFORM = (Action.TRANSFORM_ADD, Action.TRANSFORM_MULTIPLY, Action.TRANSFORM_GATHER)
COST_IMAGES = 16
"""Calibration images from which the cost model takes the inputs' statistics."""


COSTS = (
    ("input cycles, all layers", "cycles", "reads"),
    ("input digits, layer with most", "digits", "digits"),
    ("area", "area_m2", "m²"),
    ("area of input transforms", "transform_area_m2", "m²"),
    ("energy an image", "energy_j", "J"),
    ("energy of input transforms", "transform_energy_j", "J"),
    ("latency", "latency_s", "s"),
)
"""What the abstract hides: (metric, key of `figures`, unit)."""


class Study:
    """A dense run and the trials that start from it.

    Args:
        config: of the dense run, fine-tuning included.
        folder: of the study; the dense run lies in `dense`.
        progress: who watches.
        fresh: start over.
        command: for the dense run's record.
    """

    def __init__(self, config: RunConfig, folder: Path, progress: Any, fresh: bool, command: str) -> None:
        self.config, self.folder, self.progress, self.fresh = config, folder, progress, fresh
        dense = folder / "dense"
        self.result = run_job(config, dense, fresh=fresh, progress=progress, command=[command])
        hardware = config.chip()
        self.job = Job(config, hardware, RunFolder(dense, config), progress)
        self.hardware = hardware

    @property
    def dense(self) -> Figures:
        """The dense network's figures."""
        chip = self.job.chip
        found = {"accuracy": self.result.accuracy, "images": self.result.images, "epochs": self.schedule().epochs}
        return {**found, **self._cost("dense-cost", chip)}

    def converted(self) -> fx.GraphModule:
        """The dense float network with quantisers, not calibrated."""
        return convert(self.job.network, torch.zeros(2, *self.job.data.image_shape), self.config.quantisation)

    def schedule(self, share: float = 1.0) -> TrainingConfig:
        """Training of a trial: the dense network's fine-tuning, or a share of its epochs."""
        whole = self.config.finetuning
        assert whole is not None
        return whole.updated(epochs=max(1, math.ceil(share * whole.epochs)))

    def trial(
        self, name: str, method: Mapping[str, Any], limit: int | None = None, *, share: float = 1.0
    ) -> Figures:  # fmt: skip
        """The network under a plan.

        Args:
            name: of the folder, in words.
            method: options of `Approximation`.
            limit: test images of the crossbar rung, 0 to leave it out; None: all.
            share: of the dense network's epochs of fine-tuning.
        """
        schedule = self.schedule(share)
        said = json.dumps([self.config.hash, method, schedule.epochs], sort_keys=True)
        folder = self.folder / f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
        kept = Kept(folder, self.progress)
        with threads(self.config.machine.threads):
            trained = kept.part(
                "trained", f"{name}: {schedule.epochs} epochs", lambda: self._train(folder, method, schedule)
            )
            kept.part("compiled", f"{name}: compile", lambda: self._compile(folder, method))
            chip = CompiledChip.load(folder / CHIP)
            found: Figures = {"accuracy": {"fine-tuned": trained["accuracy"]}, "images": {}}
            wanted: dict[Rung, int | None] = {"integer": None}
            wanted |= {"crossbar": limit} if limit != 0 else {}
            for rung, images in wanted.items():
                path = folder / f"{rung}.safetensors"
                made = outputs(chip, rung, self.job.data, images, path=path, tick=self.progress.tick)
                found["accuracy"][rung], found["images"][rung] = made.accuracy, made.images
            found |= self._cost(f"{folder.name}/cost", chip)
        return {**found, "rows": trained["rows"], "epochs": schedule.epochs, "folder": folder.name}

    def _woven(self, method: Mapping[str, Any]) -> tuple[fx.GraphModule, Approximation]:
        """The network, projected and calibrated, before fine-tuning."""
        module, approximation = self.converted(), Approximation(**method)
        approximation.prepare(module)
        calibrate(module, self.job.calibration)
        return module, approximation

    def _train(self, folder: Path, method: Mapping[str, Any], schedule: TrainingConfig) -> dict[str, Any]:
        module, approximation = self._woven(method)
        fitted = fit(
            module, self.job.data, placed(schedule, self.config.machine), folder / "quantised",
            resume=checkpoint_path(folder / "quantised").is_file(), progress=self.progress.bars,
        )  # fmt: skip
        return {"accuracy": fitted.accuracy, "epochs": fitted.epochs, **approximation.finish(module)}

    def _compile(self, folder: Path, method: Mapping[str, Any]) -> dict[str, Any]:
        module, approximation = self._woven(method)
        load_weights(module, folder / "quantised" / "weights.safetensors")
        approximation.finish(module)
        chip = compile(
            module.eval(), self.hardware, self.job.calibration, name=self.config.network.name,
            classes=self.job.data.classes,
        )  # fmt: skip
        chip.save(folder / CHIP)
        return {"crossbars": chip.crossbars}

    def _cost(self, name: str, chip: CompiledChip) -> Figures:
        def make() -> Figures:
            images = activity_images(self.job.data, self.config.seed)[:COST_IMAGES]
            report = estimate(chip.mapping, measure(chip.mapping, images))
            return {"crossbars": chip.crossbars, "cost": figures(report, chip.hardware)}

        found: Figures = Kept(self.folder, self.progress).part(name, "area, energy, latency", make)
        return found


def figures(report: CostReport, chip: Chip) -> dict[str, Any]:
    """What a cost report says of a plan: totals, input cycles, and the periphery that forms the moments.

    Input cycles are reads one after another, summed over layers. The periphery is what computes P x and corrects for
    offset columns: a dense network has some, too.
    """
    names = {name for name, part in components(chip).items() if set(part.actions) & set(TRANSFORM)}
    paid = [cost for name, cost in report.components.items() if name in names]
    return {
        "area_m2": report.area_m2, "energy_j": report.energy_j, "latency_s": report.latency_s,
        "cycles": sum(layer.cycles for layer in report.layers),
        "transform_area_m2": sum(cost.area_m2 for cost in paid),
        "transform_energy_j": sum(cost.energy_j for cost in paid),
        "digits": max(layer.digits for layer in report.layers),
    }  # fmt: skip
