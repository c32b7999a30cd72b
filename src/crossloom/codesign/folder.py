"""A run's folder: which configuration it belongs to, which stages are done, and who may write to it.

    runs/<name>/
      config.yaml             the configuration (`RunConfig`)
      hardware.yaml           the chip with all figures and sources
      state.json              version, config_hash, data (fingerprint), crossloom (release), started (false while the
                              folder is being emptied), stages (those done: seconds each)
      float/, quantised/      the two training phases: checkpoint, weights and metrics.csv, one line per epoch
      steps/                  those of a recipe in place of quantised/ (see `crossloom.codesign.recipe_run`)
      chips/                  accuracies on the rungs where each chip has its own cells
      logits/<rung>.safetensors   outputs of each rung on the test images
      chip.safetensors        the compiled chip
      result.json             the record of the complete run (`Result`)
      report.html             the same for people

Every file is written beside its place and renamed into it, so that at any time it is whole or absent. A lock keeps
two processes from working in one folder.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossloom import __version__
from crossloom.codesign.config import RunConfig
from crossloom.errors import InputError
from crossloom.hardware import Chip
from crossloom.weave.store import write_text

VERSION = 1
"""Of the format of `state.json`."""

CONFIG, HARDWARE, STATE, CHIP = "config.yaml", "hardware.yaml", "state.json", "chip.safetensors"
LOCK = ".lock"
OURS = {
    CONFIG, HARDWARE, STATE, CHIP, LOCK, "float", "quantised", "steps", "logits", "chips", "result.json", "report.html",
}  # fmt: skip
"""Everything a run puts into its folder; `fresh` removes these and nothing else."""


@dataclass
class RunFolder:
    """The folder of one run.

    Attributes:
        path: the folder.
        config: the run's configuration.
        stages: seconds that each finished stage took.
        data: fingerprint of the data set, once it was read.
    """

    path: Path
    config: RunConfig
    stages: dict[str, float] = field(default_factory=dict)
    data: str | None = None

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run already."""
        return (self.path / STATE).is_file()

    @property
    def complete(self) -> bool:
        """Whether every stage is done and the record is there."""
        return "result" in self.stages and (self.path / "result.json").is_file()

    def prepare(self, chip: Chip, fresh: bool) -> None:
        """Make the folder, or take up what is there.

        Raises:
            InputError: the folder belongs to a run with another configuration or another release, its state is
                damaged, or it holds something that is no run.
            OSError: it cannot be made or written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.begun:
            names = sorted(p.name for p in self.path.iterdir())
            if strange := [name for name in names if name != LOCK and not name.endswith(".part")]:
                raise InputError("run", str(self.path), f"a new folder, or that of a run; it holds {strange[0]!r}")
            self._start(chip)
        elif fresh or not self._take_up():
            self._start(chip)
        for leftover in self.path.rglob(".*.part"):  # of a process that was killed
            leftover.unlink(missing_ok=True)

    def _start(self, chip: Chip) -> None:
        """An empty run. A process that stops in here leaves a state that says so, and the next one starts again."""
        self.stages, self.data = {}, None
        self._write(started=False)
        for name in sorted(OURS - {STATE, LOCK}):
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        write_text(self.path / CONFIG, self.config.to_yaml())
        write_text(self.path / HARDWARE, chip.to_yaml())
        self._write()

    def _take_up(self) -> bool:
        """Read the state; False if the run was never started in full."""
        hint = "; --fresh starts over, --name takes another folder"
        try:
            state: dict[str, Any] = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            version, config_hash, release = state["version"], state["config_hash"], state["crossloom"]
            stages = {str(name): float(seconds) for name, seconds in state["stages"].items()}
            data, started = state["data"], bool(state["started"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError("run", str(self.path), f"a whole {STATE} ({error}){hint}") from error
        if version != VERSION or release != __version__:
            raise InputError("run", str(self.path), f"a run of crossloom {__version__}, not of {release}{hint}")
        if config_hash != self.config.hash:
            raise InputError("run", str(self.path), f"a run with this configuration ({self._difference()}){hint}")
        self.stages, self.data = stages, data
        return started

    def _difference(self) -> str:
        """The first fields in which the folder's configuration differs from this one."""
        try:
            there = flat(RunConfig.load(self.path / CONFIG).plain())
        except InputError:
            return "its own cannot be read"
        here = flat(self.config.plain())
        ignored = ("machine.", "hardware.name", "network.weights.path")
        changed = [k for k in {**there, **here} if there.get(k) != here.get(k) and not k.startswith(ignored)]
        named = [f"there {key} is {there.get(key)!r}, here {here.get(key)!r}" for key in changed[:3]]
        return "; ".join(named) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")

    def _write(self, started: bool = True) -> None:
        state = {
            "version": VERSION, "config_hash": self.config.hash, "data": self.data, "crossloom": __version__,
            "started": started, "stages": self.stages,
        }  # fmt: skip
        write_text(self.path / STATE, json.dumps(state, indent=2) + "\n")

    def holds(self, fingerprint: str) -> None:
        """Note the data set's fingerprint.

        Raises:
            InputError: the run was started on other data.
        """
        if self.data is not None and self.data != fingerprint:
            raise InputError(
                "data", fingerprint, f"the images that the run was started with ({self.data}); --fresh starts over"
            )
        if self.data is None:
            self.data = fingerprint
            self._write()

    def done(self, stage: str) -> bool:
        """Whether a stage is finished."""
        return stage in self.stages

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Mark a stage as done when the block ends well, with its time."""
        started = time.monotonic()
        yield
        self.stages[name] = round(time.monotonic() - started, 3)
        self._write()


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined with dots."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        here = f"{path}{key}"
        leaves |= flat(value, f"{here}.") if isinstance(value, dict) and value else {here: value}
    return leaves


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run's folder for this process; the lock goes with the process, however it ends.

    Raises:
        InputError: another process holds it.
        OSError: the folder cannot be made or written to.
    """
    path.mkdir(parents=True, exist_ok=True)
    with open(path / LOCK, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError("run", str(path), "a folder that no other process is working in") from error
        yield
