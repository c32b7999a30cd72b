"""`validate`: published figures beside ours, and the pages that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from crossloom.cli import options as o
from crossloom.cli.output import Output
from crossloom.errors import InputError


def validate(
    chips: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CHIP]…", autocompletion=o.complete(o._chips), help="Names or hardware files; default all."
        ),
    ] = None,
    pages: Annotated[
        Path | None, typer.Option("--pages", metavar="DIR", help="Also write the validation pages there.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PAGE", help="Pages to write; default all (minutes).")
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Figures published for chips beside what the cost model makes of them.

    Where a chip declares fitted factors, the figure without them stands beside
    the calibrated one. --pages writes docs/validation: these tables, and the
    networks of CRIMP, AAT and NeuroSim.

    [dim]crossloom validate
    crossloom validate isaac neurram --json
    crossloom validate --pages docs/validation --only crimp-figure-7[/dim]
    """
    from crossloom.cli.screen import Screen
    from crossloom.cost import checks
    from crossloom.cost.validation import SECTIONS, write
    from crossloom.hardware import load, names

    for page in only or ():
        if page not in SECTIONS:
            raise InputError.choice("--only", page, SECTIONS)
    if only and pages is None:
        raise InputError("--only", only, "--pages DIR, the folder to write them to")
    found = {name: checks(load(name)) for name in chips or names()}
    for name in chips or ():
        if not found[name]:
            published = [other for other in names() if load(other).published]
            raise InputError("chip", name, f"a chip with published figures: {', '.join(published)}")
    rows = [
        {
            "chip": name, "figure": check.name, "condition": check.condition, "unit": check.unit,
            "published": check.published, "raw": check.raw, "raw_ratio": check.raw_ratio, "ours": check.ours,
            "ratio": check.ratio, "source": check.source,
        }
        for name, of in found.items()
        for check in of
    ]  # fmt: skip
    written: list[str] = []
    if pages is not None:
        with Screen(quiet) as screen:
            screen.begin("pages", f"{pages}")
            written = [str(path) for path in write(pages, only or (), screen.tick)]
    return Output({"figures": rows, "pages": written}, lambda: _table(rows, written))


def _table(rows: Sequence[dict[str, Any]], written: Sequence[str]) -> Any:
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from crossloom.cost.validation.page import quantity

    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    table.add_column("chip", no_wrap=True)
    table.add_column("figure")
    for heading in ("published", "raw", "ratio", "ours", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for row in rows:
        fitted = row["raw"] != row["ours"]
        shown = "" if row["chip"] == last else row["chip"]
        last = row["chip"]
        raw = (quantity(row["raw"], row["unit"]), f"{row['raw_ratio']:.3f}") if fitted else ("", "")
        table.add_row(
            shown, escape(row["figure"].replace("_", " ")), quantity(row["published"], row["unit"]), *raw,
            quantity(row["ours"], row["unit"]), f"{row['ratio']:.3f}",
        )  # fmt: skip
    notes = [Text(f"  written: {path}", style="dim") for path in written]
    note = Text("  ratio: ours ÷ published; raw: without the factors that the chip declares as fitted", style="dim")
    return Group(table, note, *notes)
