"""Figures of approximation-aware training: crossbars against accuracy, area, energy, latency, per order and n."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from crossloom.codesign.aat import ORDERS, SEARCHED, SWEEP
from crossloom.codesign.results import load
from crossloom.report.chart import Axis, Series, line_chart

RESULTS = Path(__file__).resolve().parents[2] / "results" / "aat-lenet5.json"
WHERE = "LeNet-5, MNIST"
FIGURES = {
    "accuracy": ("accuracy, integer", "accuracy, integer rung [%]", 1.0),
    "area": ("area", "area [mm²]", 1e6),
    "energy": ("energy an image", "energy an image [nJ]", 1e9),
    "latency": ("latency", "latency [µs]", 1e6),
}


def swept(order: str) -> list[str]:
    """Rows of the sweep for an order, as far as they are in the results."""
    rows = {row.row for row in load(RESULTS).rows if row.table == SWEEP}
    return sorted(row for row in rows if re.fullmatch(rf"{WHERE}, {order}, n = \d+", row))


def figure(name: str) -> str:
    """One quantity against crossbars; beside every point its n."""
    metric, label, scale = FIGURES[name]
    value = {(r.table, r.row, r.metric): r.ours for r in load(RESULTS).rows}

    def point(table: str, row: str) -> tuple[float, float]:
        return value[table, row, "crossbars"], scale * value[table, row, metric]

    series = []
    for order in ORDERS.values():
        points = sorted((*point(SWEEP, row), row.rpartition(" ")[2]) for row in swept(order))
        series.append(Series(f"{order}, n", [p[:2] for p in points], labels=[p[2] for p in points]))
    for word in ("dense", "plan"):
        series.append(Series(word, [point(SEARCHED, f"{WHERE}, {word}")], labels=[word]))
    title = f"{WHERE}: every layer approximated, by order and group"
    return line_chart(title, Axis("crossbars (128 × 128)"), Axis(label), series)


def pages() -> dict[str, Callable[[], str]]:
    """The figures by file, once the sweep is in the results."""
    if not all(swept(order) for order in ORDERS.values()):
        return {}
    return {f"images/approximation-{name}.svg": partial(figure, name) for name in FIGURES}
