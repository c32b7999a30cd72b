"""`networks` and `hardware`: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from crossloom.cli import options as o
from crossloom.cli.output import Output


def networks(
    crossbars: Annotated[
        bool,
        typer.Option("--crossbars", help="Also compile each for the chip and count arrays (a minute or two in all)."),
    ] = False,
    hardware: o.Hardware = None,
    set_: o.Set = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """The networks by name, with their parameters and the data they are usually run on."""
    from crossloom.cli.screen import Screen
    from crossloom.codesign import DEFAULT_HARDWARE
    from crossloom.codesign.targets import catalogue_entry, random_chip
    from crossloom.training import describe_networks

    infos = describe_networks()
    records: list[dict[str, Any]] = []
    with Screen(quiet) as screen:
        for i, info in enumerate(infos):
            arrays = None
            if crossbars:
                if not i:
                    screen.begin("compile", f"{len(infos)} networks for {hardware or DEFAULT_HARDWARE}")
                screen.tick(i, len(infos))
                arrays = random_chip(info.name, hardware or DEFAULT_HARDWARE, set_ or ()).chip.crossbars
            records.append({**catalogue_entry(info), "crossbars": arrays})
    whole = {"hardware": (hardware or DEFAULT_HARDWARE) if crossbars else None, "networks": records}

    def view() -> Any:
        from crossloom.cli import views

        return views.networks(records)

    return Output(whole, view)


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="One recipe, to see it as YAML; without: all.")
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """The ready recipes, or one as YAML: to read, or to copy and change.

    [dim]crossloom recipes
    crossloom recipes all-four > mine.yaml[/dim]
    """
    from crossloom.codesign.recipe import Recipe, ready, sequence

    if name is not None:
        one = Recipe.load(name)
        return Output(one.plain(), lambda: Text(one.to_yaml().rstrip(), no_wrap=True, overflow="ignore"))
    found = [Recipe.load(known) for known in ready()]

    def view() -> Any:
        from crossloom.cli import views

        return views.recipes([(r.name, r.hardware or "", r.about, sequence(r.steps)) for r in found])

    return Output({"recipes": [r.plain() for r in found]}, view)


def list_hardware(json: o.Json = False, quiet: o.Quiet = False, verbose: o.Verbose = False) -> Output:
    """The chips by name, ours and those of installed packages."""
    from crossloom.hardware import load, names

    records = []
    for name in names():
        chip = load(name)
        records.append(
            {
                "name": name, "description": chip.description, "technology": chip.device.technology,
                "rows": chip.array.rows, "columns": chip.array.columns, "b_cell": chip.array.b_cell,
                "b_adc": chip.array.b_adc, "adc_range": chip.array.adc_range, "inputs": chip.precision.inputs,
                "weights": chip.precision.weights, "hash": chip.hash,
            }
        )  # fmt: skip

    def view() -> Any:
        from crossloom.cli import views

        return views.chips(records)

    return Output({"chips": records}, view)


def show_hardware(
    chip: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", autocompletion=o.complete(o._chips), help="A chip's name or hardware file."
        ),
    ],
    set_: o.Set = None,
    parts: Annotated[
        bool, typer.Option("--parts", "--sources", help="Also every part's energy, area and time, with its source.")
    ] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Every figure of a chip with its unit and its source.

    [dim]crossloom hardware show crimp-isaac
    crossloom hardware show my-chip.yaml --set array.b_adc=6 --parts[/dim]
    """
    from crossloom.hardware import components, describe, describe_components, load

    found = load(chip, set_ or ())
    rows = [row._asdict() for row in describe(found)]
    record: dict[str, Any] = {
        "name": found.name, "description": found.description, "hash": found.hash, "figures": rows
    }  # fmt: skip
    if parts:
        record["parts"] = [row._asdict() for row in describe_components(components(found))]

    def view() -> Any:
        from rich.console import Group

        from crossloom.cli import views

        tables = [views.figures(f"{found.name}: {found.description}  (hash {found.hash[:12]})", rows)]
        if parts:
            tables.append(views.figures("Parts", record["parts"]))
        return Group(*tables)

    return Output(record, view)
