"""A line chart as one standalone SVG file, for documents: light and dark, values on hover, no script.

The HTML report has charts of its own that follow its layout; this is for figures that stand in a page of docs/.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from crossloom.errors import InputError
from crossloom.report.units import ticks

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 56, 64
COLOURS = (
    ("#2e6da8", "#5c9bd6"), ("#df8a2e", "#eba254"), ("#2b9779", "#47b795"), ("#c4502f", "#e07452"),
    ("#74b9e0", "#98d0f2"), ("#ad66a0", "#cf92c2"), ("#c7a824", "#dcc250"), ("#59636f", "#8e9aa8"),
)  # fmt: skip
"""The report's own, each for light and for dark."""


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: in the legend.
        points: (x, y), drawn in the order given.
        spread: half the height of an error bar at every point, or None.
        dashed: for baselines and others' figures.
        joined: whether a line joins the points.
        labels: a word beside every point, or None.
    """

    name: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[float] | None = None
    dashed: bool = False
    joined: bool = True
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: with the unit.
        logarithmic: or linear.
        low, high: ends; from the data if None.
    """

    label: str
    logarithmic: bool = False
    low: float | None = None
    high: float | None = None

    def span(self, values: Sequence[float]) -> tuple[float, float]:
        """The ends in use, with a little air where the data decide."""
        low, high = min(values), max(values)
        if self.logarithmic:
            air = (high / low) ** 0.05 if high > low else 2.0
            return self.low or low / air, self.high or high * air
        air = 0.06 * ((high - low) or abs(high) or 1.0)
        bottom = 0.0 if 0 <= low < 0.25 * high else low - air
        return (bottom if self.low is None else self.low), (high + air if self.high is None else self.high)

    def place(self, value: float, span: tuple[float, float]) -> float:
        """Where a value lies between the ends, 0 to 1."""
        if self.logarithmic:
            return math.log(value / span[0]) / math.log(span[1] / span[0])
        return (value - span[0]) / (span[1] - span[0])

    def ticks(self, span: tuple[float, float]) -> list[float]:
        """Round values within the ends."""
        if not self.logarithmic:
            return ticks(*span, 6)
        powers = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
        steps = (1, 2, 5) if math.log10(span[1] / span[0]) < 2.5 else (1,)
        return [v for n in powers for s in steps if span[0] <= (v := s * 10.0**n) <= span[1]]


def line_chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """The chart as SVG text.

    Args:
        title: above it.
        x: the axis across.
        y: the axis upwards.
        series: at most eight.

    Raises:
        InputError: no points, more series than colours, values that are not finite, or none above 0 on a log axis.
    """
    points = [p for s in series for p in s.points]
    if not points or len(series) > len(COLOURS):
        raise InputError("chart.series", len(series), f"1 to {len(COLOURS)} series with points")
    for axis, values in ((x, [p[0] for p in points]), (y, [p[1] for p in points])):
        if not all(map(math.isfinite, values)) or (axis.logarithmic and min(values) <= 0):
            raise InputError(f"chart: {axis.label}", min(values), "finite values, above 0 on a logarithmic axis")
    bars = [v for s in series for (_, v), d in zip(s.points, s.spread or (), strict=False) for v in (v - d, v + d)]
    across = x.span([p[0] for p in points])
    up = y.span([p[1] for p in points] + [v for v in bars if v > 0 or not y.logarithmic])

    def at(px: float, py: float) -> tuple[float, float]:
        return (
            round(LEFT + (WIDTH - LEFT - RIGHT) * x.place(px, across), 1),
            round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y.place(py, up), 1),
        )

    body = [f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>']
    for value in x.ticks(across):
        place = at(value, up[0])
        body.append(f'<line class="grid" x1="{place[0]}" x2="{place[0]}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        body.append(
            f'<text class="tick" x="{place[0]}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{said(value)}</text>'
        )
    for value in y.ticks(up):
        place = at(across[0], value)
        body.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place[1]}" y2="{place[1]}"/>')
        body.append(f'<text class="tick" x="{LEFT - 8}" y="{place[1] + 4}" text-anchor="end">{said(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    body.append(f'<text class="label" x="{middle[0]}" y="{HEIGHT - 22}" text-anchor="middle">{escape(x.label)}</text>')
    turned = f'transform="rotate(-90 18 {middle[1]})"'
    body.append(f'<text class="label" x="18" y="{middle[1]}" text-anchor="middle" {turned}>{escape(y.label)}</text>')
    right = LEFT
    for i, one in enumerate(series):
        body += drawn(one, i, [at(*p) for p in one.points], [
            None if one.spread is None else (at(px, py - d)[1], at(px, py + d)[1])
            for (px, py), d in zip(one.points, one.spread or [0.0] * len(one.points), strict=True)
        ])  # fmt: skip
        body.append(f'<circle class="dot c{i}" cx="{right + 5}" cy="40" r="4"/>')
        body.append(f'<text class="tick" x="{right + 14}" y="44">{escape(one.name)}</text>')
        right += 30 + round(6.4 * len(one.name))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            style(),
            *body,
            "</svg>\n",
        ]
    )


def drawn(
    one: Series, colour: int, places: list[tuple[float, float]], bars: Sequence[tuple[float, float] | None]
) -> list[str]:
    """A curve, its points and their error bars."""
    made = []
    if one.joined and len(places) > 1:
        path = " ".join(f"{px},{py}" for px, py in places)
        made.append(f'<polyline class="curve c{colour}{" dashed" if one.dashed else ""}" points="{path}"/>')
    for (px, py), bar, (vx, vy) in zip(places, bars, one.points, strict=True):
        if bar is not None:
            made.append(f'<line class="curve c{colour}" x1="{px}" x2="{px}" y1="{bar[0]}" y2="{bar[1]}"/>')
        words = f"<title>{escape(one.name)}: {said(vx)}, {said(vy)}</title>"
        made.append(f'<circle class="dot c{colour}" cx="{px}" cy="{py}" r="3.5">{words}</circle>')
    for (px, py), label in zip(places, one.labels or (), strict=False):
        made.append(f'<text class="tick" x="{px + 5:.1f}" y="{py - 5:.1f}">{escape(label)}</text>')
    return made


def style() -> str:
    """Colours for light and dark, and fonts."""
    light = " ".join(f".c{i} {{ color: {pair[0]} }}" for i, pair in enumerate(COLOURS))
    dark = " ".join(f".c{i} {{ color: {pair[1]} }}" for i, pair in enumerate(COLOURS))
    return f"""<style>
svg {{ background: #ffffff; font-family: system-ui, sans-serif; }}
text {{ fill: #1b2024; }} .tick, .label {{ fill: #5a646d; font-size: 12px; }}
.title {{ font-size: 15px; font-weight: 600; }} .grid {{ stroke: #e1e3e2; }}
.curve {{ fill: none; stroke: currentColor; stroke-width: 2; }} .dashed {{ stroke-dasharray: 6 4; }}
.dot {{ fill: currentColor; }} {light}
@media (prefers-color-scheme: dark) {{
svg {{ background: #1a1e21; }} text {{ fill: #e7eaec; }} .tick, .label {{ fill: #9aa5ae; }} .grid {{ stroke: #2d3338; }}
{dark}
}}
</style>"""


def said(value: float) -> str:
    """A number for an axis or a hover: four digits, no needless zeros, powers of ten where it is large or small."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"
