"""A proven lower bound on what any order of rows can reach.

f(p) = [f(p) − γp²] + γp². For every sample the first part is at least W·g(T/W), with T the sum of all rows, W the
number of windows and g the lower convex envelope of f(p) − γp² on the integers (Jensen's inequality). The second part,
summed over samples, is γ·Σ over windows of Σ of S_hh' over pairs of rows in the window, S_hh' = Σ_m w_m·y_hm·y_h'm: a
graph partition, bounded from below (γ > 0) or above (γ < 0). γ is searched; γ = 0 is Jensen's bound alone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from crossloom.mapping.reads import Reads

STEPS = 200
"""Subgradient steps of the pair bound on small problems; fewer on large ones, to keep rows² × steps in bounds."""


def lower_bound(reads: Reads, table: Float[np.ndarray, " reads"]) -> float:
    """No order of the rows makes `reads.total(table)` smaller."""
    windows = reads.windows
    totals, weight = _totals(reads)
    return float(windows * (envelope(table, totals / windows) @ weight))


def envelope(table: Float[np.ndarray, " reads"], at: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """The lower convex envelope of the points (p, table[p]), p = 0, 1, …, at real p."""
    hull: list[int] = []
    for p in range(len(table)):
        while len(hull) > 1:
            a, b = hull[-2:]
            if (table[b] - table[a]) * (p - a) < (table[p] - table[a]) * (b - a):
                break
            hull.pop()
        hull.append(p)
    return np.asarray(np.interp(at, hull, table[hull]))


def _totals(reads: Reads) -> tuple[np.ndarray, np.ndarray]:
    """The sum of all rows for every (digit, vector, column), and its weight."""
    levels = reads.levels.astype(np.float64)
    sums = np.stack([digit.astype(np.float64) @ levels for digit in reads.digits])
    weight = reads.digit_weight[:, None, None] * reads.column_weight
    return sums.reshape(-1), np.broadcast_to(weight, sums.shape).reshape(-1)
