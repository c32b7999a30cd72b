"""Curves as data: where every point lies, in percent of its frame. The templates only draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossloom.report.chart import Axis, said
from crossloom.report.figures import COLOURS
from crossloom.report.residuals import LEAST
from crossloom.report.run import Entry, Log, Number
from crossloom.report.units import digits, padded, percent, spoken, ticks

INSET = 3.0
"""Air between the frame and the data on both sides, in percent."""

Place = tuple[float, float]
Ticks = list[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """One curve: SVG coordinates in a 100 × 100 frame (y downwards), and the last value in words.

    Attributes:
        name: in the legend; empty for a curve that another one's entry speaks for.
        colour: index.
        dashed: for training and for references.
        points: (x, y, words).
        last: the last value in words.
        number: the last value, where it stands in `result.json`.
    """

    name: str
    colour: int
    dashed: bool
    points: list[tuple[float, float, str]]
    last: str
    number: Number | None = None


@dataclass(frozen=True)
class Chart:
    """Curves that share one frame.

    Attributes:
        title: above it.
        lines: the curves.
        x_ticks, y_ticks: (position in percent, text).
        x_label: below it.
        band: corners of an area behind the curves.
        dots: single values with their place, words and number.
    """

    title: str
    lines: list[Line]
    x_ticks: Ticks
    y_ticks: Ticks
    x_label: str = "epoch"
    band: Sequence[Place] = ()
    dots: Sequence[tuple[Place, str, Number]] = ()

    @property
    def words(self) -> str:
        """The chart for who does not see it."""
        ends = "; ".join(f"{line.name} ends at {line.last}" for line in self.lines if line.name)
        return f"{self.title} against {self.x_label}: {ends}"


class Frame:
    """Two axes of a chart.

    Args:
        x: the axis across.
        y: the axis upwards.
        xs, ys: what it must hold.
    """

    def __init__(self, x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> None:
        self.x, self.y = x, y
        self.across, self.up = x.span(xs), y.span(ys)

    def at(self, x: float, y: float) -> Place:
        """(across, down) in percent."""
        across = INSET + (100 - 2 * INSET) * self.x.place(x, self.across)
        return round(across, 3), round(100 - 100 * self.y.place(y, self.up), 3)

    def x_ticks(self, factor: float = 1.0) -> Ticks:
        """Round values across, in units of `factor`."""
        return [(self.at(v, self.up[0])[0], said(v / factor)) for v in marks(self.x, self.across)]

    def y_ticks(self, fractions: bool = False) -> Ticks:
        """Round values upwards, in percent if they are fractions."""
        found = marks(self.y, self.up)
        return [(self.at(self.across[0], v)[1], f"{100 * v:.4g} %" if fractions else said(v)) for v in found]


def marks(axis: Axis, span: tuple[float, float], most: int = 7) -> Sequence[float]:
    """Round values of an axis: at most so many, and at least two also where a logarithmic axis spans little."""
    values = axis.ticks(span)
    if len(values) < 2:
        values = [value for value in ticks(*span, 4) if value > 0 or not axis.logarithmic]
    return values[:: math.ceil(len(values) / most)] if values else values


def accuracy_axis(label: str, values: Sequence[float]) -> Axis:
    """An axis of fractions with air around the data, within 0 and 1."""
    low, high = padded(min(values), max(values), (0.0, 1.0))
    return Axis(label, low=low, high=high)


def curves(log: Log) -> list[Chart]:
    """The charts of one training log: all accuracies in one, all losses in one, any other column alone."""
    groups: dict[str, list[str]] = {}
    for name, values in log.series.items():
        if any(value is not None for value in values):
            title = next((word for word in ("accuracy", "loss") if name.endswith(word)), name)
            groups.setdefault(title, []).append(name)
    order = sorted(groups, key=lambda title: {"accuracy": 0, "loss": 1}.get(title, 2))
    return [_of_log(log, title, sorted(groups[title])) for title in order]


def _of_log(log: Log, title: str, names: list[str]) -> Chart:
    fractions = title == "accuracy"
    values = [value for name in names for value in log.series[name] if value is not None]
    low, high = padded(min(values), max(values), (0.0, 1.0) if fractions else (0.0, math.inf))
    first, last = min(log.epochs), max(log.epochs)
    air = 0.0 if last > first else 0.5
    frame = Frame(Axis("epoch", low=first - air, high=last + air), Axis(title, low=low, high=high), (first,), (low,))

    def say(value: float) -> str:
        return f"{percent(value)} %" if fractions else digits(value, 4)

    lines = []
    for i, name in enumerate(names):
        known = [(e, v) for e, v in zip(log.epochs, log.series[name], strict=True) if v is not None]
        spots = [(*frame.at(e, v), f"{spoken(name)}, epoch {e:g}: {say(v)}") for e, v in known]
        lines.append(Line(spoken(name), i % COLOURS, name.startswith("train"), spots, say(known[-1][1])))
    across = [(frame.at(e, low)[0], f"{e:g}") for e in ticks(first, last, 6) if e.is_integer()]
    up = [(frame.at(first, v)[1], f"{100 * v:.4g} %" if fractions else f"{v:.4g}") for v in ticks(low, high, 4)]
    return Chart(spoken(title), lines, across, up)


def noise(result: Entry) -> Chart | None:
    """Accuracy against the strength of programming variation, or None where fewer than two strengths were tried.

    The mean with a band of one standard deviation, every chip as a dot, and the crossbar rung, which knows no
    variation, as a dashed line.
    """
    rows = list(result.at("noise").rows())
    found = [(r, s, m) for r in rows if (s := r.number("sigma")) is not None and (m := r.number("mean")) is not None]
    if len(found) < 2:
        return None
    sigmas, stds = [s.value for _, s, _ in found], [n.value if (n := r.number("std")) else 0.0 for r, _, _ in found]
    ends = [m.value + sign * std for (_, _, m), std in zip(found, stds, strict=True) for sign in (-1, 1)]
    ideal = result.number("accuracy", "crossbar")
    chips = [
        (s.value, number)
        for row, s, _ in found
        for i, _ in enumerate(row.at("values").rows())
        if (number := row.number("values", i)) is not None
    ]
    ups = [min(max(e, 0.0), 1.0) for e in ends] + [n.value for _, n in chips] + ([ideal.value] if ideal else [])
    axis = Axis("σ of the programming variation", low=min(sigmas), high=max(sigmas))
    frame = Frame(axis, accuracy_axis("accuracy", ups), sigmas, ups)
    lines = [
        Line(
            "mean of the chips", 0, False,
            [(*frame.at(s.value, m.value), f"σ = {s.value:g}: {percent(m.value)} %") for _, s, m in found],
            f"{percent(found[-1][2].value)} % at σ = {sigmas[-1]:g}", found[-1][2],
        )
    ]  # fmt: skip
    if ideal:
        words = f"crossbar rung: {percent(ideal.value)} %"
        points = [(*frame.at(s, ideal.value), words) for s in (sigmas[0], sigmas[-1])]
        lines.append(Line("crossbar rung, no variation", 7, True, points, f"{percent(ideal.value)} %", ideal))
    edge = [frame.at(s, e) for s, e in zip(sigmas, ends[1::2], strict=True)]
    edge += reversed([frame.at(s, e) for s, e in zip(sigmas, ends[0::2], strict=True)])
    dots = [(frame.at(s, n.value), f"one chip, σ = {s:g}: {percent(n.value)} %", n) for s, n in chips]
    return Chart(
        "accuracy on the analog rung", lines, frame.x_ticks(), frame.y_ticks(True), axis.label,
        [(x, min(max(y, 0.0), 100.0)) for x, y in edge], dots,
    )  # fmt: skip


def residuals(history: Entry) -> list[Chart]:
    """The primal and the dual residuals of ADMM over its updates, one curve a set and layer; [] where there are none.

    Beyond eight curves the colour says the set, and the legend names sets.
    """
    charts = []
    for kind in ("primal", "dual"):
        of: dict[tuple[str, str], list[tuple[Number, Number]]] = {}
        for row in history.rows():
            update, value = row.number("update"), row.number(kind)
            if update is not None and value is not None:
                of.setdefault((row.text("layer"), row.text("constraint")), []).append((update, value))
        if not of:
            continue
        updates = [u.value for pairs in of.values() for u, _ in pairs]
        values = [max(v.value, LEAST) for pairs in of.values() for _, v in pairs]
        frame = Frame(
            Axis("update", low=min(updates), high=max(updates) + (max(updates) == min(updates))),
            Axis(kind, logarithmic=True), updates, values,
        )  # fmt: skip
        sets = list(dict.fromkeys(one for _, one in of))
        many = len(of) > COLOURS
        lines, named = [], set()
        for i, ((layer, one), pairs) in enumerate(of.items()):
            name = ", ".join(word for word in (layer, one) if word)
            spots = [
                (*frame.at(u.value, max(v.value, LEAST)), f"{name}, update {u.value:g}: {said(v.value)}")
                for u, v in pairs
            ]
            entry, colour = ((one or "every layer"), sets.index(one)) if many else (name, i)
            ends = [p[-1][1].value for (_, other), p in of.items() if other == one]
            last = f"{said(min(ends))} … {said(max(ends))}" if many else said(pairs[-1][1].value)
            shown = "" if entry in named else entry
            named.add(entry)
            lines.append(Line(shown, colour % COLOURS, False, spots, last, pairs[-1][1]))
        whole = [(at, text) for at, text in frame.x_ticks() if float(text).is_integer()]
        charts.append(Chart(f"{kind} residual / ‖W‖", lines, whole, frame.y_ticks(), "update"))
    return charts


@dataclass(frozen=True)
class Training:
    """The curves of one training.

    Attributes:
        title: for people.
        charts: of its log, and of its ADMM residuals.
    """

    title: str
    charts: list[Chart]


def trainings(logs: Sequence[Log], result: Entry) -> list[Training]:
    """Every training of a run in the order in which it happened: the float one, the recipe's steps, then others.

    A step's log lies in `steps/<number>-<name>`. Residuals stand with their step, also where it has no log.
    """
    drawn = {log.title: charts for log in logs if (charts := curves(log))}
    found = [Training("", drawn.pop(""))] if "" in drawn else []
    if "float" in drawn:
        found.append(Training("Float training", drawn.pop("float")))
    for i, row in enumerate(result.at("steps").rows()):
        mine = [title for title in drawn if title.startswith(f"steps/{i + 1}-")]
        charts = [chart for title in mine for chart in drawn.pop(title)]
        charts += [chart for _, told in row.at("figures").items() for chart in residuals(told.at("residuals"))]
        if charts:
            found.append(Training(f"Step {i + 1}: {row.text('name')}", charts))
    return found + [Training(sentence(title), charts) for title, charts in drawn.items()]


def sentence(title: str) -> str:
    """A folder's name for people: `fine_tune` is `Fine tune`."""
    return spoken(title[:1].upper() + title[1:])
