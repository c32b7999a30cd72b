"""The commands. Each parses, calls a room above, and returns what to print; rooms are imported when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from crossloom.cli import catalogue, chips, compare, jobs, papers, validation
from crossloom.cli.options import Command

HELP = """Weave neural networks onto compute-in-memory crossbars.

One configuration, one chip: Crossloom trains a network, quantises it, compiles
it for the crossbars of a chip, runs it as the chip would and says what it costs
in area, energy and time.

Start with [bold]crossloom demo[/bold]: LeNet-5 on real handwritten digits, nothing to
download, in about a minute.
"""

app = typer.Typer(
    help=HELP,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    no_args_is_help=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from crossloom import __version__

        typer.echo(f"crossloom {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The program without a command shows its help."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


WORK, LOOK = "The main job", "Look and compare"
app.command(cls=Command, rich_help_panel=WORK)(jobs.demo)
app.command(cls=Command, rich_help_panel=WORK)(jobs.train)
app.command(cls=Command, rich_help_panel=WORK)(jobs.codesign)
app.command("compile", cls=Command, rich_help_panel=WORK)(jobs.compile_)
app.command(cls=Command, rich_help_panel=WORK)(chips.simulate)
app.command(cls=Command, rich_help_panel=WORK)(chips.cost)
app.command(cls=Command, rich_help_panel=WORK)(jobs.report)
app.command(cls=Command, rich_help_panel=WORK)(papers.reproduce)
app.command(cls=Command, rich_help_panel=LOOK)(compare.compare)
app.command(cls=Command, rich_help_panel=LOOK)(catalogue.networks)
app.command(cls=Command, rich_help_panel=LOOK)(catalogue.recipes)
app.command(cls=Command, rich_help_panel=LOOK)(validation.validate)
app.command(cls=Command, rich_help_panel=LOOK)(chips.spice)
app.command(cls=Command, rich_help_panel=LOOK)(chips.bench)

hardware = typer.Typer(help="The chips that there are, and every figure of one with its source.", no_args_is_help=True)
hardware.command("list", cls=Command)(catalogue.list_hardware)
hardware.command("show", cls=Command)(catalogue.show_hardware)
app.add_typer(hardware, name="hardware", rich_help_panel=LOOK)

results = typer.Typer(help="The papers' tables as files: check them and write the page.", no_args_is_help=True)
results.command("render", cls=Command)(papers.render)
results.command("schema", cls=Command)(papers.schema)
app.add_typer(results, name="results", hidden=True)
