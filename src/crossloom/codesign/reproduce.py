"""Reproductions of papers' tables: what there is, and how one is asked for.

A package adds one by an entry point in the group `crossloom.reproductions` whose object is a `Reproduction`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from crossloom.codesign.config import Machine
from crossloom.codesign.progress import Progress, Silent
from crossloom.codesign.results import ResultsFile
from crossloom.errors import InputError
from crossloom.training import PRETRAINED, Pretrained, TrainingConfig

GROUP = "crossloom.reproductions"
"""Entry point group of reproductions."""

WEIGHTS_VARIABLE = "CROSSLOOM_WEIGHTS"
"""Environment variable that names the folder of published weights."""


HEEDED = ("data", "epochs", "train_images", "precision", "points")
"""Choices of a request that only some reproductions have."""


@dataclass(frozen=True)
class Request:
    """What is to be reproduced, and where to compute it.

    Attributes:
        network: one of the reproduction's.
        weights: a file of trained weights; None: the published ones in CROSSLOOM_WEIGHTS.
        limit: test images on the crossbar rung; None: all.
        data: what a reproduction that trains is trained on; None: the paper's.
        epochs: of a reproduction's float training; None: the recipe's.
        train_images: used in training; None: all.
        precision: arithmetic of training in place of the recipe's: `32` or `bf16-mixed`.
        points: how many of the paper's points, the mildest first; None: all.
        machine: device, threads, data folder.
        runs: where the runs' folders go.
        fresh: start over in place of going on with a run's folder.
        progress: who watches.
    """

    network: str
    weights: Path | None = None
    limit: int | None = None
    data: str | None = None
    epochs: int | None = None
    train_images: int | None = None
    precision: Literal["32", "bf16-mixed"] | None = None
    points: int | None = None
    machine: Machine = field(default_factory=Machine)
    runs: Path = Path("runs")
    fresh: bool = False
    progress: Progress = field(default_factory=Silent)

    def command(self, paper: str) -> str:
        """The command line, without what only says where files lie; of a weights file its name."""
        words = ["crossloom", "reproduce", paper, "--network", self.network]
        words += [] if self.weights is None else ["--weights", self.weights.name]
        for option in (*HEEDED, "limit"):
            given = getattr(self, option)
            words += [f"--{option.replace('_', '-')}", str(given)] if given is not None else []
        return shlex.join(words)

    def training(self, training: TrainingConfig) -> TrainingConfig:
        """A training in the precision that was asked for."""
        return training if self.precision is None else training.updated(precision=self.precision)


@dataclass(frozen=True)
class Reproduction:
    """A paper's tables that can be made here.

    Attributes:
        paper: short name.
        title: of the paper, with authors, venue and year.
        networks: what `make` takes.
        rows: one line on what rows there are.
        make: does it.
        data: what it trains on; None: the network's usual data set.
        options: which of `HEEDED` it heeds; another one is refused.
    """

    paper: str
    title: str
    networks: tuple[str, ...]
    rows: str
    make: Callable[[Request], ResultsFile]
    data: str | None = None
    options: tuple[str, ...] = ()


def reproductions() -> dict[str, Reproduction]:
    """All reproductions by paper, ours and those of installed packages."""
    from crossloom.codesign import aat, admm, crimp, irr, together

    ours = (crimp.CRIMP, irr.IRR, aat.AAT, admm.ADMM, together.TOGETHER)
    found = {made.paper: made for made in ours}
    for point in entry_points(group=GROUP):
        if point.name not in found:
            found[point.name] = point.load()
    return found


def reproduce(paper: str, request: Request) -> ResultsFile:
    """Make the rows of a paper for one network.

    Raises:
        InputError: no such reproduction or network (the message says what there is), or what it needs is missing.
    """
    known = reproductions()
    if paper not in known:
        there = "; ".join(f"{name}: {', '.join(r.networks)}" for name, r in known.items())
        raise InputError("paper", paper, f"a reproduction that exists ({there})")
    if request.network not in known[paper].networks:
        raise InputError.choice("network", request.network, known[paper].networks)
    for option in HEEDED:
        given = getattr(request, option)
        if given is not None and option not in known[paper].options:
            raise InputError(f"--{option.replace('_', '-')}", given, f"no such choice with {paper}: its rows fix it")
    return known[paper].make(request)


def published_weights(request: Request) -> tuple[Path, Pretrained]:
    """The weights file to start from, and what is known of the published one.

    Raises:
        InputError: no published weights for the network, or no file.
    """
    known = next((p for p in PRETRAINED if p.network == request.network), None)
    if known is None:
        raise InputError.choice("network", request.network, [p.network for p in PRETRAINED])
    if request.weights is not None:
        return request.weights, known
    folder = os.environ.get(WEIGHTS_VARIABLE)
    if folder is None:
        raise InputError("weights", None, f"--weights {known.file} (from {known.source}), or {WEIGHTS_VARIABLE}")
    path = Path(folder) / known.file
    if not path.is_file():
        raise InputError("weights", str(path), f"the file {known.file} from {known.source}")
    return path, known
