"""`demo`, `train`, `compile`, `report`: the main job and its parts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossloom.cli import options as o
from crossloom.cli.output import Output
from crossloom.errors import InputError

if TYPE_CHECKING:
    from crossloom.codesign import Machine, Result, RunConfig

DEVICES = ("auto", "cpu", "cuda")
RUNS = Path("runs")


def demo(
    network: o.Network = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    hardware: o.Hardware = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    epochs: o.Epochs = None,
    finetune: o.Finetune = None,
    limit: o.Limit = None,
    train_images: o.TrainImages = None,
    run_dir: o.RunDir = None,
    name: o.Name = None,
    fresh: o.Fresh = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """LeNet-5 on real handwritten digits, end to end on a described chip.

    Trains LeNet-5 on scikit-learn's digits with quantisation awareness,
    compiles it for the chip, runs it with the crossbars' exact arithmetic and
    counts area, energy and latency. Leaves runs/demo-…/ with result.json, the
    compiled chip and report.html. Ctrl-C is safe at any time: the same command
    goes on where it stopped.

    [dim]crossloom demo
    crossloom demo --set array.b_adc=6
    crossloom demo --hardware rram-40nm --json[/dim]
    """
    from crossloom.codesign import DEFAULT_HARDWARE, configure

    config = configure(
        network or "lenet5", data, hardware or DEFAULT_HARDWARE, overrides=set_ or (), seed=seed or 0, epochs=epochs,
        finetune_epochs=finetune, train_images=train_images, images=limits(limit),
        machine=machine(device, threads, data_dir),
    )  # fmt: skip
    folder = place(config, run_dir, name, f"demo-{config.hash[:8]}")
    return do(config, folder, fresh, quiet)


def train(
    network: o.Network = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    weights: o.Weights = None,
    normalisation: o.Normalisation = None,
    train_images: o.TrainImages = None,
    hardware: o.Hardware = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    epochs: o.EpochsFrom = None,
    finetune: o.Finetune = None,
    limit: o.Limit = None,
    config: o.ConfigFile = None,
    run_dir: o.RunDir = None,
    name: o.Name = None,
    fresh: o.Fresh = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Train any network, and take it all the way to the chip.

    The same job as `demo` on any network and data: float training by the
    reference recipe, quantisation-aware fine-tuning, compilation, accuracy on
    the float, integer and crossbar rungs, cost, report. Every stage is kept in
    the run's folder, and the same command goes on where it stopped.

    [dim]crossloom train --network lenet5 --data mnist --epochs 5
    crossloom train --network vgg16 --device cuda --limit crossbar=500
    crossloom train --config runs/demo/config.yaml --device cuda[/dim]
    """
    from crossloom.codesign import DEFAULT_HARDWARE, RunConfig, configure

    where = machine(device, threads, data_dir)
    if config is not None:
        given = {
            "--network": network, "--data": data, "--weights": weights, "--normalisation": normalisation,
            "--train-images": train_images, "--hardware": hardware, "--set": set_, "--seed": seed,
            "--epochs": epochs, "--finetune": finetune, "--limit": limit,
        }  # fmt: skip
        if both := [option for option, value in given.items() if value not in (None, [])]:
            raise InputError("--config", str(config), f"no {both[0]} beside it: the file holds it")
        whole = RunConfig.load(config)
        changes = {key: value for key, value in where.model_dump().items() if key in where.model_fields_set}
        whole = whole.model_copy(update={"machine": whole.machine.model_copy(update=changes)})
    else:
        if network is None:
            raise InputError("--network", None, "the name of a network (see `crossloom networks`), or --config FILE")
        whole = configure(
            network, data, hardware or DEFAULT_HARDWARE, overrides=set_ or (), weights=weights,
            normalisation=normalisation, seed=seed or 0, epochs=epochs, finetune_epochs=finetune,
            train_images=train_images, images=limits(limit), machine=where,
        )  # fmt: skip
    return do(whole, place(whole, run_dir, name, whole.default_name), fresh, quiet)


def codesign(
    network: o.Network = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    weights: o.Weights = None,
    normalisation: o.Normalisation = None,
    train_images: o.TrainImages = None,
    recipe: o.RecipeName = None,
    hardware: o.Hardware = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    epochs: o.EpochsFrom = None,
    finetune: o.Finetune = None,
    limit: o.Limit = None,
    chips: o.Chips = None,
    noise: o.Noise = None,
    run_dir: o.RunDir = None,
    name: o.Name = None,
    fresh: o.Fresh = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Compress, quantise and harden a network for a chip by a recipe.

    A recipe is a list of steps: methods that train, then passes that map. It is
    rehearsed on the network and the chip before anything is trained. Every step
    is kept in the run's folder, and the same command goes on where it stopped.
    --finetune N shares N epochs among the steps.

    [dim]crossloom codesign --network lenet5 --data mnist --recipe all-four
    crossloom codesign --network resnet20 --weights resnet20.th --recipe mine.yaml
    crossloom compare runs/one runs/other[/dim]
    """
    from crossloom.codesign import configure

    if network is None:
        raise InputError("--network", None, "the name of a network (see `crossloom networks`)")
    if recipe is None:
        raise InputError("--recipe", None, "a recipe of `crossloom recipes`, or a YAML file")
    config = configure(
        network, data, hardware, overrides=set_ or (), weights=weights, normalisation=normalisation, seed=seed or 0,
        epochs=epochs, finetune_epochs=finetune, train_images=train_images, chips=chips,
        images=limits(limit, chips is not None or bool(noise)),
        noise=noise or (), recipe=recipe, machine=machine(device, threads, data_dir),
    )  # fmt: skip
    return do(config, place(config, run_dir, name, config.default_name), fresh, quiet)


def compile_(
    network: o.Network = None,
    weights: o.Weights = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    normalisation: o.Normalisation = None,
    hardware: o.Hardware = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    finetune: o.Finetune = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", rich_help_panel=o.RUN_PANEL, help="Also measure accuracy on every rung.")
    ] = False,
    limit: o.Limit = None,
    run_dir: o.RunDir = None,
    name: o.Name = None,
    fresh: o.Fresh = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Compile trained weights for a chip: post-training quantisation, mapping, cost.

    Activation ranges are set from training images of --data. The run's folder
    then holds chip.safetensors, for `simulate`, `cost` and `report`.

    [dim]crossloom compile --network resnet20 --weights resnet20.th --data cifar10
    crossloom simulate runs/resnet20-cifar10-… --limit 500[/dim]
    """
    from crossloom.codesign import DEFAULT_HARDWARE, configure
    from crossloom.compiled import RUNGS

    if network is None:
        raise InputError("--network", None, "the name of a network (see `crossloom networks`)")
    if weights is None:
        raise InputError("--weights", None, "a file of trained weights; `crossloom train` makes some")
    config = configure(
        network, data, hardware or DEFAULT_HARDWARE, overrides=set_ or (), weights=weights,
        normalisation=normalisation, seed=seed or 0, finetune_epochs=finetune,
        rungs=RUNGS if evaluate else (), images=limits(limit), machine=machine(device, threads, data_dir),
    )  # fmt: skip
    return do(config, place(config, run_dir, name, config.default_name), fresh, quiet)


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name below runs/.")],
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Write a run's report.html again: one page that opens offline."""
    from rich.text import Text

    from crossloom.codesign.targets import find
    from crossloom.report import write_report

    folder = find(run)
    path = write_report(folder)
    return Output({"report": str(path), "run_dir": str(folder)}, lambda: Text(str(path)))


def do(config: RunConfig, folder: Path, fresh: bool, quiet: bool) -> Output:
    """The main job, with its progress on standard error."""
    from crossloom.cli.screen import Screen
    from crossloom.codesign import run
    from crossloom.report import write_report

    with Screen(quiet) as screen:
        record = run(config, folder, fresh=fresh, command=words(), progress=screen, report=write_report)
    return shown(record)


def shown(record: Result) -> Output:
    """A run's record as output."""

    def view() -> Any:
        from crossloom.cli import views

        return views.result(record)

    return Output(record.model_dump(mode="json"), view)


def words() -> list[str]:
    """This process's command line as one would type it."""
    return ["crossloom", *sys.argv[1:]]


def machine(device: str, threads: int | None, data_dir: Path | None) -> Machine:
    """Where to compute, from the options that were given."""
    from crossloom.codesign import Machine

    if device not in DEVICES:
        raise InputError.choice("--device", device, DEVICES)
    if threads is not None and threads < 1:
        raise InputError("--threads", threads, "at least 1")
    given: dict[str, Any] = {"threads": threads, "data_dir": None if data_dir is None else str(data_dir)}
    given = {key: value for key, value in given.items() if value is not None}
    return Machine.model_validate(given | ({} if device == "auto" else {"device": device}))


def place(config: RunConfig, run_dir: Path | None, name: str | None, default: str) -> Path:
    """The run's folder: as given, or below `runs`."""
    if run_dir is not None and name is not None:
        raise InputError("--name", name, "no --run-dir beside it: one folder, one way to say it")
    if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
        raise InputError("--name", name, "a plain name; --run-dir takes a path")
    return run_dir if run_dir is not None else RUNS / (name or default)


def limits(given: list[str] | None, chips: bool = False) -> dict[Any, int]:
    """Test images by rung from `--limit N` or `--limit rung=N`; with `chips` of the analog rung, too."""
    from crossloom.compiled import RUNGS

    rungs = (*RUNGS, "analog") if chips else RUNGS
    found: dict[Any, int] = {}
    for text in given or ():
        rung, equals, number = text.rpartition("=")
        if equals and rung not in rungs:
            raise InputError.choice("--limit", rung, rungs)
        if not number.strip().isdecimal() or int(number) < 1:
            raise InputError("--limit", text, "a number of images from 1, or rung=number such as crossbar=500")
        found |= {rung: int(number)} if equals else dict.fromkeys(rungs, int(number))
    return found
