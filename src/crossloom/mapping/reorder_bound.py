"""A proven lower bound on what any order of rows can reach.

f(p) = [f(p) − γp²] + γp². For every sample of reads the first part is at least W·g(T/W), with T the sum of all rows, W
the number of windows and g the lower convex envelope of f(p) − γp² on the integers (Jensen's inequality). The second
part, summed over samples, is γ·Q with Q = Σ over windows of Σ of S_hh' over pairs of rows of the window and
S_hh' = Σ_m w_m·y_hm·y_h'm: a graph partition, and `least_pairs` bounds Q from both sides. The sum of both parts is
concave in γ, and the best γ is taken; γ = 0 is Jensen's bound alone, and for f = p² only the second part is left.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Integer
from numba import njit, prange
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar

from crossloom.mapping.reads import OPTIONS, Reads

SPECTRAL_ROWS = 600
"""Up to so many rows the spectral bound is computed."""
SPECTRAL_WORK = 4e9
"""Rows³ × steps of it."""
NEIGHBOUR_WORK = 1e9
"""Rows² × steps of the neighbour bound."""
STEPS = 400
"""Most steps of either."""
PATIENCE = 8
"""Steps without gain after which steps are halved."""


def lower_bound(reads: Reads, table: Float[np.ndarray, " reads"], order: Integer[np.ndarray, " rows"]) -> float:
    """No order of the rows makes `reads.total(table)` smaller.

    Args:
        reads: the rows and what is read of them.
        table: f(p).
        order: a good order; it steers the search for a bound and does not enter it.
    """
    windows, size = reads.windows, reads.size
    sums, weight = _totals(reads)
    pairs = pair_weights(reads)
    padded = np.zeros((windows * size, windows * size))
    padded[: len(pairs), : len(pairs)] = pairs
    found = pairs[np.ix_(order, order)][reads.window[:, None] == reads.window[None, :]].sum()
    least: dict[int, float] = {}
    square = np.arange(len(table), dtype=np.float64) ** 2

    def value(gamma: float) -> float:
        sign = 1 if gamma >= 0 else -1
        if sign not in least:
            least[sign] = least_pairs(sign * padded, size, sign * float(found))
        return float(windows * (envelope(table - gamma * square, sums / windows) @ weight)) + abs(gamma) * least[sign]

    bend = np.abs(np.diff(table, 2)).max(initial=0.0)
    tried = [value(0.0)]
    for low, high in ((0.0, bend), (-bend, 0.0)):
        if bend and value((low + high) / 1e3) > tried[0]:
            best = minimize_scalar(lambda gamma: -value(gamma), bounds=(low, high), method="bounded")
            tried.append(-float(best.fun))
    return max(tried) - 1e-9 * abs(max(tried))


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


def pair_weights(reads: Reads) -> Float[np.ndarray, "rows rows"]:
    """S_hh' = Σ over samples of weight·y_h·y_h': a product of a Gram matrix of digits and one of cells."""
    levels = reads.levels.astype(np.float64)
    cells = (levels * reads.column_weight) @ levels.T
    digits = sum(w * (x.T @ x) for w, x in zip(reads.digit_weight, reads.digits.astype(np.float64), strict=True))
    return np.asarray(cells * digits)


def _totals(reads: Reads) -> tuple[np.ndarray, np.ndarray]:
    """The values that the sum of all rows takes over (digit, vector, column), and the weight of each."""
    levels = reads.levels.astype(np.float64)
    weights = np.zeros(int(reads.levels.astype(np.int64).sum(0).max(initial=0)) * int(reads.digits.max(initial=0)) + 1)
    for x, w in zip(reads.digits, reads.digit_weight, strict=True):
        sums = np.rint(x.astype(np.float64) @ levels).astype(np.int64)
        column = np.broadcast_to(reads.column_weight, sums.shape)
        weights += w * np.bincount(sums.reshape(-1), column.reshape(-1), minlength=len(weights))
    live = np.flatnonzero(weights)
    return live, weights[live]


def least_pairs(pairs: Float[np.ndarray, "rows rows"], size: int, reached: float) -> float:
    """A lower bound on Σ over parts of Σ of pairs[h, h'] over all h, h' in the part, for parts of `size` rows each.

    The better of two bounds, each maximised by subgradient steps (Polyak) towards the value reached.

    Args:
        pairs: symmetric.
        size: rows of a part; divides the number of rows.
        reached: the sum for some partition.
    """
    rows = len(pairs)
    steps = int(min(max(NEIGHBOUR_WORK / rows**2, 10), STEPS))
    bound = _ascend(lambda u: _neighbours(pairs, size, u), np.zeros(rows), reached, steps)
    if rows <= SPECTRAL_ROWS:
        steps = int(min(max(SPECTRAL_WORK / rows**3, 10), STEPS))
        start = np.diag(np.diag(pairs))
        bound = max(bound, _ascend(lambda m: _spectral(pairs, size, m), start, reached, steps, _cone))
    return bound


def _ascend(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    at: np.ndarray,
    target: float,
    steps: int,
    onto: Callable[[np.ndarray], np.ndarray] = lambda point: point,
) -> float:
    """The largest value met on the way up a concave function given with a supergradient."""
    best, best_at, share, idle = -np.inf, at, 1.0, 0
    for _ in range(steps):
        value, slope = function(at)
        idle += 1
        if value > best:
            best, best_at, idle = value, at, 0
        if idle == PATIENCE:
            share, idle, at = share / 2, 0, best_at
            continue
        norm = float((slope**2).sum())
        if norm == 0 or target <= value:
            break
        at = onto(at + share * (target - value) / norm * slope)
    return best


def _neighbours(pairs: np.ndarray, size: int, price: np.ndarray) -> tuple[float, np.ndarray]:
    """Every row meets size − 1 others and is met by as many, the second being priced: (bound, slope in the prices)."""
    met = _cheapest(pairs, price, size - 1)
    chosen = np.take_along_axis(pairs, met, axis=1).sum() - price[met].sum()
    value = np.trace(pairs) + (size - 1) * price.sum() + chosen
    return float(value), (size - 1) - np.bincount(met.reshape(-1), minlength=len(price)).astype(np.float64)


@njit(parallel=True, **OPTIONS)
def _cheapest(pairs, price, count):
    """For every row the `count` others of least pairs[h, h'] − price[h']."""
    rows = len(pairs)
    found = np.zeros((rows, count), np.int64)
    for h in prange(rows):
        cost = np.full(count + 1, np.inf)
        for other in range(rows):
            c = pairs[h, other] - price[other]
            if other != h and count and c < cost[count - 1]:
                k = count - 1
                while k > 0 and cost[k - 1] > c:
                    cost[k] = cost[k - 1]
                    found[h, k] = found[h, k - 1]
                    k -= 1
                cost[k] = c
                found[h, k] = other
    return found


def _spectral(pairs: np.ndarray, size: int, multipliers: np.ndarray) -> tuple[float, np.ndarray]:
    """Bound by eigenvalues, and its slope in the multipliers.

    A partition is Z with Z_hh' = 1 if h and h' share a part: a multiple, `size`, of a projection of rank rows/size
    whose range holds the vector of ones; Z_hh = 1 and Z ≥ 0. So ⟨S, Z⟩ = ⟨S − M, Z⟩ + ⟨M, Z⟩ is at least Σ M_hh plus
    `size` times the smallest eigenvalues of S − M across the ones, for M ≥ 0 off the diagonal (Donath and Hoffman
    1973; Rendl and Wolkowicz 1995; with M the dual of the semidefinite bound).
    """
    rows = len(pairs)
    rest = pairs - multipliers
    mean = rest.mean(0)
    along = float(mean.sum())
    across = rest - mean[:, None] - mean[None, :] + along / rows
    shift = float(np.abs(across).sum(1).max()) + 1.0
    parts = rows // size
    value = float(np.trace(multipliers)) + size * along
    partition = np.full((rows, rows), size / rows)
    if parts > 1:
        small, vectors = eigh(across + shift / rows, subset_by_index=[0, parts - 2])
        value += size * float(small.sum())
        partition += size * (vectors @ vectors.T)
    slope = -partition
    np.fill_diagonal(slope, 1.0 - np.diag(partition))
    blocked = (multipliers <= 0) & (slope < 0)
    np.fill_diagonal(blocked, False)
    return value, np.where(blocked, 0.0, slope)


def _cone(multipliers: np.ndarray) -> np.ndarray:
    """Off the diagonal no multiplier is negative."""
    diagonal = np.diag(multipliers).copy()
    multipliers = np.maximum(multipliers, 0)
    np.fill_diagonal(multipliers, diagonal)
    return multipliers
