"""Which rows of a matrix of integers to merge: clustering under a sum of absolute differences.

min over labels and centres of Σ_r mass_r·Σ_n |C_rn − sign_r·S_{label_r, n}|, with one more centre for nothing, the
row of zeros that needs no storage. Ward's hierarchy (Lance–Williams recurrence on masses, nearest-neighbour chain,
Murtagh 1983) gives a start for any size, greedy merging under the error itself another for small ones; each is then
improved by k-medians, which never makes it worse, and the better one is kept.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int8, Integer
from numba import njit, prange

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
GREEDY_ROWS = 512
"""Up to so many rows the greedy start is tried too."""
ROUNDS = 50
"""Most rounds of k-medians; on 4096 rows the error stands still long before."""
SETTLED = 1e-4
"""Relative gain of a round below which k-medians stops."""
SHORTLIST = 16
"""Centres of which the nearest is sought exactly; for ±1 the nearest is always among them."""
FAINT = 1e-6
"""Share of the mean mass that every row gets besides its own, so that rows of no mass are merged with equals first."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """A clustering.

    Attributes:
        labels: centre of every row; −1 for the row of zeros.
        sign: −1 where the row stands for the negative of its centre.
        centres: one row each, with values that occur in the rows.
        error: Σ mass·|difference|.
    """

    labels: Integer[np.ndarray, " rows"]
    sign: Int8[np.ndarray, " rows"]
    centres: Integer[np.ndarray, "centres columns"]
    error: float


def cluster(
    rows: Integer[np.ndarray, "rows columns"],
    count: int,
    mass: Float[np.ndarray, " rows"],
    complement: bool = False,
) -> Clusters:
    """Merge rows into `count` centres.

    Args:
        rows: the matrix, integers below 2^15 in magnitude.
        count: centres, 1 to the number of rows.
        mass: weight of the error in every row, 0 or more.
        complement: rows may stand for negatives of centres.
    """
    small = np.ascontiguousarray(rows, np.int16)
    weight = mass + FAINT * (mass.mean() or 1.0)
    turned = small * _signs(small, weight)[:, None] if complement else small
    starts = [_cut(_ward(_squared_distances(turned), weight.copy()), len(rows), count)]
    if len(rows) <= GREEDY_ROWS:
        starts.append(_cut(_greedy(turned, weight), len(rows), count))
    tried = [_improved(small, turned, labels, count, weight, complement) for labels in starts]
    labels, sign, centres, _ = min(tried, key=lambda t: t[3])
    change = np.abs(small - np.where(labels < 0, 0, sign)[:, None] * centres[labels]).sum(1, dtype=np.int64)
    return Clusters(labels, sign, centres.astype(np.int32), float(mass @ change))


def _improved(
    rows: np.ndarray, turned: np.ndarray, labels: np.ndarray, count: int, weight: np.ndarray, complement: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """k-medians from given labels: (labels, sign, centres, error)."""
    sign = np.where((turned == rows).all(1), 1, -1).astype(np.int8)
    centres = medians(rows, labels, sign, weight, count)
    best = (labels, sign, centres, np.inf)
    for _ in range(ROUNDS):
        labels, sign, distance = _nearest(rows, best[2], complement)
        _fill_empty(labels, sign, distance, weight, count)
        centres = medians(rows, labels, sign, weight, count)
        reach = np.abs(rows - np.where(labels < 0, 0, sign)[:, None] * centres[labels]).sum(1, dtype=np.int64)
        error = float(weight @ reach)
        if error >= best[3] * (1 - SETTLED):
            break
        best = (labels, sign, centres, error)
    return best


def _nearest(rows: np.ndarray, centres: np.ndarray, complement: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(label, sign, distance) of the nearest centre of every row, the row of zeros among them."""
    labels, nearest = _closest(rows, centres)
    sign = np.ones(len(rows), np.int8)
    if complement:
        other, reach = _closest(rows, -centres)
        closer = reach < nearest
        labels, nearest = np.where(closer, other, labels), np.where(closer, reach, nearest)
        sign[closer] = -1
    size = np.abs(rows).sum(1, dtype=np.int64)
    return np.where(size <= nearest, -1, labels).astype(np.int64), sign, np.minimum(size, nearest)


def _closest(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(label, distance): the closest of the `SHORTLIST` centres that are closest by squares, which is one product."""
    a, b = rows.astype(np.float32), centres.astype(np.float32)
    squares = (b**2).sum(1) - 2 * (a @ b.T)
    count = min(SHORTLIST, len(centres))
    listed = np.argpartition(squares, count - 1, axis=1)[:, :count]
    reach = distances(rows, centres, listed)
    best = reach.argmin(1)
    every = np.arange(len(rows))
    return listed[every, best], reach[every, best]


def _fill_empty(labels: np.ndarray, sign: np.ndarray, distance: np.ndarray, weight: np.ndarray, count: int) -> None:
    """Give every centre that has lost its rows the row that is worst off, in place."""
    pain = weight * distance
    for empty in np.flatnonzero(np.bincount(labels[labels >= 0], minlength=count) == 0):
        alone = np.bincount(labels[labels >= 0], minlength=count)[np.maximum(labels, 0)] == 1
        worst = int(np.where(alone & (labels >= 0), -1.0, pain).argmax())
        labels[worst], sign[worst], pain[worst] = empty, 1, 0.0


def _signs(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A sign for every row that turns it to the side of the leading direction (20 power iterations)."""
    matrix = rows.astype(np.float32) * np.sqrt(weight / weight.max()).astype(np.float32)[:, None]
    v = matrix[int((matrix**2).sum(1).argmax())]
    for _ in range(20):
        v = matrix.T @ (matrix @ v)
        v /= np.linalg.norm(v) or 1.0
    return np.where(matrix @ v < 0, -1, 1).astype(np.int8)


def _squared_distances(rows: np.ndarray) -> np.ndarray:
    matrix = rows.astype(np.float32)
    norm = (matrix**2).sum(1)
    return np.maximum(norm[:, None] + norm[None, :] - 2 * (matrix @ matrix.T), 0)


def _cut(merges: np.ndarray, rows: int, count: int) -> np.ndarray:
    """Labels after as many merges (a, b, cost), cheapest first, as leave `count` clusters."""
    parent = np.arange(rows)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b, _ in merges[np.argsort(merges[:, 2], kind="stable")][: rows - count]:
        parent[root(int(b))] = root(int(a))
    return np.unique([root(i) for i in range(rows)], return_inverse=True)[1].astype(np.int64)


@njit(**OPTIONS)
def _ward(distance, mass):
    """All merges of Ward's hierarchy as (a, b, cost), a and b one row of each part; `distance` is used up."""
    rows = len(mass)
    for i in range(rows):
        for j in range(rows):
            distance[i, j] *= mass[i] * mass[j] / (mass[i] + mass[j])
    alive = np.ones(rows, np.bool_)
    merges = np.empty((rows - 1, 3), np.float64)
    chain = np.empty(rows, np.int64)
    length = made = 0
    while made < rows - 1:
        if length == 0:
            chain[0] = np.argmax(alive)
            length = 1
        a = chain[length - 1]
        before = chain[length - 2] if length > 1 else -1
        b, best = before, distance[a, before] if before >= 0 else np.inf
        for j in range(rows):
            if alive[j] and j != a and distance[a, j] < best:
                b, best = j, distance[a, j]
        if b != before:
            chain[length] = b
            length += 1
            continue
        length -= 2
        merges[made, 0], merges[made, 1], merges[made, 2] = a, b, best
        made += 1
        alive[b] = False
        for j in range(rows):
            if alive[j] and j != a:
                total = mass[a] + mass[b] + mass[j]
                d = (mass[a] + mass[j]) * distance[a, j] + (mass[b] + mass[j]) * distance[b, j] - mass[j] * best
                distance[a, j] = distance[j, a] = d / total
        mass[a] += mass[b]
    return merges


@njit(**OPTIONS)
def _weighted_median(values, weights, order):
    """The smallest of the values at `order` with half of the weight at or below it; sorts `order` by value."""
    for i in range(1, len(order)):
        k = order[i]
        j = i
        while j > 0 and values[order[j - 1]] > values[k]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = k
    half = 0.0
    for k in order:
        half += weights[k]
    half /= 2
    total = 0.0
    for k in order:
        total += weights[k]
        if total >= half:
            return values[k]
    return values[order[-1]]


@njit(parallel=True, **OPTIONS)
def _medians(rows, members, start, sign, weight, centres):
    for c in prange(len(start) - 1):
        mine = members[start[c] : start[c + 1]]
        if len(mine) == 0:
            continue
        if len(mine) == 1:
            for n in range(rows.shape[1]):
                centres[c, n] = rows[mine[0], n] * sign[mine[0]]
            continue
        values = np.empty(len(mine), rows.dtype)
        weights = weight[mine]
        places = np.arange(len(mine))
        for n in range(rows.shape[1]):
            for i in range(len(mine)):
                values[i] = rows[mine[i], n] * sign[mine[i]]
            centres[c, n] = _weighted_median(values, weights, places)


def medians(
    rows: Integer[np.ndarray, "rows columns"],
    labels: Integer[np.ndarray, " rows"],
    sign: Int8[np.ndarray, " rows"],
    weight: Float[np.ndarray, " rows"],
    count: int,
) -> Integer[np.ndarray, "centres columns"]:
    """The weighted median of every centre's rows, column by column: the majority for two values."""
    members = np.argsort(labels, kind="stable")
    start = np.searchsorted(labels[members], np.arange(count + 1))
    centres = np.zeros((count, rows.shape[1]), rows.dtype)
    _medians(rows, members, start, sign, weight, centres)
    return centres


@njit(parallel=True, **OPTIONS)
def _distances(a, b, listed, out):
    for i in prange(len(a)):
        for k in range(listed.shape[1]):
            other = b[listed[i, k]]
            total = np.int64(0)
            for n in range(a.shape[1]):
                total += abs(np.int64(a[i, n]) - np.int64(other[n]))
            out[i, k] = total


def distances(
    a: Integer[np.ndarray, "rows columns"],
    b: Integer[np.ndarray, "others columns"],
    listed: Integer[np.ndarray, "rows listed"],
) -> Integer[np.ndarray, "rows listed"]:
    """Σ_n |a_in − b_jn| for the others j = listed[i] of every row i."""
    out = np.empty(listed.shape, np.int64)
    _distances(a, b, listed, out)
    return out


@njit(**OPTIONS)
def _spread_of(rows, weight, members):
    """Σ weight·|row − median| of some rows."""
    total = 0.0
    values = np.empty(len(members), rows.dtype)
    weights = weight[members]
    for n in range(rows.shape[1]):
        for i in range(len(members)):
            values[i] = rows[members[i], n]
        centre = _weighted_median(values, weights, np.arange(len(members)))
        for i in range(len(members)):
            total += weights[i] * abs(values[i] - centre)
    return total


@njit(**OPTIONS)
def _greedy(rows, weight):
    """All merges, each the cheapest under the error itself at its time, as (a, b, rank)."""
    count = len(rows)
    label = np.arange(count)
    error = np.zeros(count)
    cost = np.full((count, count), np.inf)
    for i in range(count):
        for j in range(i + 1, count):
            difference = np.int64(0)
            for n in range(rows.shape[1]):
                difference += abs(np.int64(rows[i, n]) - np.int64(rows[j, n]))
            cost[i, j] = min(weight[i], weight[j]) * difference
    merges = np.empty((count - 1, 3), np.float64)
    alive = np.ones(count, np.bool_)
    for step in range(count - 1):
        best = np.argmin(cost)
        a, b = np.divmod(best, count)
        error[a] += error[b] + cost[a, b]
        merges[step, 0], merges[step, 1], merges[step, 2] = a, b, step
        alive[b] = False
        label[label == b] = a
        cost[b, :] = np.inf
        cost[:, b] = np.inf
        mine = np.flatnonzero(label == a)
        for j in range(count):
            if alive[j] and j != a:
                both = np.concatenate((mine, np.flatnonzero(label == j)))
                grown = _spread_of(rows, weight, both) - error[a] - error[j]
                if a < j:
                    cost[a, j] = grown
                else:
                    cost[j, a] = grown
    return merges
