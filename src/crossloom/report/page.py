"""The page: what a run folder holds, laid out, and written as one HTML file that needs nothing else."""

from __future__ import annotations

import os
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from crossloom.report import figures, units
from crossloom.report.accuracy import agreements, ladder
from crossloom.report.floorplan import plan
from crossloom.report.headline import cards, tally
from crossloom.report.pareto import COSTS, candidates, fronts, lines
from crossloom.report.plots import noise, trainings
from crossloom.report.run import Entry, Number, Run, read_run
from crossloom.report.sources import provenance
from crossloom.report.steps import steps
from crossloom.report.tables import further, layer_names, layer_table, level_table, part_columns
from crossloom.weave.store import write_text

REPORT = "report.html"


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
    points = candidates(result)
    charts = fronts(points)
    content = {
        "result": result,
        "title": result.text("network") or "Run",
        "hardware": hardware_name(run),
        "data": dataset(result),
        "cards": cards(run),
        "ladder": ladder(result),
        "agreements": agreements(result),
        "notes": statements(result.at("notes")),
        "chip": run.chip,
        "plan": plan(run.chip) if run.chip else None,
        "parts": parts,
        "part_columns": part_columns(parts),
        "levels": level_table(result),
        "layers": layers,
        "layer_table": layer_table(run, names),
        "further": further(result),
        "trainings": trainings(run.logs, result),
        "noise": noise(result),
        "strengths": list(result.at("noise").rows()),
        "steps": steps(result),
        "recipe": yaml_text(Entry(without_nulls(result.at("recipe").content))),
        "fronts": charts,
        "candidates": lines(points, charts) if charts else [],
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
        "points": units.points,
        "times": lambda ratio: units.ratio(ratio, 1.0),
        "plain": units.plain,
        "spoken": units.spoken,
    }
    folder = files("crossloom.report") / "templates"
    templates.globals |= {
        "style": Markup((folder / "style.css").read_text("utf-8")),
        "script": Markup((folder / "script.js").read_text("utf-8")),
        "shown": shown,
        "tally": tally,
        "COSTS": COSTS,
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


def statements(part: Entry) -> list[str]:
    """A list of texts, an object of texts, or one text, as lines."""
    if isinstance(part.content, dict):
        return [f"{units.spoken(name)}: {entry.text()}" for name, entry in part.items()]
    return [row.text() for row in part.rows()] or ([part.text()] if part else [])


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


def without_nulls(content: Any) -> Any:
    """A JSON value without the fields that say nothing."""
    if isinstance(content, dict):
        return {key: without_nulls(value) for key, value in content.items() if value is not None}
    return [without_nulls(value) for value in content] if isinstance(content, list) else content


def environment(result: Entry) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of plain facts: seed and time, versions, machine."""

    def say(value: Any, seconds: bool = False) -> str:
        if seconds and isinstance(value, (int, float)) and not isinstance(value, bool):
            return f"{units.digits(value)} s"
        return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).strip(" \n.")

    run = [(key, result.text(key)) for key in ("name", "created", "seed", "parameters") if result.text(key)]
    groups = [("Run", run)] if run else []
    for key in ("environment", "versions", "timings"):
        facts = [(units.spoken(name), say(entry.content, key == "timings")) for name, entry in result.at(key).items()]
        if facts:
            groups.append((key.capitalize(), facts))
    return groups
