"""`reproduce` and `results`: the papers' tables beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from crossloom.cli import options as o
from crossloom.cli.jobs import machine
from crossloom.cli.output import Output
from crossloom.errors import InputError

ResultsDir = Annotated[
    Path,
    typer.Option("--results", metavar="DIR", rich_help_panel=o.RUN_PANEL, help="Folder of the results files."),
]


def reproduce(
    paper: Annotated[
        str | None, typer.Argument(metavar="[PAPER]", help="crimp, …; without one: what there is.")
    ] = None,
    network: o.Network = None,
    weights: o.Weights = None,
    data: o.Data = None,
    train_images: o.TrainImages = None,
    epochs: o.Epochs = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            rich_help_panel=o.RUN_PANEL,
            help="In place of --epochs: about how long it may take here, 30m or 2h; training is shortened to fit.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="32|bf16-mixed",
            rich_help_panel=o.RUN_PANEL,
            help="Of training; default the recipe's. bf16-mixed is several times faster where the CPU has AMX, and "
            "slower than 32 where it has none.",
        ),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(
            "--points",
            metavar="N",
            rich_help_panel=o.RUN_PANEL,
            help="Only the first N of the paper's points (admm: ratios); default all. More follow on what there is.",
        ),
    ] = None,
    data_dir: o.DataDir = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", rich_help_panel=o.RUN_PANEL, help="Test images on the crossbar rung."),
    ] = None,
    results: ResultsDir = Path("results"),
    fresh: o.Fresh = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """A paper's rows made again, beside the paper's numbers; writes results/<paper>-<network>.json.

    Published weights are looked for in CROSSLOOM_WEIGHTS, or given with --weights.

    [dim]crossloom reproduce
    crossloom reproduce crimp --network resnet56 --limit 200
    crossloom reproduce aat --network vgg8 --budget 1h --limit 100[/dim]
    """
    from crossloom.cli.screen import Screen
    from crossloom.codesign.pace import epochs_within
    from crossloom.codesign.plugins import default_data
    from crossloom.codesign.reproduce import Request, reproductions
    from crossloom.codesign.reproduce import reproduce as make

    if paper is None:
        there = {
            name: {"title": r.title, "networks": list(r.networks), "rows": r.rows}
            for name, r in reproductions().items()
        }
        return Output({"reproductions": there}, lambda: _listed(there))
    if paper not in reproductions() or network is None:
        expected = "; ".join(f"{name} --network {'|'.join(r.networks)}" for name, r in reproductions().items())
        what = ("--network", network) if paper in reproductions() else ("paper", paper)
        raise InputError(*what, f"a reproduction that exists: {expected}")
    if limit is not None and limit < 1:
        raise InputError("--limit", limit, "at least 1 image")
    if precision is not None and precision not in ("32", "bf16-mixed"):
        raise InputError.choice("--precision", precision, ("32", "bf16-mixed"))
    place = machine(device, threads, data_dir)
    if budget is not None:
        if epochs is not None:
            raise InputError("--budget", budget, "no --epochs beside it: one way to say how long")
        if "epochs" not in reproductions()[paper].options:
            raise InputError("--budget", budget, f"no such choice with {paper}: its rows fix it")
        usual = reproductions()[paper].data or default_data(network)
        epochs = epochs_within(budget, network, data or usual, place, train_images)
    with Screen(quiet) as screen:
        if budget is not None:
            screen.note(f"{budget} on this machine: {epochs} epochs of float training")
        request = Request(
            network, weights, limit, data, epochs, train_images, cast(Any, precision), points, place, fresh=fresh,
            progress=screen,
        )  # fmt: skip
        file = make(paper, request)
    path = file.save(results)
    record = {"file": str(path), **file.model_dump(mode="json")}

    def view() -> Any:
        from crossloom.cli import views

        return views.rows(f"{file.title}\n{file.network}; written to {path}", record["rows"])

    return Output(record, view)


def _listed(there: dict[str, Any]) -> Any:
    from crossloom.cli import views

    rows = [(name, " ".join(r["networks"]), f"{r['rows']} — {r['title']}") for name, r in there.items()]
    return views.grid(rows)


def render(
    results: ResultsDir = Path("results"),
    page: Annotated[Path, typer.Option("--page", help="Where to write the page.")] = Path("docs/results.md"),
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Check every results file and write the page."""
    from rich.text import Text

    from crossloom.codesign.results import load_all
    from crossloom.codesign.results import render as rendered
    from crossloom.weave.store import write_text

    files = load_all(results)
    write_text(page, rendered(files))
    record = {"page": str(page), "files": [file.name for file in files], "rows": sum(len(f.rows) for f in files)}
    return Output(record, lambda: Text(f"{page}: {record['rows']} rows of {len(files)} files"))


def schema(json: o.Json = False, quiet: o.Quiet = False, verbose: o.Verbose = False) -> Output:
    """The JSON schema of a results file."""
    from rich.json import JSON

    from crossloom.codesign.results import schema as described

    return Output(described(), lambda: JSON.from_data(described()))
