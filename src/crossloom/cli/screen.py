"""A run's progress on standard error."""

from __future__ import annotations

import sys
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Screen:
    """Lines for stages, a bar for what ticks; nothing at all if quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False)
        self.bars = not quiet and self.console.is_terminal
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, stage: str, what: str) -> None:
        """Say what begins."""
        self.stage = stage
        self.console.print(f"[bold cyan]{stage:>10}[/]  {escape(what)}")

    def tick(self, done: int, total: int) -> None:
        """Move the bar; a full one goes."""
        if not self.bars:
            return
        if self.bar is None:
            columns = (TextColumn(" " * 10), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.task = self.bar.add_task(self.stage, total=total)
            self.bar.start()
        self.bar.update(self.task, completed=done, total=total)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def end(self, stage: str, seconds: float, what: str) -> None:
        """Say what came of it."""
        self.close()
        self.console.print(f"{'':>10}  [green]{escape(what)}[/] [dim]{seconds:.1f} s[/]".replace("[green][/] ", ""))

    def note(self, text: str) -> None:
        """A remark."""
        self.console.print(f"[dim]{escape(text)}[/]")
