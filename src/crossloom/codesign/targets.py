"""Chips to look at: a run's, a chip file's, or a network's with random weights."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from crossloom.codesign.config import RunConfig
from crossloom.codesign.folder import CHIP, CONFIG, RunFolder
from crossloom.codesign.job import Job, activity_images
from crossloom.codesign.plugins import IMAGENET, USUAL_DATA, ImageShape, open_data
from crossloom.codesign.progress import Silent
from crossloom.compiled import CompiledChip, compile
from crossloom.errors import InputError
from crossloom.hardware import Chip, load
from crossloom.mapping import map_program
from crossloom.training import NETWORKS, SOURCES, DataSet, NetworkInfo, build_network, generator

if TYPE_CHECKING:
    from crossloom.cost import CostReport

CALIBRATION_IMAGES = 2
"""Random images that the activation steps of a network with random weights are set from."""

RUNS = Path("runs")
"""Where runs lie that are named without a path."""


@dataclass
class Target:
    """A compiled chip and what belongs to it.

    Attributes:
        chip: the compiled chip.
        job: the run that made it, or None for a bare chip file and for random weights.
        note: what must be said of the numbers, or empty.
    """

    chip: CompiledChip
    job: Job | None = None
    note: str = ""

    def data(self, name: str | None, data_dir: str | None, normalisation: str | None) -> DataSet:
        """The images to run on: those named, else the run's.

        Raises:
            InputError: a bare chip file and no data named; images of another shape than the chip's input.
        """
        if name is None:
            if self.job is None:
                raise InputError("data", None, "the name of a data set: a chip file does not know its images")
            if data_dir is not None:
                machine = self.job.config.machine.model_copy(update={"data_dir": data_dir})
                self.job.config = self.job.config.model_copy(update={"machine": machine})
            return self.job.data if normalisation is None else self.job.data.normalised(normalisation)
        data = open_data(name, data_dir)
        data = data if normalisation is None else data.normalised(normalisation)
        if data.image_shape != self.chip.program.input.shape:
            raise InputError("data", f"{name}: {data.image_shape}", f"images {self.chip.program.input.shape}")
        return data


def find(path: str | os.PathLike[str]) -> Path:
    """A target's path: as given, else below `runs`.

    Raises:
        InputError: nothing there; the nearest run is suggested.
    """
    given = Path(path)
    if given.exists():
        return given
    if len(given.parts) == 1 and (RUNS / given).exists():
        return RUNS / given
    runs = [folder.name for folder in RUNS.iterdir() if folder.is_dir()] if RUNS.is_dir() else []
    close = InputError.choice("target", str(path), runs).nearest
    raise InputError("target", str(path), "a run's folder, a run's name below runs/, or a chip file", close)


def open_target(path: str | os.PathLike[str]) -> Target:
    """The compiled chip of a run's folder, or of a chip file.

    Raises:
        InputError: nothing there, a run that is not compiled yet, or a file that is damaged.
    """
    found = find(path)
    if found.is_dir():
        if not (found / CONFIG).is_file() or not (found / CHIP).is_file():
            missing = CHIP if (found / CONFIG).is_file() else CONFIG
            raise InputError("target", str(path), f"the folder of a run that is compiled; it has no {missing}")
        config = RunConfig.load(found / CONFIG)
        chip = CompiledChip.load(found / CHIP)
        job = Job(config, chip.hardware, RunFolder(found, config, stages={"compile": 0.0}, data=None), Silent())
        return Target(chip, job)
    return Target(CompiledChip.load(found))


def on_hardware(chip: CompiledChip, hardware: str | None, overrides: Iterable[str]) -> CompiledChip:
    """The same integer program on another chip, or on the same with some fields changed.

    Converter ranges fitted to data are kept where the array is the same; they belong to it.

    Raises:
        InputError: the chip cannot hold the program.
    """
    other: Chip = load(hardware, overrides) if hardware else chip.hardware.override(overrides)
    copies = {name: layer.copies for name, layer in chip.mapping.layers.items()}
    converters = chip.converters if other.array == chip.hardware.array else None
    return CompiledChip(map_program(chip.program, other, copies), chip.module, converters)


def random_chip(
    network: str,
    hardware: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    seed: int = 0,
) -> Target:
    """A network with its random initial weights, compiled: for structure, area, time and typical energy.

    Args:
        network: name of the network.
        hardware: preset or hardware file.
        overrides: hardware fields to change.
        data: whose classes and image shape to take; default the network's usual ones (ImageNet's where it has none).
            No image is read: activation steps are set from random numbers.
        seed: of weights and images.

    Raises:
        InputError: an unknown name, or images that the network cannot take.
    """
    if data is not None and data not in SOURCES:
        raise InputError.choice("data", data, SOURCES)
    source = data or USUAL_DATA.get(network)
    classes, shape = (len(SOURCES[source].classes), SOURCES[source].shape) if source else IMAGENET
    model = build_network(network, classes, shape, seed).eval()
    chip = compile(model, load(hardware, overrides), random_images(shape, seed), name=network)
    return Target(chip, note=f"random weights (seed {seed}) calibrated on random images {shape}: no trained network")


def random_images(shape: ImageShape, seed: int) -> Tensor:
    """A few images of normal random numbers."""
    return torch.randn(CALIBRATION_IMAGES, *shape, generator=generator(seed, "random images"))


def cost_of(target: Target, *, zero_skipping: bool = False, area: float | None = None) -> CostReport:
    """Area, energy and latency; with the statistics of the run's calibration images where there is a run.

    Args:
        target: a compiled chip.
        zero_skipping: leave out reads in which no row has anything to drive.
        area: in m²; slow layers are copied as far as it allows.

    Raises:
        InputError: zero-skipping without a run, whose images would say what is zero; an area too small.
    """
    from crossloom.cost import duplication_for_area, estimate, measure

    mapping = target.chip.mapping
    if area is not None:
        copies = duplication_for_area(mapping.program, mapping.chip, area)
        mapping = map_program(mapping.program, mapping.chip, copies)
    if target.job is None:
        if zero_skipping:
            raise InputError("--zero-skipping", True, "a run, whose images say which digits are zero")
        return estimate(mapping)
    images = activity_images(target.job.data, target.job.config.seed)
    return estimate(mapping, measure(mapping, images), zero_skipping=zero_skipping)


def catalogue_entry(info: NetworkInfo) -> dict[str, Any]:
    """A network's line in `crossloom networks`: name, summary, origin, usual data, image shape, classes, parameters.

    Parameters are counted without making any numbers; another package's network is not built, and has none here.
    """
    source = USUAL_DATA.get(info.name)
    own = info.name in NETWORKS
    classes, shape = (len(SOURCES[source].classes), SOURCES[source].shape) if source else IMAGENET
    count = None
    if own:
        with torch.device("meta"):
            count = sum(p.numel() for p in build_network(info.name, classes, shape).parameters())
    return {
        "name": info.name, "summary": info.summary, "origin": info.origin, "data": source,
        "image_shape": list(shape) if own else None, "classes": classes if own else None, "parameters": count,
    }  # fmt: skip
