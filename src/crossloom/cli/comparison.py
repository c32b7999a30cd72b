"""A comparison of runs as people read it: a table for each network and data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group as Parts
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from crossloom.report.compare import Group, Line
from crossloom.report.units import count, percent, points, quantity, ratio


def tables(groups: Sequence[Group], html: Path | None) -> RenderableType:
    """Every group, and where the page was written."""
    parts = [part for group in groups for part in shown(group)]
    return Parts(*parts, *([Text(f"written to {html}")] if html is not None else []))


def shown(group: Group) -> Sequence[RenderableType]:
    """One group as a table, with what must be said of it below."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", padding=(0, 1), show_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("recipe\nchip", overflow="fold")
    for heading in ("accuracy\n± chips", "from float\nfrom dense", "crossbars", "area", "energy", "latency"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in group.lines:
        table.add_row(*row(line), style="dim" if line.dominated_by else "")
    title = Text.assemble("\n", (group.network, "bold"), " on ", (group.data, "bold"), f", {group.rung} rung\n")
    best = "★ best of its column; " if any(line.best for line in group.lines) else ""
    notes = [f"{best}ratios are against {group.baseline}"]
    beaten = [(line.name, ", ".join(line.dominated_by)) for line in group.lines if line.dominated_by]
    notes += [f"† {name} is dominated by {by}" for name, by in beaten]
    return [title, table, *(Text(f"  {note}", style="dim") for note in (*notes, *group.remarks)), Text()]


def row(line: Line) -> list[str]:
    """A run's cells, in markup."""

    def best(column: str, text: str) -> str:
        return f"[bold green]★ {text}[/]" if column in line.best else text

    accuracy = best("accuracy", f"{percent(line.point.accuracy.value)} %")
    if line.point.spread is not None:
        accuracy += f"\n[dim]± {percent(line.point.spread.value)} %[/]"
    differences = [points(d) if d is not None else "" for d in (line.from_float, line.from_dense)]
    name = f"[bold]{escape(line.name)}[/]{' †' if line.dominated_by else ''}"
    cells = [name, f"{escape(line.recipe)}\n[dim]{escape(line.chip)}[/]", accuracy, "\n".join(differences)]
    for cost, unit in (("crossbars", ""), ("area", "m^2"), ("energy", "J"), ("latency", "s")):
        value = line.point.costs[cost].value
        said = " ".join(quantity(value, unit)) if unit else count(value)
        times = ratio(line.ratios[cost], 1.0) if cost in line.ratios else ""
        cells.append(f"{best(cost, said)}\n[dim]{times}[/]")
    return cells
