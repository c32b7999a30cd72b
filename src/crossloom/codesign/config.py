"""The configuration of a run: one object from which accuracy and cost both come; its hash stands in every output.

`configure` fills every default in, so that a `RunConfig` says in full what will be done. It is written to
`config.yaml` in the run folder and read back without loss.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crossloom.codesign.recipe import Recipe
from crossloom.compiled import CHIP_RUNGS, RUNGS, Rung
from crossloom.errors import InputError
from crossloom.frontend import QuantisationConfig
from crossloom.hardware import Chip, load
from crossloom.hardware.files import parse
from crossloom.training import TrainingConfig

VERSION = 1
"""Version of the configuration's format; raised when an older reader would misread one."""

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
    """Float training, from the network's trained weights if it has some; none: they are taken as they are."""

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
        else:
            for step in content["recipe"]["steps"]:
                if "map" not in step and not step["optional"]:
                    del step["optional"]
        if not set(CHIP_RUNGS) & {*self.evaluation.rungs}:
            del content["evaluation"]["chips"]
        if not self.evaluation.noise:
            del content["evaluation"]["noise"]
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
