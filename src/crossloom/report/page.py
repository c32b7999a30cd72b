"""The page: what a run folder holds, laid out, and written as one HTML file that needs nothing else."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from crossloom.compiled import CompiledChip
from crossloom.hardware import Row, components, describe, describe_components
from crossloom.report import figures, units
from crossloom.report.floorplan import plan
from crossloom.report.run import Entry, Number, Run, read_run
from crossloom.weave.store import write_text

REPORT = "report.html"


@dataclass(frozen=True)
class Card:
    """One headline figure.

    Attributes:
        label: what it is.
        number: the figure.
        unit: its SI unit; `%` for a fraction, empty for a count.
        note: one line below.
        others: accuracies of the other rungs.
    """

    label: str
    number: Number
    unit: str
    note: str = ""
    others: tuple[tuple[str, Number], ...] = ()


@dataclass(frozen=True)
class Provenance:
    """Where the figures of the hardware come from.

    Attributes:
        groups: (title, figures) in the schema's order.
        published, assumed, defaults, unsourced: how many figures are of each kind.
    """

    groups: list[tuple[str, list[Row]]]
    published: int
    assumed: int
    defaults: int
    unsourced: int


def write_report(run_dir: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder, atomically.

    Args:
        run_dir: a folder with `result.json`, and as it may be `chip.safetensors` and `metrics.csv`.

    Returns:
        The page's path. It opens without a network; a section whose data the folder lacks is left out.

    Raises:
        InputError: no such folder, no result in it, or a file that is damaged or does not belong to it.
        OSError: the page cannot be written; nothing is left behind.
    """
    run = read_run(run_dir)
    path = run.folder / REPORT
    write_text(path, render(run))
    return path


def render(run: Run) -> str:
    """The page of a run as HTML."""
    result = run.result
    parts = figures.parts(result)
    names = layer_names(run)
    colours = {part.name: part.colour for part in parts} | {"leakage": figures.LEAKAGE}
    layers = figures.layers(result, names, colours)
    content = {
        "result": result,
        "title": result.text("network") or "Run",
        "hardware": hardware_name(run),
        "data": dataset(result),
        "cards": cards(run),
        "ladder": figures.ladder(result),
        "agreements": figures.agreements(result),
        "notes": statements(result.at("notes")),
        "chip": run.chip,
        "plan": plan(run.chip) if run.chip else None,
        "parts": parts,
        "part_columns": part_columns(parts),
        "levels": level_table(result),
        "layers": layers,
        "layer_table": layer_table(run, names),
        "further": further(result),
        "logs": [(log.title, charts) for log in run.logs if (charts := figures.curves(log))],
        "assumptions": statements(result.at("cost", "assumptions")),
        "provenance": provenance(run.chip) if run.chip else None,
        "command": command(result),
        "config": yaml_text(result.at("config")),
        "environment": environment(result),
        "hashes": [(name, result.text(f"{name}_hash")) for name in ("config", "hardware", "chip")],
        "colours": figures.COLOURS,
        "others": figures.OTHERS,
        "leakage": figures.LEAKAGE,
    }
    return environment_for_templates().get_template("report.html.j2").render(content)


def environment_for_templates() -> Environment:
    """Jinja with everything escaped, undefined names refused, and the filters that the templates use."""
    templates = Environment(
        loader=PackageLoader("crossloom.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "count": units.count,
        "percent": units.percent,
        "plain": units.plain,
        "spoken": figures.spoken,
    }
    folder = files("crossloom.report") / "templates"
    templates.globals |= {
        "style": Markup((folder / "style.css").read_text("utf-8")),
        "script": Markup((folder / "script.js").read_text("utf-8")),
        "shown": shown,
        "tally": tally,
    }
    return templates


def shown(number: Number, unit: str, like: float | None = None) -> tuple[str, str, str]:
    """(number, unit, exact value in words) as the page writes them; `like` as in `units.quantity`."""
    value = number.value
    exact = f"{value!r} {unit}".strip()
    if unit == "%":
        return units.percent(value), "%", repr(value)
    if unit == "":
        return units.count(value), "", exact
    if unit in ("J", "Js", "s", "m^2", "W"):
        return *units.quantity(value, unit, like), exact
    if unit.startswith("TOPS") and 0 < abs(value) < 0.01:
        return *units.quantity(value * 1e12, unit[1:]), exact
    return units.digits(value), unit, exact


def hardware_name(run: Run) -> str:
    """The chip's name."""
    hardware = run.result.at("hardware")
    return run.chip.hardware.name if run.chip else hardware.text("name") or hardware.text()


def dataset(result: Entry) -> str:
    """The data set's name."""
    data = result.at("data")
    return data.text("name") if isinstance(data.content, dict) else data.text()


def cards(run: Run) -> list[Card]:
    """The headline figures that the result has."""
    result, found = run.result, []
    accuracies = figures.accuracies(result)
    if accuracies:
        rung, (value, images) = list(accuracies.items())[-1]
        note = f"of {units.count(images.value)} images" if images else ""
        if "float" in accuracies and rung != "float":
            note = f"{units.points(value.value - accuracies['float'][0].value)} points from float"
        others = tuple((name, number) for name, (number, _) in accuracies.items() if name != rung)
        found.append(Card(f"Accuracy, {rung} rung", value, "%", note, others))
    chip = run.chip.mapping if run.chip else None
    wanted = (
        ("Crossbars", ("crossbars",), "", f"{units.percent(chip.utilisation, 0)} % of cells used" if chip else ""),
        ("Area", ("area_m2",), "m^2", f"{tally(chip.macros, 'macro')}, {tally(chip.tiles, 'tile')}" if chip else ""),
        ("Energy", ("energy_j",), "J", "per image"),
        ("Latency", ("latency_s",), "s", "for one image"),
        ("Throughput", ("throughput",), "images/s", "pipelined" if chip and chip.chip.hierarchy.pipelined else ""),
        ("Efficiency", ("tops_per_watt",), "TOPS/W", "dense operations per joule"),
        ("Density", ("tops_per_mm2",), "TOPS/mm²", "when kept busy"),
    )
    for label, keys, unit, note in wanted:
        number = result.number(*keys) or result.number("cost", *keys)
        if number:
            found.append(Card(label, number, unit, note))
    return found


def tally(count: int, noun: str) -> str:
    """A count with its noun: 1 tile, 2 tiles."""
    return f"{units.count(count)} {noun}{'' if count == 1 else 's'}"


def part_columns(parts: list[figures.Part]) -> list[tuple[str, str, float]]:
    """Quantity, SI unit and largest value of each quantity that a component has."""
    found = (
        (t, unit, [part.numbers[t][0].value for part in parts if t in part.numbers])
        for t, _, unit in figures.PART_QUANTITIES
    )
    return [(title, unit, max(values)) for title, unit, values in found if values]


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        columns: heading, SI unit (as of a card) and largest value of every column behind the name.
        rows: per line its name and its numbers, None where it has none.
    """

    columns: list[tuple[str, str, float]]
    rows: list[tuple[str, list[Number | None]]]


def layer_names(run: Run) -> list[str]:
    """What to call each entry of `cost.layers`: by its woven layer where the chip has just one node with it."""
    given = [line.text("name") for line in run.result.at("cost", "layers").rows()]
    if run.chip is None:
        return [name or f"layer {i + 1}" for i, name in enumerate(given)]
    woven = {node.name: node.layer.name for node in run.chip.program.woven()}
    uses = list(woven.values())
    renamed = [woven[name] if uses.count(woven.get(name, "")) == 1 else name for name in given]
    return [name or f"layer {i + 1}" for i, name in enumerate(renamed)]


def layer_table(run: Run, names: list[str]) -> Table | None:
    """Cost per layer in numbers, with the columns that the result has, and each core's shape where there is a chip."""
    lines = list(run.result.at("cost", "layers").rows())
    wanted = (
        ("crossbars", "crossbars", ""),
        ("copies", "copies", ""),
        ("core rows", "rows", ""),
        ("core columns", "columns", ""),
        ("cells used", "utilisation", "%"),
        ("vectors", "positions", ""),
        ("cycles", "cycles", ""),
        *figures.QUANTITIES,
    )
    digital = [line.number("crossbars") is not None and not line.content["crossbars"] for line in lines]
    return table(wanted, list(zip(names, lines, strict=True)), blank=("copies",), without=digital)


def level_table(result: Entry) -> Table | None:
    """Cost by level of the hierarchy, with the columns that the result has."""
    wanted = (("energy", "energy_j", "J"), ("leakage", "leakage_w", "W"), ("area", "area_m2", "m^2"))
    return table(wanted, list(result.at("cost", "levels").items()))


def table(
    wanted: tuple[tuple[str, str, str], ...],
    lines: list[tuple[str, Entry]],
    blank: tuple[str, ...] = (),
    without: list[bool] | None = None,
) -> Table | None:
    """A table of the columns (heading, key, unit) that are not zero throughout, or None if none is left.

    A zero is left blank. So are the columns `blank` in lines that are `without` them.
    """
    largest = {key: max((n.value for _, line in lines if (n := line.number(key))), default=0.0) for _, key, _ in wanted}
    columns = [(heading, key, unit) for heading, key, unit in wanted if largest[key]]
    rows: list[tuple[str, list[Number | None]]] = []
    for i, (name, line) in enumerate(lines):
        absent = blank if without and without[i] else ()
        numbers = [None if key in absent else line.number(key) for _, key, _ in columns]
        rows.append((name, [number if number and number.value else None for number in numbers]))
    return Table([(heading, unit, largest[key]) for heading, key, unit in columns], rows) if columns else None


def further(result: Entry) -> list[tuple[str, Number, str]]:
    """Figures beside the headline that the result has: what, number, unit."""
    wanted = (
        ("Parts that the chip has once, area", ("chip_level", "area_m2"), "m^2"),
        ("Empty places in the tiles in use, not counted above", ("idle_area_m2",), "m^2"),
        ("Time between images, busy", ("interval_s",), "s"),
        ("Power, busy", ("power_w",), "W"),
        ("Standby power", ("leakage_w",), "W"),
        ("Programming, energy", ("programming", "energy_j"), "J"),
        ("Programming, time", ("programming", "time_s"), "s"),
        ("Programming, cells", ("programming", "cells"), ""),
        ("Operations of the dense network", ("operations",), ""),
        ("Energy × delay", ("edp",), "Js"),
    )
    found = ((title, result.number("cost", *keys), unit) for title, keys, unit in wanted)
    return [(title, number, unit) for title, number, unit in found if number is not None and number.value]


def statements(part: Entry) -> list[str]:
    """A list of texts, an object of texts, or one text, as lines."""
    if isinstance(part.content, dict):
        return [f"{figures.spoken(name)}: {entry.text()}" for name, entry in part.items()]
    return [row.text() for row in part.rows()] or ([part.text()] if part else [])


def provenance(chip: CompiledChip) -> Provenance:
    """Every figure of the chip and of its components with its source."""
    hardware = chip.hardware
    groups: dict[str, list[Row]] = {}
    for row in describe(hardware):
        if "." in row.path:
            groups.setdefault(row.path.split(".")[0], []).append(row)
    groups["parts"] = describe_components(components(hardware))
    rows = [row for title, group in groups.items() if title != "published" for row in group]
    kinds = [source_kind(row.source) for row in rows]
    counts = [kinds.count(kind) for kind in ("published", "assumed", "default", "none")]
    return Provenance(list(groups.items()), *counts)


def source_kind(source: str) -> str:
    """published, assumed (`ours: …`), default (`default: …`) or none."""
    if not source:
        return "none"
    return "assumed" if source.startswith("ours") else "default" if source.startswith("default") else "published"


def command(result: Entry) -> str:
    """The command that makes the run again, as one types it."""
    given = result.at("command").content
    if not isinstance(given, list):
        return result.text("command")
    words = [str(word) for word in given]
    if words and Path(words[0]).name == "crossloom":
        words[0] = "crossloom"
    return shlex.join(words)


def yaml_text(part: Entry) -> str:
    """A JSON value as YAML, which reads better."""
    return str(yaml.safe_dump(part.content, sort_keys=False, allow_unicode=True)) if part else ""


def environment(result: Entry) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of plain facts: seed and time, versions, machine."""

    def say(value: Any, seconds: bool = False) -> str:
        if seconds and isinstance(value, (int, float)) and not isinstance(value, bool):
            return f"{units.digits(value)} s"
        return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).strip(" \n.")

    run = [(key, result.text(key)) for key in ("name", "created", "seed", "parameters") if result.text(key)]
    groups = [("Run", run)] if run else []
    for key in ("environment", "versions", "timings"):
        facts = [(figures.spoken(name), say(entry.content, key == "timings")) for name, entry in result.at(key).items()]
        if facts:
            groups.append((key.capitalize(), facts))
    return groups
