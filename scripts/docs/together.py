"""Figure of the methods alone and together: accuracy of chips against programming variation."""

import re
from collections.abc import Callable
from pathlib import Path

from crossloom.codesign.results import load
from crossloom.codesign.together import RECIPES
from crossloom.report.chart import Axis, Series, line_chart

RESULTS = Path(__file__).resolve().parents[2] / "results" / "together-lenet5-caffe.json"
NAMES = {"aat": "AAT", "irr": "IRR", "crimp": "CRIMP", "admm": "ADMM", "all-four": "all four"}


def figure() -> str:
    """One line a recipe, in the legend with its crossbars."""
    rows, series = load(RESULTS).rows, []
    for name in RECIPES:
        mine = [row for row in rows if row.row == name]
        arrays = next(int(row.ours) for row in mine if row.metric == "crossbars")
        points = [
            (float(match[1]), row.ours)
            for row in mine
            if (match := re.fullmatch(r"accuracy, analog, programming variation ([\d.]+)", row.metric))
        ]
        series.append(Series(f"{NAMES[name]}, {arrays} arrays", sorted(points)))
    title = "LeNet-5, MNIST: mean accuracy of 10 chips"
    return line_chart(title, Axis("ε of programming variation"), Axis("accuracy, analog rung [%]"), series)


def pages() -> dict[str, Callable[[], str]]:
    """The figure by file."""
    return {"images/together-noise.svg": figure} if RESULTS.is_file() else {}
