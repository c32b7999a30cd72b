"""`compare`: finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from crossloom.cli import options as o
from crossloom.cli.output import Output


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

    def view() -> Any:
        from crossloom.cli.comparison import tables

        return tables(groups, html)

    return Output(made, view)
