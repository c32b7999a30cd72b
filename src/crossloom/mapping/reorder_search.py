"""Finding an order: rows to windows, so that the sum of a table over the windows' reads is least.

The neighbourhood is large and searched exactly: one row is taken out of every window, and the rows taken out are
given back, one to each window, by an optimal assignment (Jonker–Volgenant, in scipy). What it costs to put row i into
window b, Σ_m w_m·(f(rest_bm + y_im) − f(rest_bm)), is a matrix product over samples for each value that y takes. Every
exchange of two rows is such a move. Costs are disturbed at first and less and less later (annealing), which at equal
time beat both pure descent and simulated annealing on pairs. Small problems are solved exactly as a set partition by
HiGHS.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer
from numba import njit, prange
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
FORBIDDEN = 1e30
"""Cost of a row in a window where it may not go."""
HEAT = 0.01
"""Noise of assignments at first, as a fraction of the mean cost of a window."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Rows to windows at least cost, on samples of reads.

    Attributes:
        parts: y, what each row adds to each sample, non-negative integers.
        weight: of the samples.
        table: f, the cost of a read of 0, 1, ….
        window: of each place; places of a window are adjacent.
        label: of each place and of the row that is there at first; a row stays in places of its label.
    """

    parts: Integer[np.ndarray, "rows samples"]
    weight: Float[np.ndarray, " samples"]
    table: Float[np.ndarray, " reads"]
    window: Integer[np.ndarray, " rows"]
    label: Integer[np.ndarray, " rows"]

    @cached_property
    def start(self) -> Integer[np.ndarray, " windows_and_one"]:
        """First place of every window, and the end."""
        return np.searchsorted(self.window, np.arange(self.window.max(initial=-1) + 2))

    @cached_property
    def values(self) -> Integer[np.ndarray, " values"]:
        """The values above 0 that parts take."""
        found = np.unique(self.parts)
        return found[found > 0]

    def sums(self, order: Integer[np.ndarray, " rows"]) -> Integer[np.ndarray, "windows samples"]:
        """p of every window and sample, with row order[i] in place i."""
        return np.asarray(np.add.reduceat(self.parts[order], self.start[:-1], axis=0, dtype=self.parts.dtype))

    def value(self, sums: Integer[np.ndarray, "windows samples"]) -> float:
        """The cost."""
        return float(_costs(sums, self.table, self.weight).sum())


@njit(parallel=True, **OPTIONS)
def _costs(sums, table, weight):
    """Cost of every window."""
    found = np.zeros(len(sums))
    for w in prange(len(sums)):
        part = 0.0
        for m in range(sums.shape[1]):
            part += table[sums[w, m]] * weight[m]
        found[w] = part
    return found


@njit(parallel=True, **OPTIONS)
def _taken_out(sums, parts, rows, value, table, weight, growth, here):
    """Without its row rows[w], window w would grow in cost by growth[w] if it got `value`; here: who has that value."""
    for w in prange(len(sums)):
        mine = parts[rows[w]]
        for m in range(sums.shape[1]):
            rest = np.int64(sums[w, m]) - np.int64(mine[m])
            growth[w, m] = (table[rest + value] - table[rest]) * weight[m]
            here[w, m] = mine[m] == value


@njit(parallel=True, **OPTIONS)
def _exchanged(sums, parts, out, given):
    """p after row out[w] of window w has gone and row given[w] has come."""
    made = np.empty_like(sums)
    for w in prange(len(sums)):
        a, b = parts[out[w]], parts[given[w]]
        for m in range(sums.shape[1]):
            made[w, m] = sums[w, m] - a[m] + b[m]
    return made


def anneal(
    problem: Partition, order: Integer[np.ndarray, " rows"], sweeps: int, rng: np.random.Generator, heat: float = HEAT
) -> tuple[Integer[np.ndarray, " rows"], float]:
    """The best order met in `sweeps` sweeps, each of which takes every place out once.

    Assignments are made under costs disturbed by Gumbel noise, which falls linearly from `heat` × the mean cost of a
    window to nothing after three quarters of the sweeps.
    """
    order = order.copy()
    sums = problem.sums(order)
    best, least = order.copy(), problem.value(sums)
    sizes = np.diff(problem.start)
    hottest = heat * abs(least) / len(sizes)
    for sweep in range(sweeps):
        noise = hottest * max(1.0 - sweep / (0.75 * sweeps), 0.0)
        turn = [rng.permutation(size) for size in sizes]
        for step in range(int(sizes.max())):
            out = problem.start[:-1] + np.array([t[step % len(t)] for t in turn])
            rows = order[out]
            given = _assign(problem, rows, sums, problem.label[out], noise, rng)
            changed = np.flatnonzero(given != rows)
            sums[changed] = _exchanged(sums[changed], problem.parts, rows[changed], given[changed])
            order[out] = given
        value = problem.value(sums)
        if value < least:
            best, least = order.copy(), value
    return best, least


def _assign(
    problem: Partition, rows: np.ndarray, sums: np.ndarray, label: np.ndarray, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Which of `rows`, each now in the window of its index, each window had best get."""
    growth = np.empty(sums.shape, np.float32)
    here = np.empty(sums.shape, np.float32)
    cost = np.zeros((len(rows), len(rows)), np.float32)
    for value in problem.values:
        _taken_out(sums, problem.parts, rows, value, problem.table, problem.weight, growth, here)
        cost += here @ growth.T
    if noise:
        cost += np.float32(noise) * rng.gumbel(size=cost.shape).astype(np.float32)
    if label.min() != label.max():
        cost = np.where(label[:, None] == label[None, :], cost, np.float32(FORBIDDEN))
    row, window = linear_sum_assignment(cost)
    given = np.empty_like(rows)
    given[window] = rows[row]
    return given


def layered(problem: Partition, rng: np.random.Generator) -> Integer[np.ndarray, " rows"]:
    """A start: rows from the one that adds most to the one that adds least, one to every window at a time, each time
    by the best assignment.
    """
    order = np.full(len(problem.window), -1)
    heaviest = sorted_by_mass(problem)
    waiting = {int(k): heaviest[problem.label == k].tolist() for k in np.unique(problem.label)}
    sizes = np.diff(problem.start)
    sums = np.zeros((len(sizes), problem.parts.shape[1]), problem.parts.dtype)
    for depth in range(int(sizes.max())):
        windows = np.flatnonzero(sizes > depth)
        places = problem.start[windows] + depth
        rows = np.array([waiting[int(problem.label[place])].pop(0) for place in places])
        sums[windows] += problem.parts[rows]
        given = _assign(problem, rows, sums[windows], problem.label[places], 0.0, rng)
        sums[windows] += problem.parts[given] - problem.parts[rows]
        order[places] = given
    return order


def sorted_by_mass(problem: Partition) -> Integer[np.ndarray, " rows"]:
    """A start: rows that add most first, so that rarely active rows share windows."""
    order = np.full(len(problem.window), -1)
    mass = problem.parts @ problem.weight
    for k in np.unique(problem.label):
        mine = np.flatnonzero(problem.label == k)
        order[mine] = mine[np.argsort(-mass[mine], kind="stable")]
    return order


def choices(problem: Partition) -> int:
    """How many sets of rows could be a window: the size of the exact problem."""
    return sum(math.prod(math.comb(total, k) for total, k in kind) for kind in _kinds(problem))


def _kinds(problem: Partition) -> dict[tuple[tuple[int, int], ...], int]:
    """Windows that differ, as (rows of a label, places of it in the window) over labels, and how many there are."""
    labels, totals = np.unique(problem.label, return_counts=True)
    found: dict[tuple[tuple[int, int], ...], int] = {}
    for a, b in zip(problem.start[:-1], problem.start[1:], strict=True):
        kind = tuple((int(t), int((problem.label[a:b] == k).sum())) for k, t in zip(labels, totals, strict=True))
        found[kind] = found.get(kind, 0) + 1
    return found


def solve(problem: Partition, seconds: float) -> tuple[Integer[np.ndarray, " rows"], float] | None:
    """The best order and a proven lower bound, by a set partition over all sets of rows that could be a window.

    The bound is the cost itself unless the time is up; None if no order is found by then.
    """
    rows = len(problem.window)
    members = [np.flatnonzero(problem.label == k) for k in np.unique(problem.label)]
    kinds = _kinds(problem)
    sets: list[np.ndarray] = []
    kind_of: list[int] = []
    for index, kind in enumerate(kinds):
        product = [np.zeros((1, 0), np.int64)]
        for mine, (_, count) in zip(members, kind, strict=True):
            chosen = np.array(list(combinations(mine.tolist(), count)), np.int64).reshape(
                math.comb(len(mine), count), count
            )
            last = product[-1]
            product.append(np.concatenate([np.repeat(last, len(chosen), 0), np.tile(chosen, (len(last), 1))], axis=1))
        sets += list(product[-1])
        kind_of += [index] * len(product[-1])
    cost = np.array([problem.table[problem.parts[chosen].sum(0)] @ problem.weight for chosen in sets])
    column = np.repeat(np.arange(len(sets)), [len(chosen) for chosen in sets])
    cover = sp.csr_array((np.ones(len(column)), (np.concatenate(sets), column)), shape=(rows, len(sets)))
    kind_rows: sp.csr_array = sp.csr_array(
        (np.ones(len(sets)), (kind_of, np.arange(len(sets)))), shape=(len(kinds), len(sets))
    )
    demand = np.concatenate([np.ones(rows), list(kinds.values())])
    scale = float(np.abs(cost).max()) or 1.0
    answer = milp(
        cost / scale,
        constraints=LinearConstraint(sp.vstack([cover, kind_rows]).tocsc(), demand, demand),
        integrality=np.ones(len(sets)),
        bounds=Bounds(0, 1),
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    if answer.x is None or answer.mip_dual_bound is None:
        return None
    chosen_sets = np.flatnonzero(answer.x > 0.5)
    order = np.full(rows, -1)
    waiting: dict[int, list[int]] = {}
    for s in chosen_sets:
        waiting.setdefault(kind_of[s], []).append(int(s))
    names = {kind: i for i, kind in enumerate(kinds)}
    labels, totals = np.unique(problem.label, return_counts=True)
    for a, b in zip(problem.start[:-1], problem.start[1:], strict=True):
        here = problem.label[a:b]
        kind = tuple((int(t), int((here == k).sum())) for k, t in zip(labels, totals, strict=True))
        rows_here = sets[waiting[names[kind]].pop()]
        for k in labels:
            order[a:b][here == k] = rows_here[problem.label[rows_here] == k]
    return order, min(float(answer.mip_dual_bound) * scale, problem.value(problem.sums(order)))
