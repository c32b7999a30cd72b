"""ADMM's residuals over its updates, as a chart."""

from __future__ import annotations

from collections.abc import Sequence

from crossloom.errors import InputError
from crossloom.methods import Residuals
from crossloom.report.chart import Axis, Series, line_chart

LEAST = 1e-9
"""Residuals of 0 are drawn here, since the axis is logarithmic."""


def residual_chart(history: Sequence[Residuals], kind: str = "primal") -> str:
    """One curve a set and layer, as SVG text.

    Args:
        history: `ADMM.history`.
        kind: `primal` (distance of the weight from the set) or `dual` (ρ times how far its nearest point moved), both
            relative to the weight's norm.

    Raises:
        InputError: no update yet, or another kind.
    """
    if kind not in ("primal", "dual"):
        raise InputError.choice("residuals.kind", kind, ("primal", "dual"))
    if not history:
        raise InputError("residuals.history", "empty", "at least one update of ADMM")
    curves: dict[str, list[tuple[float, float]]] = {}
    for record in history:
        value = max(float(getattr(record, kind)), LEAST)
        curves.setdefault(f"{record.layer}, {record.constraint}", []).append((float(record.update), value))
    series = [Series(name, points) for name, points in curves.items()]
    title = f"ADMM: {kind} residuals"
    return line_chart(title, Axis("update"), Axis(f"{kind} residual, relative to the weight", logarithmic=True), series)
