"""Finding an order: rows to windows, so that the sum of a table over the windows' reads is least.

The neighbourhood is large and searched exactly: one row is taken out of every window, and the rows taken out are
given back, one to each window, by an optimal assignment (Jonker–Volgenant, in scipy). What it costs to put row i into
window b, Σ_m w_m·(f(rest_bm + y_im) − f(rest_bm)), is a matrix product over samples for each value that y takes. Every
exchange of two rows is such a move, and no move makes things worse. Small problems are solved exactly as a set
partition by HiGHS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp

FORBIDDEN = 1e30
"""Cost of a row in a window where it may not go."""


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
    steps: Float[np.ndarray, " reads"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", self.table.astype(np.float32))

    @cached_property
    def start(self) -> np.ndarray:
        """First place of every window, and the end."""
        return np.searchsorted(self.window, np.arange(self.window.max(initial=-1) + 2))

    @cached_property
    def values(self) -> np.ndarray:
        """The values above 0 that parts take."""
        found = np.unique(self.parts)
        return found[found > 0]

    def sums(self, order: np.ndarray) -> np.ndarray:
        """p of every window and sample, with row order[i] in place i."""
        return np.asarray(np.add.reduceat(self.parts[order], self.start[:-1], axis=0))

    def value(self, sums: np.ndarray) -> float:
        """The cost."""
        return float((self.table[sums] @ self.weight).sum())


def improve(
    problem: Partition, order: Integer[np.ndarray, " rows"], sweeps: int, rng: np.random.Generator
) -> tuple[Integer[np.ndarray, " rows"], float]:
    """Move rows until a sweep, in which every place is taken out once, gains nothing, or `sweeps` of them are over."""
    order = order.copy()
    sums = problem.sums(order)
    value = problem.value(sums)
    sizes = np.diff(problem.start)
    for _ in range(sweeps):
        before = value
        turn = [rng.permutation(size) for size in sizes]
        for step in range(int(sizes.max())):
            out = problem.start[:-1] + np.array([t[step % len(t)] for t in turn])
            moved = _assign(problem, order, sums, out)
            if moved is None:
                continue
            new_sums = sums - problem.parts[order[out]] + problem.parts[moved]
            new_value = problem.value(new_sums)
            if new_value < value:
                order[out], sums, value = moved, new_sums, new_value
        if before - value <= 1e-9 * abs(before):
            break
    return order, value


def _assign(problem: Partition, order: np.ndarray, sums: np.ndarray, out: np.ndarray) -> np.ndarray | None:
    """The best rows for the places `out`, one in each window, among those that are there; None if they stay."""
    rows = order[out]
    parts = problem.parts[rows]
    rest = sums - parts
    base = problem.steps[rest]
    cost = np.zeros((len(out), len(out)), np.float32)
    weight = problem.weight.astype(np.float32)
    for value in problem.values:
        here = parts == value
        if here.any():
            cost += here.astype(np.float32) @ ((problem.steps[rest + value] - base) * weight).T
    label = problem.label[out]
    if label.min() != label.max():
        cost = np.where(label[:, None] == label[None, :], cost, np.float32(FORBIDDEN))
    row, place = linear_sum_assignment(cost)
    if np.array_equal(row, place):
        return None
    moved = np.empty_like(rows)
    moved[place] = rows[row]
    return np.asarray(moved)


def layered(problem: Partition) -> Integer[np.ndarray, " rows"]:
    """A start: rows from the one that adds most to the one that adds least, a row for every window at a time."""
    order = np.full(len(problem.window), -1)
    mass = problem.parts @ problem.weight
    waiting = {int(k): list(_by_mass(problem, mass, int(k))) for k in np.unique(problem.label)}
    sums = np.zeros((len(problem.start) - 1, problem.parts.shape[1]), np.int64)
    for depth in range(int(np.diff(problem.start).max())):
        windows = np.flatnonzero(np.diff(problem.start) > depth)
        places = problem.start[windows] + depth
        rows = np.array([waiting[int(problem.label[place])].pop(0) for place in places])
        order[places] = rows
        filled = np.zeros_like(sums)
        filled[windows] = problem.parts[rows]
        if depth:
            moved = _assign(problem, order, (sums + filled)[windows], places)
            rows = rows if moved is None else moved
            order[places] = rows
        sums[windows] += problem.parts[rows]
    return order


def _by_mass(problem: Partition, mass: np.ndarray, label: int) -> np.ndarray:
    mine = np.flatnonzero(problem.label == label)
    return np.asarray(mine[np.argsort(-mass[mine], kind="stable")])


def sorted_by_mass(problem: Partition) -> Integer[np.ndarray, " rows"]:
    """A start: rows that add most first, so that rarely active rows share windows."""
    order = np.full(len(problem.window), -1)
    mass = problem.parts @ problem.weight
    for k in np.unique(problem.label):
        order[problem.label == k] = _by_mass(problem, mass, int(k))
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
            chosen = np.array(list(combinations(mine.tolist(), count)), np.int64).reshape(-1, count)
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
