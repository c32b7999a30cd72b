"""A run in progress: its stages, and what they share. `crossloom.codesign.run` does them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from crossloom.codesign.config import RunConfig, file_sha256
from crossloom.codesign.evaluation import Outputs, agreement, outputs
from crossloom.codesign.folder import CHIP, RunFolder
from crossloom.codesign.kept import Kept
from crossloom.codesign.machine import environment, placed
from crossloom.codesign.plugins import open_data
from crossloom.codesign.progress import Progress
from crossloom.codesign.recipe import sequence
from crossloom.codesign.recipe_run import Weaving
from crossloom.codesign.record import Agreement, NoisePoint, Result, Spread, versions
from crossloom.compiled import CHIP_RUNGS, RUNGS, CompiledChip, Rung, compile
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert
from crossloom.hardware import Chip
from crossloom.mapping import map_program
from crossloom.training import DataSet, Loader, TrainingConfig, build_network, checkpoint_path, fit, load_weights

ACTIVITY_IMAGES = 64
"""Calibration images from which the cost model takes the statistics of inputs."""


class Job:
    """A run in progress: what its stages share, made when first needed.

    Attributes:
        config: the run's configuration.
        hardware: the chip's description.
        folder: the run's folder.
        progress: who watches.
    """

    def __init__(self, config: RunConfig, hardware: Chip, folder: RunFolder, progress: Progress) -> None:
        self.config, self.hardware, self.folder, self.progress = config, hardware, folder, progress

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[list[str]]:
        """One stage: told to who watches, marked as done at its end. The block appends what came of it."""
        outcome: list[str] = []
        self.progress.begin(name, what)
        with self.folder.stage(name):
            yield outcome
        self.progress.end(name, self.folder.stages[name], " ".join(outcome))

    @cached_property
    def data(self) -> DataSet:
        """The images, as the configuration asks for."""
        config, machine = self.config.data, self.config.machine
        data = open_data(config.name, machine.data_dir, machine.download)
        if config.normalisation is not None:
            data = data.normalised(config.normalisation)
        if config.train_images is not None:
            data = data.subset(config.train_images, self.config.seed)
        return data

    @cached_property
    def untrained(self) -> nn.Module:
        """The network as float training finds it: with the weights that are given, or initial ones."""
        data, file = self.data, self.config.network.weights
        network = build_network(self.config.network.name, len(data.classes), data.image_shape, self.config.seed)
        if file is not None:
            if file_sha256(file.path) != file.sha256:
                raise InputError("network.weights", file.path, f"the file with SHA-256 {file.sha256[:12]}…")
            load_weights(network, file.path)
        return network

    @cached_property
    def network(self) -> nn.Module:
        """The float network with its trained weights."""
        network = self.untrained
        if self.config.training is not None:
            load_weights(network, self.path / "float" / "weights.safetensors")
        return network.eval()

    def check_inputs(self) -> None:
        """Read the images and the weights that are given.

        Raises:
            InputError: they cannot be used.
        """
        if self.config.network.weights is not None:
            self.untrained  # noqa: B018 -- loads and checks
        self.data.fingerprint()
        if self.config.recipe is not None:
            self.weaving.rehearse()

    @property
    def calibration(self) -> Loader:
        """The training images from which steps and converter ranges are set."""
        images = min(self.config.data.calibration_images, len(self.data.train.labels))
        return self.data.calibration_loader(images, seed=self.config.seed)

    def calibrated(self) -> fx.GraphModule:
        """The converted network with steps set from the calibration images."""
        example = torch.zeros(2, *self.data.image_shape)
        module = convert(self.network, example, self.config.quantisation)
        calibrate(module, self.calibration)
        return module

    @cached_property
    def quantised(self) -> fx.GraphModule:
        """The quantised network, fine-tuned if the configuration says so."""
        module = self.calibrated()
        if self.config.finetuning is not None:
            load_weights(module, self.path / "quantised" / "weights.safetensors")
        return module.eval()

    @cached_property
    def chip(self) -> CompiledChip:
        """The compiled chip, from disk, with the float network for the `float` rung."""
        chip = CompiledChip.load(self.path / CHIP)
        chip.module = self.network
        return chip

    # -- stages -----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Float training, or a look at the weights that are given."""
        config, data = self.config.training, self.data
        if config is None:
            with self.stage("weights", f"trained weights of {self.config.network.name}") as outcome:
                outcome.append(f"{parameters(self.network):,} parameters")
            return
        what = f"{self.config.network.name} on {data.name}: {config.epochs} epochs of {len(data.train.labels)} images"
        with self.stage("train", what) as outcome:
            result = self._fit(self.untrained, config, "float")
            outcome.append(f"{100 * result:.2f} % on the test images")

    @cached_property
    def weaving(self) -> Weaving:
        """The recipe at work."""
        config = self.config
        assert config.recipe is not None and config.finetuning is not None
        network = self.network if self.folder.done("train") or config.training is None else self.untrained
        return Weaving(
            config.recipe, network.eval(), self.data, self.hardware, config.quantisation, config.finetuning,
            self.calibration, self.path / "steps", config.machine, self.progress,
            activity_images(self.data, config.seed), config.evaluation.images.get("integer"),
        )  # fmt: skip

    def step(self, number: int) -> None:
        """A training step of the recipe, counted from 1."""
        step = self.weaving.recipe.training[number - 1]
        with self.stage(f"{number} {step.name}", sequence([step])[0].partition(": ")[2]) as outcome:
            self.weaving.train(number)
            found = self.weaving.candidate(number)
            outcome.append(f"{100 * found.accuracy:.2f} % on the integer rung, {found.crossbars:,} crossbars")

    def quantise(self) -> None:
        """Calibration and quantisation-aware fine-tuning."""
        config, bits = self.config.finetuning, self.config.quantisation
        what = f"{bits.weights.bits}-bit weights, {bits.activations.bits}-bit activations"
        epochs = f", {config.epochs} epochs of fine-tuning" if config else ", after training"
        with self.stage("quantise", what + epochs) as outcome:
            module = self.calibrated()
            if config is not None:
                result = self._fit(module, config, "quantised")
                outcome.append(f"{100 * result:.2f} % on the test images")
            self.__dict__["quantised"] = module.eval()

    def middle(self) -> list[tuple[str, Callable[[], None]]]:
        """The stages between float weights and compilation: quantisation, or the recipe's training steps."""
        if self.config.recipe is None:
            return [("quantise", self.quantise)]
        steps = self.config.recipe.training
        return [(f"{number} {s.name}", partial(self.step, number)) for number, s in enumerate(steps, 1)]

    def _fit(self, network: nn.Module, config: TrainingConfig, where: str) -> float:
        """Train into a folder below the run's, going on from a checkpoint that is there; accuracy at the end."""
        folder, machine = self.path / where, self.config.machine
        resume = checkpoint_path(folder).is_file()
        fitted = fit(network, self.data, placed(config, machine), folder, resume=resume, progress=self.progress.bars)
        return fitted.accuracy

    def compile(self) -> None:
        """Integer program, placed on arrays, written to the folder."""
        with self.stage("compile", f"for {self.hardware.name}") as outcome:
            if self.config.recipe is None:
                chip = compile(
                    self.quantised, self.hardware, self.calibration,
                    name=self.config.network.name, classes=self.data.classes,
                )  # fmt: skip
            else:
                chip = self.weaving.chip_made()
            chip.save(self.path / CHIP)
            outcome.append(f"{chip.crossbars:,} crossbars, {100 * chip.mapping.utilisation:.0f} % of cells used")

    def evaluate(self, rung: Rung) -> Outputs:
        """Outputs of a rung on the test images."""
        device = "cuda" if self.config.machine.device == "cuda" and rung != "float" else "cpu"
        return outputs(
            self.chip, rung, self.data, self.config.evaluation.images.get(rung),
            path=self.logits(rung), device=device, tick=self.progress.tick,
        )  # fmt: skip

    def logits(self, rung: Rung) -> Path:
        """Where a rung's outputs are kept."""
        return self.path / "logits" / f"{rung}.safetensors"

    def result(self, command: Sequence[str]) -> None:
        """Cost, and the record of the whole run."""
        from crossloom.cost import estimate, measure

        with self.stage("cost", "area, energy, latency") as outcome:
            activity = measure(self.chip.mapping, activity_images(self.data, self.config.seed))
            cost = estimate(self.chip.mapping, activity).to_dict()
            outcome.append(f"{1e6 * cost['area_m2']:.3g} mm², {1e6 * cost['energy_j']:.3g} µJ an image")
        found = {rung: self.evaluate(rung) for rung in self.rungs}
        spreads = {rung: self.spread(rung) for rung in self.chip_rungs}
        config, data, total = self.config, self.data, len(self.data.test.labels)
        tried = {rung: o.images for rung, o in found.items()} | {rung: s.images for rung, s in spreads.items()}
        few = [f"{rung} rung on the first {n} of {total} test images" for rung, n in tried.items() if n < total]
        Result(
            name=self.path.name,
            network=config.network.name,
            data=config.data.name,
            hardware=self.hardware.name,
            classes=list(data.classes),
            parameters=parameters(self.network),
            accuracy={rung: o.accuracy for rung, o in found.items()} | {r: s.mean for r, s in spreads.items()},
            images=dict(tried),
            agreement=agreements(found),
            chips=dict(spreads),
            noise=[self.noisy(sigma) for sigma in sorted(set(config.evaluation.noise))],
            **self.woven(),
            crossbars=self.chip.crossbars,
            area_m2=cost["area_m2"],
            energy_j=cost["energy_j"],
            latency_s=cost["latency_s"],
            layers=cost["layers"],
            cost=cost,
            run_dir=str(self.path),
            config=config.plain(),
            config_hash=config.hash,
            hardware_hash=self.hardware.hash,
            chip_hash=self.chip.hash,
            data_fingerprint=data.fingerprint(),
            seed=config.seed,
            versions=versions(),
            environment=environment(config.machine),
            command=list(command),
            timings=dict(self.folder.stages),
            notes=[*data.notes, *few],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ).save(self.path)

    def woven(self) -> dict[str, Any]:
        """What a recipe came to, as fields of `Result`; nothing without one."""
        if self.config.recipe is None:
            return {}
        weaving, numbers = self.weaving, range(len(self.config.recipe.steps) + 1)
        return {
            "recipe": self.config.recipe.plain(), "steps": weaving.records(),
            "candidates": [weaving.candidate(number) for number in numbers],
        }  # fmt: skip

    def spread(self, rung: Rung) -> Spread:
        """Accuracy over chips on a rung where each has its own cells; kept."""
        return Spread(**self._over_chips(rung, rung, self.chip))

    def noisy(self, sigma: float) -> NoisePoint:
        """Accuracy over chips at a strength of programming variation; kept."""
        chip = self.chip.mapping.chip
        changes = {"device.variation": {"model": "lognormal", "sigma": sigma} if sigma else {"model": "none"}}
        copies = {name: layer.copies for name, layer in self.chip.mapping.layers.items()}
        made = CompiledChip(map_program(self.chip.program, chip.override(changes), copies), None, self.chip.converters)
        return NoisePoint(sigma=sigma, **self._over_chips(f"noise-{sigma:g}", "analog", made))

    def _over_chips(self, name: str, rung: Rung, chip: CompiledChip) -> dict[str, Any]:
        evaluation = self.config.evaluation
        total = min(evaluation.images.get(rung, len(self.data.test.labels)), len(self.data.test.labels))

        def make() -> dict[str, Any]:
            found = chip.accuracy(
                self.data.test_loader(), rung, total, "cuda" if self.config.machine.device == "cuda" else "cpu",
                chips=evaluation.chips, seed=self.config.seed,
                tick=lambda done: self.progress.tick(done, total * evaluation.chips),
            )  # fmt: skip
            return {"mean": found.value, "std": found.spread, "values": list(found.chips), "images": found.images}

        kept = Kept(self.path / "chips", self.progress)
        return dict(kept.part(name, f"{evaluation.chips} chips, {total} images each", make))

    @property
    def rungs(self) -> list[Rung]:
        """The rungs to run on which all chips compute the same, in the ladder's order."""
        return [rung for rung in RUNGS if rung in self.config.evaluation.rungs]

    @property
    def chip_rungs(self) -> list[Rung]:
        """The rungs to run on which each chip has its own cells, in the ladder's order."""
        return [rung for rung in CHIP_RUNGS if rung in self.config.evaluation.rungs]


def agreements(found: dict[Rung, Outputs]) -> dict[str, Agreement]:
    """Agreement of every two neighbouring rungs."""
    return {f"{a}={b}": agreement(found[a], found[b]) for a, b in pairwise(found)}


def activity_images(data: DataSet, seed: int) -> Tensor:
    """Training images from which the cost model takes the statistics of inputs."""
    loader = data.calibration_loader(min(ACTIVITY_IMAGES, len(data.train.labels)), seed=seed)
    return torch.cat([images for images, _ in loader])


def parameters(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
