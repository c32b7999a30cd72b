"""Cost by layer and by component as bars: where every part lies, in percent. The templates only draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crossloom.report.run import Entry, Number
from crossloom.report.units import quantity, spoken

QUANTITIES = (("energy", "energy_j", "J"), ("latency", "latency_s", "s"), ("area", "area_m2", "m^2"))
"""What a layer costs: its name, its key in `result.json`, its unit."""
PART_QUANTITIES = (("energy", "energy_j", "J"), ("leakage", "leakage_j", "J"), ("area", "area_m2", "m^2"))
"""What a component costs; `energy` is the dynamic part."""
COLOURS = 8
"""Colours for layers and for curves; more of them begin again."""
LEAKAGE, OTHERS, PLAIN = 7, 8, 9
"""Colour of leakage, of the components beyond the first seven, which are drawn as one, and of a bar of one part."""


@dataclass(frozen=True)
class Segment:
    """One coloured part of a bar: left end and length in percent of the frame, and what it is in words."""

    colour: int
    left: float
    length: float
    label: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Bar:
    """One quantity of one layer.

    Attributes:
        quantity: energy, latency or area.
        unit: its SI unit.
        like: the largest of the chart, whose unit the others share.
        number: the total.
        segments: its parts by component, or one part.
    """

    quantity: str
    unit: str
    like: float
    number: Number
    segments: list[Segment]


@dataclass(frozen=True)
class Part:
    """One component of the whole chip.

    Attributes:
        name: of the component.
        colour: index; `OTHERS` for those drawn together, which are small in the bars of every quantity.
        level: of the hierarchy, or empty.
        numbers: energy, leakage and area as far as known and not zero, each with its share in percent: energy and
            leakage of their sum over all components, area of the area of all components.
    """

    name: str
    colour: int
    level: str
    numbers: dict[str, tuple[Number, float]]


@dataclass(frozen=True)
class Layers:
    """Cost per layer: names, per layer one bar for each of `quantities`, and which of those are cut by component."""

    names: list[str]
    bars: list[list[Bar | None]]
    quantities: list[str]
    stacked: list[str]


def parts(result: Entry) -> list[Part]:
    """The chip's components, costliest in energy first (then in area)."""
    found: dict[str, dict[str, Number]] = {}
    for name, entry in result.at("cost", "components").items():
        numbers = {title: entry.number(key) for title, key, _ in PART_QUANTITIES}
        found[name] = {title: number for title, number in numbers.items() if number is not None and number.value}
    found = {name: numbers for name, numbers in found.items() if numbers}

    def spent(name: str, *titles: str) -> float:
        return math.fsum(found[name][title].value for title in titles if title in found[name])

    whole = {
        "energy": math.fsum(spent(name, "energy", "leakage") for name in found),
        "area": math.fsum(spent(name, "area") for name in found),
    }
    whole["leakage"] = whole["energy"]
    ordered = sorted(found, key=lambda name: (-spent(name, "energy", "leakage"), -spent(name, "area")))
    drawn = layer_shares(result)
    ranked = sorted(ordered, key=lambda name: -drawn.get(name, 0.0))[:LEAKAGE]
    colours = {name: i for i, name in enumerate(name for name in ordered if name in ranked)}
    return [
        Part(
            name, colours.get(name, OTHERS), result.text("cost", "components", name, "level"),
            {title: (number, 100 * number.value / whole[title]) for title, number in found[name].items()},
        )
        for name in ordered
    ]  # fmt: skip


def layer_shares(result: Entry) -> dict[str, float]:
    """The largest share that each component has of any quantity that the layers tell by component, 0 … 1."""
    shares: dict[str, float] = {}
    for title, _, _ in QUANTITIES:
        sums: dict[str, float] = {}
        for row in result.at("cost", "layers").rows():
            for name, number in row.at(f"{title}_by_component").numbers():
                sums[name] = sums.get(name, 0.0) + number.value
        whole = math.fsum(sums.values())
        for name, value in sums.items():
            shares[name] = max(shares.get(name, 0.0), value / whole if whole else 0.0)
    return shares


def layers(result: Entry, names: list[str], colours: dict[str, int]) -> Layers | None:
    """Bars of every layer that costs something, or None where the cost is not told by layer.

    Args:
        result: the whole result.
        names: what to call each entry of `cost.layers`.
        colours: colour by component; components not named share the last.
    """
    rows = list(result.at("cost", "layers").rows())
    shown = [(t, key, unit) for t, key, unit in QUANTITIES if any(row.number(key) for row in rows)]
    if not rows or not shown:
        return None
    most = {key: max((n.value for row in rows if (n := row.number(key))), default=0.0) for _, key, _ in shown}
    bars: list[list[Bar | None]] = []
    stacked: set[str] = set()
    for row in rows:
        line: list[Bar | None] = []
        for title, key, unit in shown:
            number = row.number(key)
            scale = 100 / most[key] if most[key] else 0.0
            by_part = row.at(f"{title}_by_component").numbers()
            if by_part:
                stacked.add(title)
                if title == "energy" and (leakage := row.number("leakage_j")):
                    by_part.append(("leakage", leakage))
            cut = segments(number, by_part, unit, scale, colours) if number and number.value else []
            line.append(Bar(title, unit, most[key], number, cut) if number and cut else None)
        bars.append(line)
    kept = [i for i, line in enumerate(bars) if any(line)]
    titles = [title for title, _, _ in shown]
    return Layers([names[i] for i in kept], [bars[i] for i in kept], titles, [t for t in titles if t in stacked])


def segments(
    total: Number, by_part: list[tuple[str, Number]], unit: str, scale: float, colours: dict[str, int]
) -> list[Segment]:
    """A bar cut by component in the order of the colours; components that share the last colour become one part."""
    if not by_part:
        return [Segment(PLAIN, 0.0, round(total.value * scale, 3), " ".join(quantity(total.value, unit)), (total,))]
    groups: dict[int, list[tuple[str, Number]]] = {}
    for name, number in by_part:
        if number.value > 0:
            groups.setdefault(colours.get(name, OTHERS), []).append((name, number))
    found, left = [], 0.0
    for colour in sorted(groups):
        length = sum(number.value for _, number in groups[colour]) * scale
        label = ", ".join(
            f"{spoken(name)} {' '.join(quantity(n.value, unit))}"
            + (f" ({100 * n.value / total.value:.0f} %)" if total.value else "")
            for name, n in sorted(groups[colour], key=lambda item: -item[1].value)
        )
        numbers = tuple(number for _, number in groups[colour])
        found.append(Segment(colour, round(left, 3), round(length, 3), label, numbers))
        left += length
    return found
