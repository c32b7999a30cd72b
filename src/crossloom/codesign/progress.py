"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Tick = Callable[[int, int], None]
"""(done, total): how far a long part has come."""


def untold(done: int, total: int) -> None:
    """A `Tick` for nobody."""


class Progress(Protocol):
    """Receives a run's progress. `Silent` ignores it; the command line shows it on standard error."""

    bars: bool
    """Whether training may show its own progress bar on standard error."""

    def begin(self, stage: str, what: str) -> None:
        """A stage begins: its name and what it will do."""

    def tick(self, done: int, total: int) -> None:
        """So much of the stage is done."""

    def end(self, stage: str, seconds: float, what: str) -> None:
        """A stage is done: its name, its time and what came of it."""

    def note(self, text: str) -> None:
        """A remark that belongs in the user's sight."""


class Silent:
    """Shows nothing."""

    bars = False

    def begin(self, stage: str, what: str) -> None:
        """Ignore."""

    def tick(self, done: int, total: int) -> None:
        """Ignore."""

    def end(self, stage: str, seconds: float, what: str) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""
