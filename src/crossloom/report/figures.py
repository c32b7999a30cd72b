"""The charts as data: where every bar, dot and line lies, in percent of its frame. The templates only draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crossloom.report.run import Entry, Log, Number
from crossloom.report.units import count, digits, percent, points, quantity, ticks

RUNGS = {
    "float": "the network as trained",
    "integer": "what a perfect chip computes",
    "crossbar": "slices, digits and converters, bit-exact",
    "analog": "variation, faults, noise and drift of the devices",
    "parasitic": "resistance of wires and drivers",
    "spice": "one tile as a netlist",
}
"""The fidelity ladder, and what each rung adds."""
QUANTITIES = (("energy", "energy_j", "J"), ("latency", "latency_s", "s"), ("area", "area_m2", "m^2"))
"""What a layer costs: its name, its key in `result.json`, its unit."""
PART_QUANTITIES = (("energy", "energy_j", "J"), ("leakage", "leakage_j", "J"), ("area", "area_m2", "m^2"))
"""What a component costs; `energy` is the dynamic part."""
COLOURS = 8
"""Colours for layers; more layers begin again."""
LEAKAGE, OTHERS, PLAIN = 7, 8, 9
"""Colour of leakage, of the components beyond the first seven, which are drawn as one, and of a bar of one part."""


@dataclass(frozen=True)
class Rung:
    """One accuracy, placed on the ladder's scale.

    Attributes:
        name, adds: the rung and what it adds.
        number: the accuracy.
        drop: difference from the float rung in percentage points, as text; empty without a float rung or for itself.
        images: how many were tried, or None.
        at, low, high: position and, if the number of images is known, ends of the 95 % interval, in percent.
        interval: the interval in words.
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
    ends = {name: wilson(v.value, n.value) if n and n.value > 0 else None for name, (v, n) in found.items()}
    everything = [v.value for v, _ in found.values()] + [end for pair in ends.values() if pair for end in pair]
    middle, span = (max(everything) + min(everything)) / 2, max(max(everything) - min(everything), 0.004)
    low, high = middle - 0.62 * span, middle + 0.62 * span

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 3)

    rungs = []
    for name, (value, images) in found.items():
        pair = ends[name]
        drop = points(value.value - found["float"][0].value) if name != "float" and "float" in found else ""
        interval = f"95 % interval {percent(pair[0])} … {percent(pair[1])} %" if pair else ""
        left, right = (place(pair[0]), place(pair[1])) if pair else (None, None)
        adds = RUNGS.get(name, "")
        rungs.append(Rung(name, adds, value, drop, images, place(value.value), left, right, interval))
    marks = [value for value in ticks(low, high, 4) if 0 <= value <= 1]
    return Ladder(rungs, [(place(value), f"{100 * value:.4g} %") for value in marks])


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


def spoken(name: str) -> str:
    """A component's name for people: `adc_conversion` is `adc conversion`."""
    return name.replace("_", " ")


@dataclass(frozen=True)
class Line:
    """One curve: SVG coordinates in a 100 × 100 frame (y downwards), and the last value in words."""

    name: str
    colour: int
    dashed: bool
    points: list[tuple[float, float, str]]
    last: str


@dataclass(frozen=True)
class Chart:
    """Curves that share one frame; ticks as (position in percent, text)."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def curves(log: Log) -> list[Chart]:
    """The charts of one training log: all accuracies in one, all losses in one, any other column alone."""
    groups: dict[str, list[str]] = {}
    for name, values in log.series.items():
        if any(value is not None for value in values):
            title = next((word for word in ("accuracy", "loss") if name.endswith(word)), name)
            groups.setdefault(title, []).append(name)
    order = sorted(groups, key=lambda title: {"accuracy": 0, "loss": 1}.get(title, 2))
    return [_chart(log, title, sorted(groups[title])) for title in order]


def _chart(log: Log, title: str, names: list[str]) -> Chart:
    fractions = title == "accuracy"
    values = [value for name in names for value in log.series[name] if value is not None]
    low, high = padded(min(values), max(values), (0.0, 1.0) if fractions else (0.0, math.inf))
    first, last = min(log.epochs), max(log.epochs)

    def at(epoch: float, value: float) -> tuple[float, float]:
        across = 50.0 if last == first else 2 + 96 * (epoch - first) / (last - first)
        return round(across, 3), round(100 - 100 * (value - low) / (high - low), 3)

    def say(value: float) -> str:
        return f"{percent(value)} %" if fractions else digits(value, 4)

    lines = []
    for i, name in enumerate(names):
        known = [(e, v) for e, v in zip(log.epochs, log.series[name], strict=True) if v is not None]
        spots = [(*at(e, v), f"{spoken(name)}, epoch {e:g}: {say(v)}") for e, v in known]
        lines.append(Line(spoken(name), i % COLOURS, name.startswith("train"), spots, say(known[-1][1])))
    across = [e for e in ticks(first, last, 6) if e.is_integer()]
    up = [(at(first, v)[1], f"{100 * v:.4g} %" if fractions else f"{v:.4g}") for v in ticks(low, high, 4)]
    return Chart(title, lines, [(at(e, low)[0], f"{e:g}") for e in across], up)


def padded(low: float, high: float, limits: tuple[float, float]) -> tuple[float, float]:
    """A range with a little air on both sides, inside `limits` where the data are."""
    span = (high - low) or abs(high) or 1.0
    bottom, top = low - 0.08 * span, high + 0.08 * span
    if low >= limits[0]:
        bottom = max(bottom, limits[0])
    if high <= limits[1]:
        top = min(top, limits[1])
    return bottom, top if top > bottom else bottom + 1.0
