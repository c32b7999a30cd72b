"""Figure of CRIMP: accuracy against programming variation, hardened for it and not."""

import re
from collections.abc import Callable
from pathlib import Path

from crossloom.codesign.crimp_rows import CURVE
from crossloom.codesign.results import Row, load
from crossloom.report.chart import Axis, Series, line_chart

RESULTS = Path(__file__).resolve().parents[2] / "results" / "crimp-lenet5-caffe.json"


def rows(kind: str) -> list[tuple[float, Row]]:
    """(ε, row) of the curve's rows that end in `kind`."""
    found = []
    for row in load(RESULTS).rows:
        match = re.fullmatch(rf"ε = ([\d.]+), {kind}", row.metric)
        if row.table == CURVE and match:
            found.append((float(match[1]), row))
    return sorted(found, key=lambda point: point[0])


def figure() -> str:
    """Ours and the paper's, both ways."""
    series = []
    for kind in ("hardened for it", "not hardened"):
        series.append(Series(f"{kind}, ours", [(epsilon, row.ours) for epsilon, row in rows(kind)]))
        papers = [(epsilon, row.paper) for epsilon, row in rows(kind) if row.paper is not None]
        series.append(Series(f"{kind}, paper", papers))
    title = "LeNet-5, MNIST, pruned to 9 arrays, stuck-at faults: mean of 20 chips"
    return line_chart(title, Axis("ε of programming variation"), Axis("accuracy, analog rung [%]"), series)


def pages() -> dict[str, Callable[[], str]]:
    """The figure by file, once the curve is in the results."""
    return {"images/crimp-epsilon.svg": figure} if rows("hardened for it") else {}
