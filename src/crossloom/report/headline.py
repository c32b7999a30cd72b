"""The headline cards: accuracy with its spread, and what the chip costs against the dense network on it."""

from __future__ import annotations

from dataclasses import dataclass

from crossloom.report import units
from crossloom.report.accuracy import accuracies, spread
from crossloom.report.run import Number, Run


@dataclass(frozen=True)
class Other:
    """The accuracy of another rung, with its standard deviation where chips differ."""

    rung: str
    number: Number
    spread: Number | None


@dataclass(frozen=True)
class Card:
    """One headline figure.

    Attributes:
        label: what it is.
        number: the figure.
        unit: its SI unit; `%` for a fraction, empty for a count.
        note: one line below.
        others: accuracies of the other rungs.
        spread: standard deviation from chip to chip, or None.
        dense: the dense network's figure on the same chip, or None.
    """

    label: str
    number: Number
    unit: str
    note: str = ""
    others: tuple[Other, ...] = ()
    spread: Number | None = None
    dense: Number | None = None

    @property
    def ratio(self) -> str:
        """How many times the dense network's figure; empty without one."""
        return units.ratio(self.number.value, self.dense.value) if self.dense else ""

    @property
    def share(self) -> float:
        """The same in percent, at most 100, for the bar."""
        return min(100 * self.number.value / self.dense.value, 100.0) if self.dense and self.dense.value else 100.0


def cards(run: Run) -> list[Card]:
    """The headline figures that the result has."""
    result, found = run.result, []
    ladder = accuracies(result)
    if ladder:
        rung, (value, images) = list(ladder.items())[-1]
        note = f"of {units.count(images.value)} images" if images else ""
        if "float" in ladder and rung != "float":
            note = f"{units.points(value.value - ladder['float'][0].value)} points from float"
        std, chips = spread(result, rung)
        if chips:
            note += f"{note and ', '}mean of {len(chips)} chips"
        others = tuple(
            Other(name, number, spread(result, name)[0]) for name, (number, _) in ladder.items() if name != rung
        )
        found.append(Card(f"Accuracy, {rung} rung", value, "%", note, others, std))
    chip = run.chip.mapping if run.chip else None
    dense = result.at("candidates", 0)
    changed = len(list(result.at("candidates").rows())) > 1
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
            found.append(Card(label, number, unit, note, dense=dense.number(*keys) if changed else None))
    return found


def tally(count: int, noun: str) -> str:
    """A count with its noun: 1 tile, 2 tiles."""
    return f"{units.count(count)} {noun}{'' if count == 1 else 's'}"
