"""The configuration of a run: one object from which accuracy and cost both come; its hash stands in every output.

`configure` fills every default in, so that a `RunConfig` says in full what will be done. It is written to
`config.yaml` in the run folder and read back without loss.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crossloom.codesign.plugins import data_names, default_data
from crossloom.codesign.recipe import Recipe
from crossloom.compiled import RUNGS, Rung, quantisation_for
from crossloom.errors import InputError
from crossloom.frontend import QuantisationConfig
from crossloom.hardware import Chip, load
from crossloom.hardware.files import parse
from crossloom.training import DATASET_RECIPES, NORMALISATIONS, PRETRAINED, TrainingConfig, recipe
from crossloom.training.networks import find

VERSION = 1
"""Version of the configuration's format; raised when an older reader would misread one."""

DEFAULT_HARDWARE = "crimp-isaac"
"""The chip that is taken where none is named."""

FINE_TUNING_SHARE = 0.25
"""Epochs of quantisation-aware fine-tuning after training from scratch, as a share of the float epochs."""

FINE_TUNING_RATE = 0.1
"""Peak learning rate of fine-tuning, as a share of the float training's."""

MACHINE_FIELDS = {"accelerator", "threads", "validate_every", "checkpoint_every"}
"""Fields of `TrainingConfig` that say how to compute, not what; no part of the hash."""


class Section(BaseModel):
    """Base of all sections: immutable, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class WeightsFile(Section):
    """Trained weights to start from."""

    path: str
    """Where the file is; no part of the hash."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the file's bytes; a run refuses another file."""


class NetworkChoice(Section):
    """The network."""

    name: str
    """One of `crossloom networks`, `torchvision:<name>` or `timm:<name>`."""

    weights: WeightsFile | None = None
    """Trained weights; none: the run trains from random weights."""


class DataChoice(Section):
    """The labelled images."""

    name: str
    """One of `crossloom.training.dataset_names()` or of an installed package's."""

    normalisation: str | None = None
    """One of `crossloom.training.NORMALISATIONS`; none: the data set's own."""

    train_images: int | None = Field(default=None, ge=1)
    """Training images used, drawn with the run's seed; none: all. Typical: none, or 1000 for a trial."""

    calibration_images: int = Field(default=512, ge=1)
    """Training images that activation ranges and cost statistics are taken from, at most `train_images`."""


class HardwareChoice(Section):
    """The chip."""

    name: str
    """A preset or the path of a hardware file; no part of the hash, which the figures' own hash stands for."""

    overrides: tuple[str, ...] = ()
    """Fields changed, `path=value`, applied in order; no part of the hash for the same reason."""

    hash: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of all the chip's figures (`Chip.hash`); a run refuses another chip."""


class Evaluation(Section):
    """What is measured."""

    rungs: tuple[Rung, ...] = RUNGS
    """Rungs of the fidelity ladder, any of float, integer, crossbar, analog, parasitic."""

    chips: int = Field(default=20, ge=1)
    """Chips drawn on the rungs where each chip has its own cells (analog, parasitic)."""

    noise: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Strengths of programming variation (`device.variation.sigma`, log-normal) at which the analog rung is run too."""

    images: dict[Rung, int] = Field(default_factory=dict)
    """Test images per rung, the first ones in the test set's own order; a rung not named runs on all."""

    @model_validator(mode="after")
    def _positive(self) -> Evaluation:
        for rung, count in self.images.items():
            if count < 1:
                raise ValueError(f"images.{rung} must be at least 1, not {count}")
        if len(set(self.rungs)) != len(self.rungs):
            raise ValueError("a rung is named twice")
        return self


class Machine(Section):
    """Where to compute. No part of the hash."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` trains on a GPU if there is one; the rungs run on the CPU unless this is `cuda`."""

    threads: int | None = Field(default=None, ge=1)
    """CPU threads; none: training as its recipe says, the rest on all cores."""

    data_dir: str | None = None
    """Folder of the data sets; none: CROSSLOOM_DATA, else ./data."""

    download: bool = True
    """Whether missing data may be fetched."""


class RunConfig(Section):
    """Everything that decides a run's numbers, and where it is computed."""

    version: Literal[1] = 1
    """Of this format."""

    network: NetworkChoice
    """The network."""

    data: DataChoice
    """The images."""

    hardware: HardwareChoice
    """The chip."""

    quantisation: QuantisationConfig
    """Bits, ranges and scales of weights and activations."""

    training: TrainingConfig | None
    """Float training; none with trained weights."""

    finetuning: TrainingConfig | None
    """Quantisation-aware training after calibration; none: post-training quantisation. With a recipe: the reference
    training that its steps' schedules start from."""

    recipe: Recipe | None = None
    """What is done to the network in place of plain fine-tuning."""

    seed: int = Field(default=0, ge=0)
    """Of initial weights, image order, augmentation and calibration images: a run has one seed."""

    evaluation: Evaluation = Evaluation()
    """What is measured."""

    machine: Machine = Machine()
    """Where it is computed."""

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.training is None and self.network.weights is None:
            raise ValueError("network.weights: a run without training needs trained weights")
        if self.training is not None and self.network.weights is not None:
            raise ValueError("training: must be null where network.weights names trained weights")
        if self.recipe is not None and self.finetuning is None:
            raise ValueError("finetuning: a recipe needs the training that its steps start from")
        for name, phase in (("training", self.training), ("finetuning", self.finetuning)):
            if phase is not None and phase.seed != self.seed:
                raise ValueError(f"{name}.seed: must be seed = {self.seed}, not {phase.seed}: a run has one seed")
        return self

    @property
    def hash(self) -> str:
        """SHA-256, hex, of everything that decides the numbers, in canonical order.

        Paths and the machine are left out; the hashes of the files' contents stand for them.
        """
        content = self.model_dump(mode="json", exclude={"machine": True, "hardware": {"name", "overrides"}})
        if content["network"]["weights"] is not None:
            del content["network"]["weights"]["path"]
        if content["recipe"] is None:  # what came later leaves older hashes as they were
            del content["recipe"]
        for name in ("chips", "noise"):
            if name not in self.evaluation.model_fields_set or not {"analog", "parasitic"} & {*self.evaluation.rungs}:
                del content["evaluation"][name]
        for phase in ("training", "finetuning"):
            if content[phase] is not None:
                content[phase] = {k: v for k, v in content[phase].items() if k not in MACHINE_FIELDS}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def default_name(self) -> str:
        """A name for the run's folder: network, data, chip and eight digits of the hash."""
        plain = f"{self.network.name}-{self.data.name}-{Path(self.hardware.name).stem}"
        plain += f"-{self.recipe.name}" if self.recipe else ""
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', plain)}-{self.hash[:8]}"

    def chip(self) -> Chip:
        """The chip.

        Raises:
            InputError: the hardware file is gone, or its figures are no longer those of `hardware.hash`.
        """
        chip = load(self.hardware.name, self.hardware.overrides)
        if chip.hash != self.hardware.hash:
            expected = f"{chip.hash[:12]}…, the hash of {self.hardware.name} as it is now"
            raise InputError("hardware.hash", self.hardware.hash[:12], expected)
        return chip

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """As YAML; `from_yaml` gives back an equal configuration."""
        text = yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True, width=120)
        return f"# A Crossloom run. Hash: {self.hash}\n{text}"

    @staticmethod
    def from_yaml(text: str, where: str = "config") -> RunConfig:
        """The configuration that YAML (or JSON) text describes.

        Raises:
            InputError: malformed text, an unknown field (the nearest is suggested) or a value that does not fit.
        """
        return RunConfig.from_plain(parse(text, where))

    @staticmethod
    def from_plain(content: Mapping[str, Any]) -> RunConfig:
        """The configuration that JSON values describe; errors as in `from_yaml`."""
        version = content.get("version", VERSION)
        if version != VERSION:
            raise InputError("version", version, f"{VERSION}, the version this release reads")
        try:
            return RunConfig.model_validate(dict(content))
        except ValidationError as error:
            raise explained(error, RunConfig) from error

    @staticmethod
    def load(path: str | os.PathLike[str]) -> RunConfig:
        """A configuration file.

        Raises:
            InputError: it cannot be read; else as in `from_yaml`.
        """
        try:
            return RunConfig.from_yaml(Path(path).read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("config", str(path), f"a readable YAML file ({error})") from error


def explained(error: ValidationError, model: type[BaseModel]) -> InputError:
    """The first of pydantic's complaints as an `InputError`: dotted field, value, expectation, nearest field."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    where = ".".join(place) or model.__name__
    if first["type"] == "extra_forbidden":
        record: Any = model
        for part in place[:-1]:
            annotation = record.model_fields[part].annotation
            parts = [annotation, *getattr(annotation, "__args__", ())]
            record = next((a for a in parts if isinstance(a, type) and issubclass(a, BaseModel)), None)
            if record is None:
                return InputError(where, first["input"], "no such field")
        return InputError.choice(where, place[-1], record.model_fields)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    given = "absent" if first["type"] == "missing" else first["input"]
    if isinstance(given, (dict, BaseModel)):
        field, colon, reason = message.partition(": ")
        where, given, message = (field, "see there", reason) if colon else (where, "see there", message)
    return InputError(where, given, message)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256, hex, of a file's bytes.

    Raises:
        InputError: no such file, or it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError("weights", str(path), f"an existing, readable file ({error.strerror})") from error


def _recipe(network: str, data: str) -> TrainingConfig:
    """The reference recipe; the plain defaults for a data set of another package."""
    return recipe(network, data) if data in DATASET_RECIPES else TrainingConfig()


def fine_tuning_after(training: TrainingConfig) -> TrainingConfig:
    """Quantisation-aware fine-tuning that goes with a float training: shorter, gentler, without warm-up."""
    epochs = max(1, math.ceil(FINE_TUNING_SHARE * training.epochs))
    return training.updated(epochs=epochs, lr=training.lr * FINE_TUNING_RATE, warmup=0.0)


def configure(
    network: str = "lenet5",
    data: str | None = None,
    hardware: str | os.PathLike[str] | None = None,
    *,
    overrides: Iterable[str] = (),
    weights: str | os.PathLike[str] | None = None,
    normalisation: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    finetune_epochs: int | None = None,
    train_images: int | None = None,
    rungs: Iterable[Rung] = RUNGS,
    images: Mapping[Rung, int] | None = None,
    chips: int | None = None,
    noise: Iterable[float] = (),
    quantisation: QuantisationConfig | None = None,
    training: TrainingConfig | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    machine: Machine | None = None,
) -> RunConfig:
    """A full configuration from few choices: the rest comes from the network's recipe and from what the chip asks for.

    Args:
        network: name of the network.
        data: name of the data set; default the network's usual one.
        hardware: preset or hardware file; default the recipe's, else `DEFAULT_HARDWARE`.
        overrides: hardware fields to change, `array.b_adc=6`.
        weights: trained weights; there is no float training then.
        normalisation: of the input; default that of the weights if they are known ones, else the data set's own.
        seed: of everything random.
        epochs: of float training, in place of the recipe's.
        finetune_epochs: of quantisation-aware fine-tuning, 0 for none; default a quarter of the float epochs, and
            none with trained weights. With a recipe: of all its steps together; default as it says.
        train_images: training images used; default all.
        rungs: to measure.
        images: test images per rung; default all.
        chips: how many, on the rungs where each has its own cells; given, the analog rung is among the rungs.
        noise: strengths of programming variation to measure the analog rung at.
        quantisation: in place of what the chip asks for.
        training: in place of the network's reference recipe.
        recipe: what to do to the network: a ready one's name, a YAML file, or a `Recipe`.
        machine: where to compute.

    Raises:
        InputError: an unknown name, a missing file, a value out of range.
    """
    find(network)
    data = data or default_data(network)
    if data not in data_names():
        raise InputError.choice("data", data, data_names())
    if normalisation is not None and normalisation not in NORMALISATIONS:
        raise InputError.choice("normalisation", normalisation, NORMALISATIONS)
    if recipe is not None and not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    if hardware is None:
        hardware = (recipe.hardware if recipe else None) or DEFAULT_HARDWARE
    overrides = (*(recipe.set if recipe else ()), *overrides)
    chip = load(hardware, overrides)
    rungs, noise = tuple(rungs), tuple(noise)
    if (chips is not None or noise) and "analog" not in rungs:
        rungs = (*rungs, "analog")
    measured: dict[str, Any] = {"chips": chips} if chips is not None else {}
    measured |= {"noise": noise} if noise else {}
    base = (training or _recipe(network, data)).updated(seed=seed)
    if epochs is not None:
        base = base.updated(epochs=epochs)
    file = None
    finetuning = fine_tuning_after(base)
    if weights is not None:
        file = WeightsFile(path=str(weights), sha256=file_sha256(weights))
        known = next((p for p in PRETRAINED if p.file == Path(weights).name and p.network == network), None)
        normalisation = normalisation or (known.normalisation if known else None)
    if finetune_epochs is not None and finetune_epochs < 0:
        raise InputError("finetune_epochs", finetune_epochs, "0 or more")
    if recipe is not None:
        recipe = recipe if finetune_epochs is None else recipe.within(finetune_epochs)
        finetuning, finetune_epochs = base, base.epochs
    wanted = finetune_epochs if finetune_epochs is not None else 0 if file else finetuning.epochs
    return RunConfig.from_plain(
        {
            "network": NetworkChoice(name=network, weights=file),
            "data": {"name": data, "normalisation": normalisation, "train_images": train_images},
            "hardware": HardwareChoice(name=os.fspath(hardware), overrides=tuple(overrides), hash=chip.hash),
            "quantisation": quantisation or quantisation_for(chip),
            "training": None if file else base,
            "finetuning": finetuning.updated(epochs=wanted) if wanted else None,
            "seed": seed,
            "evaluation": {"rungs": rungs, "images": dict(images or {}), **measured},
            "recipe": None if recipe is None else recipe.plain(),
            "machine": machine or Machine(),
        }
    )
