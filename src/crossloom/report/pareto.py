"""Accuracy against cost: the points of a run or of several runs, which of them nothing beats, and where all lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from crossloom.report.chart import Axis
from crossloom.report.plots import Frame, Place, Ticks, accuracy_axis
from crossloom.report.run import Entry, Number
from crossloom.report.units import count, percent, points, prefixed, quantity, ratio

COSTS = (
    ("area", "area_m2", "m^2"),
    ("energy", "energy_j", "J"),
    ("crossbars", "crossbars", ""),
    ("latency", "latency_s", "s"),
)
"""What a point costs: its name, its key in `result.json`, its unit."""
WIDE = 8.0
"""A cost that spans more than this factor is drawn on a logarithmic axis."""
WIDTH, HEIGHT, LETTER, PIN = 960.0, 320.0, 7.4, 24.0
"""Size in pixels of a chart on a desk, of a letter and of a pin, by which names are placed beside pins."""


@dataclass(frozen=True)
class Point:
    """One network on one chip.

    Attributes:
        name: of the candidate or run.
        accuracy: fraction.
        costs: by name, as far as known.
        spread: standard deviation of the accuracy from chip to chip, or None.
        images: test images, or None.
    """

    name: str
    accuracy: Number
    costs: dict[str, Number] = field(default_factory=dict)
    spread: Number | None = None
    images: Number | None = None

    def dominates(self, other: Point, costs: Sequence[str]) -> bool:
        """Whether this point is nowhere worse than the other and somewhere better."""
        pairs = [(self.costs[c].value, other.costs[c].value) for c in costs if c in self.costs and c in other.costs]
        pairs.append((-self.accuracy.value, -other.accuracy.value))
        return all(mine <= its for mine, its in pairs) and any(mine < its for mine, its in pairs)


@dataclass(frozen=True)
class Pin:
    """A point on the chart.

    Attributes:
        number: of the point, from 1.
        name: of the point.
        label: what the pin says: its number, or those of all points here if it lies on top of them.
        tag: what stands beside it: its name, or the first and the last of those below it.
        at: (across, down) in percent.
        side: where the name stands: above, left, right, below, or empty where it has no room.
        words: the point in words.
        front: whether it is on the front.
        x, y: its cost and its accuracy.
    """

    number: int
    name: str
    label: str
    tag: str
    at: Place
    side: str
    words: str
    front: bool
    x: Number
    y: Number


@dataclass(frozen=True)
class Front:
    """One chart: accuracy against one cost.

    Attributes:
        cost: its name.
        label: of the axis, with the unit.
        pins: all points.
        stairs: corners of the line that no point is beyond.
        x_ticks, y_ticks: (position in percent, text).
        logarithmic: the axis across.
    """

    cost: str
    label: str
    pins: list[Pin]
    stairs: list[Place]
    x_ticks: Ticks
    y_ticks: Ticks
    logarithmic: bool

    @property
    def words(self) -> str:
        """The chart for who does not see it."""
        ahead = ", ".join(pin.name for pin in self.pins if pin.front)
        return f"accuracy against {self.cost}: {len(self.pins)} points; on the front: {ahead}"


def candidates(result: Entry) -> list[Point]:
    """The run's candidates, the dense network first."""
    found = []
    for row in result.at("candidates").rows():
        accuracy = row.number("accuracy")
        if accuracy is not None:
            costs = {name: number for name, key, _ in COSTS if (number := row.number(key)) is not None}
            found.append(Point(row.text("name"), accuracy, costs, images=row.number("images")))
    return found


def fronts(of: Sequence[Point]) -> list[Front]:
    """A chart for every cost that at least two points have."""
    found = []
    for name, _, unit in COSTS:
        known = [(i, point, point.costs[name]) for i, point in enumerate(of) if name in point.costs]
        if len(known) > 1:
            found.append(_front(name, unit, known))
    return found


def best(known: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points (cost, accuracy) no other one dominates."""
    return [
        not any(c <= cost and a >= accuracy and (c < cost or a > accuracy) for c, a in known)
        for cost, accuracy in known
    ]


def _front(name: str, unit: str, known: Sequence[tuple[int, Point, Number]]) -> Front:
    xs, ys = [x.value for _, _, x in known], [p.accuracy.value for _, p, _ in known]
    spreads = [p.spread.value if p.spread else 0.0 for _, p, _ in known]
    ends = [min(max(y + sign * s, 0.0), 1.0) for y, s in zip(ys, spreads, strict=True) for sign in (-1, 1)]
    logarithmic = min(xs) > 0 and max(xs) > WIDE * min(xs)
    factor, label = prefixed(max(xs), unit) if unit and max(xs) else (1.0, "arrays" if name == "crossbars" else unit)
    axis = Axis(f"{name}, {label}", logarithmic=logarithmic)
    frame = Frame(axis, accuracy_axis("accuracy", ends), xs, ends)
    ahead = best(list(zip(xs, ys, strict=True)))
    places = [frame.at(x, y) for x, y in zip(xs, ys, strict=True)]
    heaps = stacked(places)
    top = {heap[-1]: heap for heap in heaps}
    names = [point.name for _, point, _ in known]
    tags = {k: names[k] if len(heap) == 1 else f"{names[heap[0]]} … {names[k]}" for k, heap in top.items()}
    sides = dict(zip(top, beside([places[k] for k in top], list(tags.values())), strict=True))
    pins = []
    for k, (i, point, x) in enumerate(known):
        words = f"{point.name}: {percent(point.accuracy.value)} %"
        words += f" ± {percent(point.spread.value)}" if point.spread else ""
        words += f", {said_cost(name, unit, x.value)}"
        label = numbered([known[m][0] + 1 for m in top.get(k, [k])])
        side, tag = sides.get(k, ""), tags.get(k, point.name)
        pins.append(Pin(i + 1, point.name, label, tag, places[k], side, words, ahead[k], x, point.accuracy))
    corners = sorted({at for at, front in zip(places, ahead, strict=True) if front})
    stairs: list[Place] = [(corners[0][0], 100.0)]
    for across, down in corners:
        stairs += [(across, stairs[-1][1]), (across, down)]
    stairs.append((100.0, stairs[-1][1]))
    return Front(name, axis.label, pins, stairs[1:], frame.x_ticks(factor), frame.y_ticks(True), logarithmic)


def stacked(places: Sequence[Place]) -> list[list[int]]:
    """Pins that would hide each other, heap by heap; the last of a heap lies on top."""
    heaps: list[list[int]] = []
    for k, (x, y) in enumerate(places):
        for heap in heaps:
            across, down = x - places[heap[0]][0], y - places[heap[0]][1]
            if math.hypot(across * WIDTH / 100, down * HEIGHT / 100) < 0.6 * PIN:
                heap.append(k)
                break
        else:
            heaps.append([k])
    return heaps


def numbered(numbers: Sequence[int]) -> str:
    """Numbers in short: 3, or 4–8, or 1, 4."""
    run = list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}–{numbers[-1]}" if len(numbers) > 2 and list(numbers) == run else ", ".join(map(str, numbers))


def said_cost(name: str, unit: str, value: float) -> str:
    """A cost in words."""
    return " ".join(quantity(value, unit)) if unit else f"{count(value)} {name}"


def beside(places: Sequence[Place], names: Sequence[str]) -> list[str]:
    """Where each name stands beside its pin so that it covers no pin and no other name; empty where it finds no room.

    Above and on the left come first: the line of the front runs to the right of its points and below them.

    Args:
        places: of the pins, in percent of the frame.
        names: theirs.
    """
    centres = [(x * WIDTH / 100, y * HEIGHT / 100) for x, y in places]
    taken = [(x - PIN / 2, y - PIN / 2, x + PIN / 2, y + PIN / 2) for x, y in centres]
    found = []
    for (x, y), name in zip(centres, names, strict=True):
        wide, near = LETTER * len(name), PIN / 2 + 4
        boxes = {
            "above": (x - wide / 2, y - near - 18, x + wide / 2, y - near),
            "left": (x - near - wide, y - 9, x - near, y + 9),
            "right": (x + near, y - 9, x + near + wide, y + 9),
            "below": (x - wide / 2, y + near, x + wide / 2, y + near + 18),
        }
        free = [
            side
            for side, (left, top, right, bottom) in boxes.items()
            if left >= 0 and right <= WIDTH and top >= -20 and bottom <= HEIGHT
            and not any(left < x1 and right > x0 and top < y1 and bottom > y0 for x0, y0, x1, y1 in taken)
        ]  # fmt: skip
        found.append(free[0] if free else "")
        taken += [boxes[free[0]]] if free else []
    return found


@dataclass(frozen=True)
class Line:
    """A point in numbers beside the first one.

    Attributes:
        number: of its pin.
        point: the figures.
        drop: accuracy less the first one's in percentage points; empty for the first.
        ratios: cost over the first one's, by cost; empty for the first and where it is unknown.
        front: costs on whose front the point lies.
    """

    number: int
    point: Point
    drop: str
    ratios: dict[str, str]
    front: list[str]


def lines(of: Sequence[Point], charts: Sequence[Front]) -> list[Line]:
    """The table under the charts."""
    found = []
    for i, point in enumerate(of):
        base = of[0]
        ratios = {
            name: ratio(number.value, base.costs[name].value)
            for name, number in point.costs.items()
            if i and name in base.costs
        }
        front = [chart.cost for chart in charts if any(pin.number == i + 1 and pin.front for pin in chart.pins)]
        drop = points(point.accuracy.value - base.accuracy.value) if i else ""
        found.append(Line(i + 1, point, drop, ratios, front))
    return found
