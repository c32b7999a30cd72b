"""`simulate` and `cost`: looking at compiled chips."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossloom.cli import options as o
from crossloom.cli.jobs import machine
from crossloom.cli.output import Output
from crossloom.errors import InputError

if TYPE_CHECKING:
    from crossloom.codesign.targets import Target
    from crossloom.cost import CostReport
    from crossloom.hardware import Chip


def simulate(
    target: Annotated[str, typer.Argument(metavar="RUN|CHIP", help="A run's folder or name, or a chip file.")],
    rung: Annotated[
        str, typer.Option("--rung", "-r", metavar="NAME", help="float, integer, crossbar, analog or parasitic.")
    ] = "crossbar",
    chips: Annotated[
        int, typer.Option("--chips", metavar="N", help="Chips to draw, on the analog and parasitic rungs.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of their cells and converters.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="Test images; default all.")] = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    normalisation: o.Normalisation = None,
    hardware: o.Hardware = None,
    set_: o.Set = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Run a compiled chip on test images at one rung of the fidelity ladder.

    [dim]crossloom simulate demo-1a2b3c4d --rung crossbar --limit 100
    crossloom simulate demo-1a2b3c4d --rung analog --chips 20 --set device.read_noise=0.02
    crossloom simulate chip.safetensors --data mnist --data-dir ~/data[/dim]
    """
    from crossloom.cli.screen import Screen
    from crossloom.codesign.evaluation import BATCH
    from crossloom.codesign.machine import check
    from crossloom.codesign.machine import threads as with_threads
    from crossloom.codesign.targets import on_hardware, open_target
    from crossloom.compiled import CHIP_RUNGS, RUNGS
    from crossloom.training import Loader

    if rung not in RUNGS + CHIP_RUNGS:
        raise InputError.choice("--rung", rung, RUNGS + CHIP_RUNGS)
    if chips < 1 or (chips > 1 and rung in RUNGS):
        raise InputError(
            "--chips", chips, f"1 on the {rung} rung, where all chips compute the same" if chips > 1 else "at least 1"
        )
    if limit is not None and limit < 1:
        raise InputError("--limit", limit, "at least 1 image")
    place = machine(device, threads, data_dir)
    check(place)
    found = open_target(target)
    images = found.data(data, place.data_dir, normalisation)
    if rung == "float" and found.job is not None:
        found.chip.module = found.job.network
    if hardware or set_:
        found = replace(found, chip=on_hardware(found.chip, hardware, set_ or ()))
    with Screen(quiet) as screen, with_threads(threads):
        screen.begin(rung, f"{found.chip.program.name} on {images.name}")
        started = time.monotonic()
        on = "cuda" if device == "cuda" and rung != "float" else "cpu"
        total = chips * min(limit or len(images.test.labels), len(images.test.labels))
        made = found.chip.accuracy(
            Loader(images.test, images.normalisation, BATCH), rung, limit, on, chips=chips, seed=seed,
            tick=lambda done: screen.tick(done, total),
        )  # fmt: skip
        seconds = time.monotonic() - started
    record = {
        "name": found.chip.program.name,
        "rung": rung,
        "accuracy": made.value,
        "accuracy_of_chips": list(made.chips) if rung in CHIP_RUNGS else None,
        "spread": made.spread if chips > 1 else None,
        "chips": chips,
        "seed": seed,
        "images": made.images,
        "seconds": seconds,
        "data": images.name,
        "data_fingerprint": images.fingerprint(),
        "hardware": found.chip.hardware.name,
        "crossbars": found.chip.crossbars,
        "note": ideal_note(found.chip.hardware, rung),
        **identity(found),
    }

    def view() -> Any:
        from crossloom.cli import views

        return _with_note(views.simulation(record), record["note"])

    return Output(record, view)


def cost(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN|CHIP]…", help="A run or a chip file; two are compared side by side."),
    ] = None,
    network: o.Network = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    hardware: o.Hardware = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    area: Annotated[
        float | None, typer.Option("--area", metavar="MM2", help="Copy slow layers as far as this area allows.")
    ] = None,
    zero_skipping: Annotated[
        bool, typer.Option("--zero-skipping", help="Leave out reads of windows without a driven row (of a run).")
    ] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """Area, energy and latency of a chip, by layer, component and level.

    Of a run or a chip file (with --hardware or --set: of the same program on
    another chip), of two side by side, or of a network by name, which needs
    neither training nor data: its weights are random then, and the output says
    so.

    [dim]crossloom cost --network resnet18 --hardware isaac
    crossloom cost demo-1a2b3c4d --set array.b_adc=6 --zero-skipping
    crossloom cost --network resnet20 --area 50
    crossloom cost demo-1a2b3c4d demo-5e6f7a8b --json[/dim]
    """
    from crossloom.codesign import DEFAULT_HARDWARE
    from crossloom.codesign.targets import cost_of, on_hardware, open_target, random_chip
    from crossloom.cost import compare

    names = targets or []
    if bool(names) == (network is not None):
        raise InputError("target", names or None, "either a run or chip file, or --network NAME")
    if len(names) > 2:
        raise InputError("target", names[2], "at most two to compare")
    found: list[Target]
    if network is not None:
        found = [random_chip(network, hardware or DEFAULT_HARDWARE, set_ or (), data=data, seed=seed or 0)]
    else:
        found = [open_target(name) for name in names]
        for one in found:
            if data_dir is not None and one.job is not None:
                one.data(None, str(data_dir), None)
            if hardware or set_:
                one.chip = on_hardware(one.chip, hardware, set_ or ())
    if area is not None and not area > 0:
        raise InputError("--area", area, "an area in mm², more than 0")
    budget = area * 1e-6 if area is not None else None
    reports = [cost_of(one, zero_skipping=zero_skipping, area=budget) for one in found]
    records = [
        record(name, one, report) for name, one, report in zip(names or [str(network)], found, reports, strict=True)
    ]
    if len(reports) == 1:
        return Output(records[0], lambda: _with_note(reports[0].table(), found[0].note))
    both = compare(*reports)
    return Output({"first": records[0], "second": records[1], "ratios": both.ratios()}, both.table)


def ideal_note(hardware: Chip, rung: str) -> str:
    """What to say when a rung has nothing to add on a chip; empty otherwise."""
    from crossloom.compiled import CHIP_RUNGS
    from crossloom.simulate.analog_chips import adds_nothing

    if rung not in CHIP_RUNGS or not adds_nothing(hardware, rung):
        return ""
    wires = " and wires" if rung == "parasitic" else ""
    return (
        f"{hardware.name} describes ideal cells, converters{wires}: the {rung} rung adds nothing to the crossbar rung "
        "(try --set device.read_noise=0.02)"
    )


def record(name: str, target: Target, report: CostReport) -> dict[str, Any]:
    """A cost report with what it belongs to."""
    return {"target": name, "note": target.note, **identity(target), **report.to_dict()}


def identity(target: Target) -> dict[str, Any]:
    """The hashes that every output carries."""
    return {
        "config_hash": target.job.config.hash if target.job else None,
        "hardware_hash": target.chip.hardware.hash,
        "chip_hash": target.chip.hash,
    }


def _with_note(table: Any, note: str) -> Any:
    from rich.console import Group
    from rich.text import Text

    return Group(table, Text(f"  · {note}", style="dim")) if note else table


def bench(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="WORD", help="Cases whose name has this word; repeatable.")
    ] = None,
    roofline: Annotated[
        bool, typer.Option("--roofline", help="Instead, one layer's operations and their floor on this machine.")
    ] = False,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="On one thread, by processor time: for a machine that other work slows down.")
    ] = False,
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """How fast the engines are on this machine: ratios measured in one run, in a minute or two.

    Let nothing else run meanwhile.

    [dim]crossloom bench
    crossloom bench --only ResNet --json
    crossloom bench --roofline --cpu[/dim]
    """
    import time

    from crossloom.cli.screen import Screen
    from crossloom.codesign.bench import measure, record, select
    from crossloom.codesign.config import Machine
    from crossloom.codesign.machine import environment
    from crossloom.codesign.machine import threads as with_threads

    threads, clock = (1, time.process_time) if cpu else (threads, time.perf_counter)
    cases, rows, floors = select(only or ()), [], []
    with Screen(quiet) as screen, with_threads(threads):
        if roofline:
            from crossloom.codesign.roofline import rooflines

            floors = rooflines(clock)
            cases = []
        screen.begin("bench", f"{len(cases)} cases")
        for i, case in enumerate(cases):
            screen.tick(i, len(cases))
            rows.append(record(measure(case, clock)))
    whole = {"measurements": rows, "environment": environment(Machine(device="cpu", threads=threads))}
    whole |= {"roofline": floors} if roofline else {}

    def view() -> Any:
        from crossloom.cli import views

        return views.rooflines(floors) if roofline else views.measurements(rows)

    return Output(whole, view)


def spice(
    target: Annotated[str, typer.Argument(metavar="RUN|CHIP", help="A run's folder or name, or a chip file.")],
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="NAME", help="A woven layer; default the first.")
    ] = None,
    block: Annotated[int, typer.Option("--block", metavar="N", help="Which of its arrays.")] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the input vector.")] = 0,
    netlist: Annotated[str | None, typer.Option("--netlist", metavar="FILE", help="Also keep the netlist.")] = None,
    hardware: o.Hardware = None,
    set_: o.Set = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> Output:
    """One array as a netlist, run by ngspice and compared with the exact transfer matrix.

    ngspice takes seconds for 64 × 64 cells and minutes for 128 × 128: --set
    makes the arrays smaller.

    [dim]crossloom spice demo-1a2b3c4d --layer conv1 --set array.wire_resistance=2
        --set array.rows=32 --set array.active_rows=32 --set array.columns=32[/dim]
    """
    from crossloom.cli.screen import Screen
    from crossloom.codesign.targets import on_hardware, open_target
    from crossloom.simulate.spice import compare, table
    from crossloom.weave import write_text

    found = open_target(target)
    chip = on_hardware(found.chip, hardware, set_ or ()) if hardware or set_ else found.chip
    name = layer or next(iter(chip.mapping.layers))
    with Screen(quiet) as screen:
        screen.begin("spice", f"{name}, array {block}, {chip.hardware.name}")
        report = compare(chip.mapping, name, block, seed=seed)
    if netlist is not None:
        write_text(netlist, report["netlist"])
    plain = {key: value for key, value in report.items() if key != "netlist"}
    return Output({**plain, **identity(found)}, lambda: table(report))
