"""`result.json`: what a run came to, in one documented record.

The file is UTF-8 JSON, one object, written atomically when a run is complete. All quantities are in SI units;
accuracies are fractions of 1. `version` is raised with every change that an older reader would misread.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crossloom.codesign.config import explained
from crossloom.errors import InputError
from crossloom.weave.store import write_text

VERSION = 1
"""Of the format of `result.json`."""

RESULT = "result.json"
"""Its name in a run's folder."""


class Agreement(BaseModel):
    """How far two rungs agree on the same test images."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    images: int
    """Images that both rungs ran on."""

    equal: bool
    """Whether every logit of every image is the same number."""

    largest_difference: float
    """Largest absolute difference of two logits."""

    same_class: float
    """Fraction of images that both rungs give the same class."""


class Spread(BaseModel):
    """Accuracy on a rung on which each chip has its own cells: many chips of one design."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    mean: float
    """Mean over the chips; what `Result.accuracy` has for the rung."""

    std: float
    """Unbiased standard deviation from chip to chip."""

    values: list[float]
    """Accuracy of every chip."""

    images: int
    """Test images per chip."""


class NoisePoint(Spread):
    """Accuracy at one strength of programming variation, all else as the chip says."""

    sigma: float
    """`device.variation.sigma`."""


class Candidate(BaseModel):
    """The network as it stood at one point of the run, on the same chip: a point of the run's Pareto front."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    """`dense` for the network that nothing was done to but quantisation, else the step that it comes out of."""

    accuracy: float
    """Fraction of the test images that get the right class on the integer rung."""

    images: int
    """Test images."""

    crossbars: int
    """Arrays allocated."""

    area_m2: float
    """Area of the chip."""

    energy_j: float
    """Energy of one inference."""

    latency_s: float
    """Time of one inference."""


class StepRecord(BaseModel):
    """What one step of the recipe came to."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    """Of the step."""

    kind: Literal["training", "mapping"]
    """Whether it trains the network or rewrites the integer program."""

    epochs: int = 0
    """Epochs of training."""

    figures: dict[str, Any] = Field(default_factory=dict)
    """What its methods said at their end, by method; plain JSON values."""


class Result(BaseModel):
    """The whole record of a run."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    version: Literal[1] = 1
    """Of this format."""

    name: str
    """Of the run: its folder's name."""

    network: str
    """Name of the network."""

    data: str
    """Name of the data set."""

    hardware: str
    """Name of the chip."""

    classes: list[str]
    """Class names in label order."""

    parameters: int
    """Trainable numbers of the float network."""

    accuracy: dict[str, float]
    """Fraction of test images that got the right class, by rung; the mean over the chips where chips differ."""

    images: dict[str, int]
    """Test images that each rung ran on (a lower number than the test set's is a subset: its first images)."""

    agreement: dict[str, Agreement]
    """Agreement of two rungs, by `<lower>=<upper>`, such as `integer=crossbar`."""

    chips: dict[str, Spread] = Field(default_factory=dict)
    """Accuracy from chip to chip on the rungs where chips differ: analog, parasitic."""

    noise: list[NoisePoint] = Field(default_factory=list)
    """Accuracy on the analog rung against the strength of programming variation, weakest first."""

    recipe: dict[str, Any] | None = None
    """The recipe as it was run, none where there was none."""

    steps: list[StepRecord] = Field(default_factory=list)
    """What the recipe's steps came to, in their order."""

    candidates: list[Candidate] = Field(default_factory=list)
    """The dense network and what each step of the recipe left, all on this chip; the last one is the result."""

    crossbars: int
    """Arrays allocated."""

    area_m2: float
    """Area of the chip."""

    energy_j: float
    """Energy of one inference."""

    latency_s: float
    """Time of one inference from input to answer."""

    layers: list[dict[str, Any]]
    """One record per node of the program, as in `cost.layers` (see `crossloom.cost.LayerCost`); matrix layers have
    `kind` woven."""

    cost: dict[str, Any]
    """The whole cost report (`CostReport.to_dict()`)."""

    run_dir: str
    """The run's folder as it was named when the run was made."""

    config: dict[str, Any]
    """The run's configuration, see `config.yaml`."""

    config_hash: str
    """SHA-256 of the configuration."""

    hardware_hash: str
    """SHA-256 of the chip's figures."""

    chip_hash: str
    """SHA-256 of the compiled chip: program, chip and duplication."""

    data_fingerprint: str
    """Sixteen hexadecimal digits of the images, labels and normalisation."""

    seed: int
    """Of everything random."""

    versions: dict[str, str]
    """Of crossloom, torch, numpy and python."""

    environment: dict[str, Any]
    """What the run was made on: processor, cores, threads, device."""

    command: list[str]
    """The command line that finished the run."""

    timings: dict[str, float]
    """Seconds of wall-clock time by stage; a stage that was interrupted counts its last attempt."""

    notes: list[str] = Field(default_factory=list)
    """Remarks: on what was found on disk, on random weights, on subsets."""

    created: str
    """When the run was finished, ISO 8601 in UTC."""

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `result.json` into a folder, atomically."""
        path = Path(folder) / RESULT
        write_text(path, self.model_dump_json(indent=2) + "\n")
        return path

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Result:
        """The record of a run's folder.

        Raises:
            InputError: there is none (the run is not complete), or it is damaged or of another version.
        """
        path = Path(folder) / RESULT
        try:
            return Result.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError("run", str(folder), f"the folder of a complete run; it has no {RESULT}") from error
        except ValidationError as error:
            found = explained(error, Result)
            raise InputError(f"{path}: {found.field}", found.value, found.expected, found.nearest) from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("run", str(path), f"a readable file ({error})") from error


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("crossloom", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
