"""Figure of row rename: rows that the final layer stores against accuracy, as merged and after fine-tuning."""

from collections.abc import Callable
from pathlib import Path

from crossloom.codesign.irr import RENAME
from crossloom.codesign.results import load
from crossloom.report.chart import Axis, Series, line_chart

RESULTS = Path(__file__).resolve().parents[2] / "results" / "irr-lenet5.json"
PAPER = ("paper, 46 rows", (46, 96.66))
LINES = {"accuracy, integer, fine-tuned": "fine-tuned", "accuracy, integer, lossy": "merged, nothing trained"}


def figure() -> str:
    """Accuracy on the integer rung against stored rows."""
    rows = [row for row in load(RESULTS).rows if row.table == RENAME]
    series = [
        Series(name, sorted((float(row.row.split()[0]), row.ours) for row in rows if row.metric == metric))
        for metric, name in LINES.items()
    ]
    series.append(Series(PAPER[0], [PAPER[1]], labels=["paper"]))
    title = "LeNet-5, MNIST, ±1 weights: stored rows of the last layer (84 inputs)"
    return line_chart(title, Axis("stored rows"), Axis("accuracy, integer rung [%]"), series)


def pages() -> dict[str, Callable[[], str]]:
    """The figure by file."""
    return {"images/rename-accuracy.svg": figure}
