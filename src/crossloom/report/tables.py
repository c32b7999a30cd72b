"""The tables of numbers: cost by layer, by level, and what stands beside the headline."""

from __future__ import annotations

from dataclasses import dataclass

from crossloom.report import figures
from crossloom.report.run import Entry, Number, Run


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
