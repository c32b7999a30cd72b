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
from crossloom.report.run import Number, Result, Run, read_run
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
    """

    label: str
    number: Number
    unit: str
    note: str = ""


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
    layers = figures.layers(result, {part.name: part.colour for part in parts})
    content = {
        "result": result,
        "title": result.text("network") or "Run",
        "hardware": hardware_name(run),
        "data": dataset(result),
        "cards": cards(run),
        "ladder": figures.ladder(result),
        "chip": run.chip,
        "plan": plan(run.chip) if run.chip else None,
        "parts": parts,
        "levels": [(name, entry) for name, entry in result.at("cost", "levels").items()],
        "layers": layers,
        "layer_table": layer_table(run),
        "logs": [(log.title, figures.curves(log)) for log in run.logs],
        "assumptions": statements(result.at("cost", "assumptions")),
        "provenance": provenance(run.chip) if run.chip else None,
        "command": command(result),
        "config": yaml_text(result.at("config")),
        "environment": environment(result),
        "hashes": [(name, result.text(f"{name}_hash")) for name in ("config", "hardware", "chip")],
        "colours": figures.COLOURS,
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
    templates.filters |= {"count": units.count, "percent": units.percent, "spoken": figures.spoken}
    folder = files("crossloom.report") / "templates"
    templates.globals |= {
        "style": Markup((folder / "style.css").read_text("utf-8")),  # noqa: S704 -- our own files
        "script": Markup((folder / "script.js").read_text("utf-8")),  # noqa: S704
        "shown": shown,
        "quantities": figures.QUANTITIES,
    }
    return templates


def shown(number: Number, unit: str) -> tuple[str, str, str]:
    """(number, unit, exact value in words) as the page writes them."""
    if unit == "%":
        return units.percent(number.value), "%", f"{number.value!r}"
    if unit == "":
        return units.count(number.value), "", f"{number.value!r}"
    text, name = units.quantity(number.value, unit) if unit in ("J", "s", "m^2", "W") else ("", unit)
    return text or units.digits(number.value), name, f"{number.value!r} {unit}"


def hardware_name(run: Run) -> str:
    """The chip's name."""
    hardware = run.result.at("hardware")
    return run.chip.hardware.name if run.chip else hardware.text("name") or hardware.text()


def dataset(result: Result) -> str:
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
        found.append(Card(f"Accuracy, {rung}", value, "%", note))
    chip = run.chip.mapping if run.chip else None
    wanted = (
        ("Crossbars", ("crossbars",), "", chip and f"{units.percent(chip.utilisation, 0)} % of cells used"),
        ("Area", ("area_m2",), "m^2", chip and f"{tally(chip.macros, 'macro')}, {tally(chip.tiles, 'tile')}"),
        ("Energy", ("energy_j",), "J", "per image"),
        ("Latency", ("latency_s",), "s", "for one image"),
        ("Throughput", ("throughput",), "images/s", "pipelined" if chip and chip.chip.hierarchy.pipelined else ""),
        ("Efficiency", ("tops_per_w",), "TOPS/W", ""),
        ("Density", ("tops_per_mm2",), "TOPS/mm²", ""),
    )
    for label, keys, unit, note in wanted:
        number = result.number(*keys) or result.number("cost", *keys)
        if number:
            found.append(Card(label, number, unit, note or ""))
    return found


def tally(count: int, noun: str) -> str:
    """A count with its noun: 1 tile, 2 tiles."""
    return f"{units.count(count)} {noun}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class LayerRow:
    """A line of the layer table: the layer's name, what the chip says of it, and its numbers with their units."""

    name: str
    shape: str
    utilisation: str
    numbers: list[tuple[Number, str] | None]


@dataclass(frozen=True)
class LayerTable:
    """Cost per layer as a table: the headings of the numbers, and the lines."""

    headings: list[str]
    rows: list[LayerRow]


def layer_table(run: Run) -> LayerTable | None:
    """The table, with the columns that the result has."""
    lines = list(run.result.at("cost", "layers").rows())
    columns = (
        ("crossbars", "crossbars", ""),
        ("copies", "copies", ""),
        ("rows", "rows", ""),
        ("columns", "columns", ""),
        ("cycles", "cycles", ""),
        *figures.QUANTITIES,
    )
    used = [column for column in columns if any(line.number(column[1]) for line in lines)]
    if not lines or not used:
        return None
    mapped = run.chip.mapping.layers if run.chip else {}
    rows = []
    for i, line in enumerate(lines):
        name = line.text("name") or f"layer {i + 1}"
        shape = utilisation = ""
        if run.chip and name in mapped:
            layer, array = mapped[name], run.chip.hardware.array
            groups, height, width = layer.layer.core.shape
            shape = f"{f'{groups} × ' if groups > 1 else ''}{height} × {width}"
            cells = len(layer.blocks) * array.rows * array.columns
            utilisation = f"{units.percent(layer.used_cells / cells, 0)} %" if cells else ""
        numbers = [(n, unit) if (n := line.number(key)) else None for _, key, unit in used]
        rows.append(LayerRow(name, shape, utilisation, numbers))
    return LayerTable([title for title, _, _ in used], rows)


def statements(part: Result) -> list[str]:
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


def command(result: Result) -> str:
    """The command that makes the run again, as one types it."""
    given = result.at("command").content
    return shlex.join(str(word) for word in given) if isinstance(given, list) else result.text("command")


def yaml_text(part: Result) -> str:
    """A JSON value as YAML, which reads better."""
    return str(yaml.safe_dump(part.content, sort_keys=False, allow_unicode=True)) if part else ""


def environment(result: Result) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of plain facts: seed and time, versions, machine."""

    def say(value: Any, seconds: bool = False) -> str:
        if seconds and isinstance(value, (int, float)) and not isinstance(value, bool):
            return f"{units.digits(value)} s"
        return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).strip(" \n.")

    run = [(key, result.text(key)) for key in ("seed", "created", "device") if result.text(key)]
    groups = [("Run", run)] if run else []
    for key in ("timings", "versions", "environment"):
        facts = [(figures.spoken(name), say(entry.content, key == "timings")) for name, entry in result.at(key).items()]
        if facts:
            groups.append((key.capitalize(), facts))
    return groups
