"""Accuracy on the fidelity ladder: what each rung came to, how sure that is, and how far chips differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crossloom.report.run import Entry, Number
from crossloom.report.units import count, percent, points, ticks

RUNGS = {
    "float": "the network as trained",
    "integer": "what a perfect chip computes",
    "crossbar": "slices, digits and converters, bit-exact",
    "analog": "variation, faults, noise and drift of the devices",
    "parasitic": "resistance of wires and drivers",
    "spice": "one tile as a netlist",
}
"""The fidelity ladder, and what each rung adds."""


@dataclass(frozen=True)
class Rung:
    """One accuracy, placed on the ladder's scale.

    Attributes:
        name, adds: the rung and what it adds.
        number: the accuracy.
        drop: difference from the float rung in percentage points, as text; empty without a float rung or for itself.
        images: how many were tried, or None.
        at, low, high: position and, where known, ends of the whisker, in percent.
        interval: the whisker in words: the standard deviation where chips differ, else the 95 % interval of the images.
        spread: standard deviation from chip to chip, or None.
        chips: (position, accuracy) of every chip.
    """

    name: str
    adds: str
    number: Number
    drop: str
    images: Number | None
    at: float
    low: float | None
    high: float | None
    interval: str
    spread: Number | None = None
    chips: tuple[tuple[float, Number], ...] = ()


@dataclass(frozen=True)
class Ladder:
    """The accuracy ladder: rungs, and the scale's ticks as (position in percent, text)."""

    rungs: list[Rung]
    ticks: list[tuple[float, str]]


def wilson(fraction: float, images: float) -> tuple[float, float]:
    """95 % interval of a fraction measured on so many images (Wilson, JASA 22, 1927)."""
    z = 1.959964
    middle = fraction + z * z / (2 * images)
    half = z * math.sqrt(fraction * (1 - fraction) / images + z * z / (4 * images * images))
    scale = 1 + z * z / images
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def accuracies(result: Entry) -> dict[str, tuple[Number, Number | None]]:
    """(accuracy, images tried) per rung in the ladder's order; an entry is a fraction or {value, images}."""
    part = result.at("accuracy")
    known = list(RUNGS)
    found: dict[str, tuple[Number, Number | None]] = {}
    for name, entry in sorted(part.items(), key=lambda item: known.index(item[0]) if item[0] in known else len(known)):
        nested = isinstance(entry.content, dict)
        value = entry.number("value") if nested else part.number(name)
        if value is not None:
            images = entry.number("images") if nested else result.number("images", name)
            found[name] = (value, images)
    return found


def ladder(result: Entry) -> Ladder | None:
    """The accuracy ladder, or None where no accuracy was measured."""
    found = accuracies(result)
    if not found:
        return None
    chips = {name: spread(result, name) for name in found}
    ends: dict[str, tuple[float, float] | None] = {}
    for name, (value, images) in found.items():
        std, each = chips[name]
        ends[name] = wilson(value.value, images.value) if images and images.value > 0 else None
        if std is not None:
            ends[name] = (value.value - std.value, value.value + std.value)
    everything = [v.value for v, _ in found.values()] + [end for pair in ends.values() if pair for end in pair]
    everything += [n.value for _, each in chips.values() for n in each]
    middle, span = (max(everything) + min(everything)) / 2, max(max(everything) - min(everything), 0.004)
    low, high = middle - 0.62 * span, middle + 0.62 * span

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 3)

    rungs = []
    for name, (value, images) in found.items():
        pair, (std, each) = ends[name], chips[name]
        drop = points(value.value - found["float"][0].value) if name != "float" and "float" in found else ""
        interval = f"95 % interval {percent(pair[0])} … {percent(pair[1])} %" if pair else ""
        if std is not None:
            interval = f"standard deviation {percent(std.value)} points over {len(each)} chips"
        left, right = (place(pair[0]), place(pair[1])) if pair else (None, None)
        dots = tuple((place(n.value), n) for n in each)
        at, adds = place(value.value), RUNGS.get(name, "")
        rungs.append(Rung(name, adds, value, drop, images, at, left, right, interval, std, dots))
    marks = [value for value in ticks(low, high, 4) if 0 <= value <= 1]
    return Ladder(rungs, [(place(value), f"{100 * value:.4g} %") for value in marks])


def spread(result: Entry, rung: str) -> tuple[Number | None, list[Number]]:
    """(standard deviation, accuracy of every chip) of a rung on which chips differ; (None, []) with fewer than two."""
    part = result.at("chips", rung)
    values = part.at("values")
    each = [number for i, _ in enumerate(values.rows()) if (number := values.number(i)) is not None]
    return (part.number("std"), each) if len(each) > 1 else (None, [])


def agreements(result: Entry) -> list[str]:
    """How far neighbouring rungs agree, one sentence each."""
    found = []
    for name, entry in result.at("agreement").items():
        rungs, images, same = name.replace("=", " and "), entry.number("images"), entry.number("same_class")
        tried = f"{count(images.value)} images" if images else ""
        if entry.at("equal").content is True:
            found.append(f"{rungs}: equal, logit for logit{tried and f', on all {tried}'}")
        elif same:
            found.append(f"{rungs}: the same class for {percent(same.value)} %{tried and f' of {tried}'}")
    return found
