"""`compare`: finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Group as Parts
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from crossloom.cli import options as o
from crossloom.cli.output import Output
from crossloom.report.units import count, percent, points, quantity, ratio

if TYPE_CHECKING:
    from crossloom.report.compare import Group, Line


def _runs() -> list[str]:
    """Names of the finished runs below runs/."""
    return sorted(result.parent.name for result in Path("runs").glob("*/result.json"))


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN…", autocompletion=o.complete(_runs), help="Runs' folders, or their names below runs/."
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", "-b", metavar="RUN", autocompletion=o.complete(_runs), rich_help_panel=o.SHOW_PANEL,
            help="The run that ratios are against; default the first of its network and data set.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", rich_help_panel=o.SHOW_PANEL,
            help="Also write the table and charts of accuracy against cost as one page that opens offline.",
        ),
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:  # fmt: skip
    """Several finished runs side by side: recipes × chips.

    Accuracy is on the highest rung that all of them have, with its spread where
    chips differ. Runs of different networks or data sets get tables of their
    own: no ratio is ever taken between them.

    [dim]crossloom compare demo-1a2b3c4d all-four-5e6f7a8b
    crossloom compare runs/* --baseline dense --html compared.html[/dim]
    """
    from crossloom.codesign.targets import find
    from crossloom.report.compare import compare as compared
    from crossloom.report.compare import page, record
    from crossloom.weave.store import write_text

    groups = compared([find(run) for run in runs], None if baseline is None else find(baseline))
    made = record(groups)
    if html is not None:
        write_text(html, page(groups))
        made["html"] = str(html)

    def view() -> RenderableType:
        parts: list[RenderableType] = [part for group in groups for part in shown(group)]
        return Parts(*parts, *([Text(f"written to {html}")] if html is not None else []))

    return Output(made, view)


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
