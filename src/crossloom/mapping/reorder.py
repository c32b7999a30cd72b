"""Row reorder: which rows are read together, chosen so that reads err least or need not be made.

An array drives at most `active_rows` adjacent rows at once, so the order of rows decides which of them share a read.
Noise grows with the sum that is read, and a read in which no row is driven can be skipped. Reordering permutes the
rows of the core and of P x together: without noise every output stays what it was, bit for bit.

The effect is Weinstock et al.'s (ORSS 2023), whose abstract gives no procedure; objectives, search and bound are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from crossloom.errors import InputError
from crossloom.hardware import Array
from crossloom.mapping.blocks import cut
from crossloom.mapping.read_objectives import Noise, Objective, objective_table
from crossloom.mapping.reads import Reads, drives, reads_of
from crossloom.mapping.reorder_bound import lower_bound
from crossloom.mapping.reorder_search import Partition, anneal, choices, layered, solve, sorted_by_mass
from crossloom.weave import InputTransform, Program, WovenLayer

EXACT_SETS = 12_000
"""Windows that a layer could have up to which the best order is sought by integer programming."""
EXACT_SECONDS = 20.0
"""Time for that."""
SAMPLES = 1 << 15
"""Reads of one window looked at while searching, if rows × samples stay within `CONTRIBUTIONS`."""
CONTRIBUTIONS = 1 << 25
SEARCH_WORK = 5e11
"""Rows × windows × samples × sweeps of the search, which bounds its time on large layers."""


@dataclass(frozen=True, eq=False)
class Reordered:
    """A layer after reorder. Values are means over all reads of the calibration batch.

    Attributes:
        layer: the layer, P and core changed.
        order: per group, the old row in every new place.
        value: the objective now, over the reads that there were: those of an array that came to hold zeros alone, and
            is gone, count.
        before: the objective of the order that was given.
        bound: no order has a lower value (of rows in their groups and off blocks of zeros).
        objective: what was minimised.
        table: the cost of a read of 0, 1, …
    """

    layer: WovenLayer
    order: Integer[np.ndarray, "groups rows"]
    value: float
    before: float
    bound: float
    objective: str
    table: Float[np.ndarray, " reads"]

    @property
    def gap(self) -> float:
        """(value − bound) / value: by at most so much could another order be better; 0 if none can."""
        return (self.value - self.bound) / self.value if self.value > 0 else 0.0


def reorder(
    layer: WovenLayer,
    array: Array,
    inputs: Integer[np.ndarray, "vectors inputs"],
    objective: Objective = "code-error",
    noise: Noise | None = None,
    *,
    converter: tuple[float, float] | None = None,
    sweeps: int = 500,
    vectors: int = 512,
    columns: int = 4096,
    seed: int = 0,
    proof: bool = True,
) -> Reordered:
    """Order the rows of a layer for an array.

    Args:
        layer: any woven layer, with any input transform.
        array: its rows, `active_rows`, cells, digits and converters.
        inputs: input codes of a calibration batch (`simulate.observe.input_vectors`).
        objective: see `read_objectives.Objective`.
        noise: of a read; objective `skipped` needs none.
        converter: (step, lowest read) where the array's range is calibrated.
        sweeps: most passes of the search over all places; fewer on large layers (`SEARCH_WORK`).
        vectors: at most so many input vectors are looked at, drawn without replacement.
        columns: at most so many physical columns of each group, too; the values and the bound are of these reads.
        seed: of these draws and of the search.
        proof: whether to look for a proven optimum or bound, which takes most of the time; else the bound is 0.

    Raises:
        InputError: a calibration batch of another shape, no positive numbers of sweeps, vectors and columns, flipped
            columns (which rows are flipped with depends on the order), rows that share signs, or what
            `objective_table` raises.
    """
    for field, given in (("sweeps", sweeps), ("vectors", vectors), ("columns", columns)):
        if given < 1:
            raise InputError(f"reorder.{field}", given, "at least 1")
    if array.flip:
        raise InputError("array.flip", True, "columns that are not flipped: flips follow the order of rows", "false")
    if array.fragment is not None:
        expected = "weights with signs of their own: rows that share one stay together"
        raise InputError("array.encoding", array.encoding, expected, "differential")
    rng = np.random.default_rng(seed)
    inputs = np.asarray(inputs)
    if inputs.ndim == 2 and len(inputs) > vectors:
        inputs = inputs[np.sort(rng.permutation(len(inputs))[:vectors])]
    mapped = cut(layer, array)
    parts = reads_of(mapped, inputs, objective in ("variance", "squared-error"), columns, rng)
    parts = [drives(part) for part in parts] if objective == "skipped" else parts
    table = objective_table(objective, array, max((part.top for part in parts), default=0), noise, converter)
    groups, rows, _ = layer.core.shape
    order = np.arange(groups * rows)
    before = value = bound = weight = 0.0
    for part in parts:
        found, low = _ordered(part, table, sweeps, rng, proof)
        old, new = part.total(table), part.total(table, found)
        if new > old:
            found, new = np.arange(len(found)), old
        order[part.rows] = part.rows[found]
        before, value, bound, weight = before + old, value + new, bound + min(low, new), weight + part.weight
    weight = weight or 1.0
    by_group = order.reshape(groups, rows) - np.arange(groups)[:, None] * rows
    return Reordered(
        permuted(layer, by_group), by_group, value / weight, before / weight, bound / weight, objective, table
    )


def permuted(layer: WovenLayer, order: Integer[np.ndarray, "groups rows"]) -> WovenLayer:
    """The layer with row order[g, r] of group g in place r.

    Raises:
        InputError: not a permutation of each group's rows.
    """
    groups, rows, _ = layer.core.shape
    order = np.asarray(order)
    if order.shape != (groups, rows) or not np.array_equal(
        np.sort(order, axis=1), np.tile(np.arange(rows), (groups, 1))
    ):
        raise InputError("reorder.order", order.shape, f"a permutation of 0 … {rows - 1} for each of {groups} groups")
    if np.array_equal(order, np.tile(np.arange(rows), (groups, 1))):
        return layer
    every = (order + np.arange(groups)[:, None] * rows).reshape(-1)
    return layer.with_rows(
        InputTransform.select(groups * rows, every), np.take_along_axis(layer.core, order[..., None], axis=1)
    )


def program(
    network: Program,
    array: Array,
    inputs: Mapping[str, Integer[np.ndarray, "vectors inputs"]],
    objective: Objective = "code-error",
    noise: Noise | None = None,
    *,
    converters: Mapping[str, tuple[float, float]] | None = None,
    sweeps: int = 500,
    vectors: int = 512,
    columns: int = 4096,
    seed: int = 0,
    proof: bool = True,
) -> tuple[Program, dict[str, Reordered]]:
    """Reorder the layers of a program that `inputs` has calibration vectors for.

    Returns:
        The program, and what was done per layer name.

    Raises:
        InputError: an unknown layer, or what `reorder` raises.
    """
    by_name = {layer.name: layer for layer in network.layers}
    for name in inputs:
        if name not in by_name:
            raise InputError.choice("reorder.layers", name, by_name)
    done = {
        name: reorder(
            by_name[name], array, batch, objective, noise, converter=(converters or {}).get(name),
            sweeps=sweeps, vectors=vectors, columns=columns, seed=seed, proof=proof,
        )
        for name, batch in inputs.items()
    }  # fmt: skip
    return network.replace_layers({name: found.layer for name, found in done.items()}), done


def _ordered(
    reads: Reads, table: Float[np.ndarray, " reads"], sweeps: int, rng: np.random.Generator, proof: bool
) -> tuple[Integer[np.ndarray, " rows"], float]:
    """(order, lower bound of the total) for rows that exchange places."""
    rows = len(reads.rows)
    if reads.windows < 2:
        return np.arange(rows), reads.total(table)
    every = reads.digits.shape[0] * reads.digits.shape[1] * reads.levels.shape[1]
    complete = every * rows <= CONTRIBUTIONS
    parts, weight = reads.sample(every if complete else min(SAMPLES, max(CONTRIBUTIONS // rows, 1)), rng)
    problem = Partition(parts, weight, table, reads.window, reads.label)
    given = np.arange(rows)
    if not parts.shape[1]:
        return given, reads.total(table)
    if proof and complete and choices(problem) <= EXACT_SETS:
        solved = solve(problem, EXACT_SECONDS)
        if solved is not None:
            silent = reads.total(table) - problem.value(problem.sums(given))
            return solved[0], solved[1] + silent
    sweeps = max(min(sweeps, int(SEARCH_WORK / (rows * reads.windows * len(weight)))), 1)
    starts = [given, layered(problem, rng), sorted_by_mass(problem)]
    best = anneal(problem, min(starts, key=lambda order: problem.value(problem.sums(order))), sweeps, rng)
    return best[0], lower_bound(reads, table, best[0]) if proof else 0.0
