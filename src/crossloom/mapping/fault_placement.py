"""Fault-aware placement: rows and columns permuted so that a chip's stuck cells meet weights that do not mind.

A chip's stuck cells are known after its test. A row of a block may go to any row of its array, and a weight column to
any place among its array's weight columns, as long as all arrays of the same row band (column band) agree. Putting
logical row i on physical row j costs what the faults there do to it,

    cost(i, j) = a_i · Σ_c gain_c² · (stuck level(j, c) − level(i, c))²   over the stuck cells (j, c),

with a_i the mean square of the input; a linear assignment finds the best permutation, rows and columns in turns. Blocks
stay whole: a block of zeros keeps having no array.

The result is a program: P has one more permutation (rows), Q scatters other columns, and every output is the same
where no cell is stuck. Column placement costs nothing where the next layer's rows follow; row placement needs an index
table in front of the array, which the cost model counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int8, Integer
from scipy.optimize import linear_sum_assignment

from crossloom.errors import InputError
from crossloom.mapping.blocks import Block, LayerMapping, cut
from crossloom.weave import InputTransform, WovenLayer

HRS, LRS = 1, 2
"""Fault codes: stuck at level 0, and at the top level; 0 is a healthy cell."""

Faults = Sequence[Int8[np.ndarray, "rows columns"]]
"""One map per block of a layer, in the order of its blocks."""


def damage(mapping: LayerMapping, faults: Faults, activity: Float[np.ndarray, " rows"] | None = None) -> float:
    """Σ a_row · gain² · (stuck level − level)² over a layer's stuck cells: what placement makes small.

    Args:
        mapping: a layer on arrays.
        faults: of every block.
        activity: mean square of every row's input code; None: 1 for every row that P feeds.
    """
    total = 0.0
    for block, levels, fault, gains in _blocks(mapping, faults):
        a = (driven(mapping.layer) if activity is None else activity)[mapping.core_rows(block)]
        total += float((a[:, None] * _squares(mapping, levels, fault) * gains**2).sum())
    return total


def driven(layer: WovenLayer) -> Float[np.ndarray, " rows"]:
    """1 for every row of P x that has an input, 0 for the others."""
    if layer.transform.is_identity:
        return np.ones(layer.transform.rows)
    return np.asarray(np.diff(layer.transform.matrix().tocsr().indptr) > 0, float)


def _blocks(mapping: LayerMapping, faults: Faults) -> Iterator[tuple[Block, np.ndarray, np.ndarray, np.ndarray]]:
    """(block, levels, faults, gain of every physical column) of a layer's blocks."""
    if len(faults) != len(mapping.blocks):
        raise InputError("faults", len(faults), f"{len(mapping.blocks)} maps, one per block of {mapping.layer.name!r}")
    gains = np.array([s.gain for s in mapping.code.slices], float)
    for block, fault in zip(mapping.blocks, faults, strict=True):
        levels = mapping.cells(block).levels.astype(float)
        if levels.shape != fault.shape:
            raise InputError("faults", fault.shape, f"a map of shape {levels.shape}")
        yield block, levels, fault, np.tile(gains, levels.shape[1] // len(gains))


def _squares(mapping: LayerMapping, levels: np.ndarray, fault: np.ndarray) -> np.ndarray:
    top = (1 << mapping.array.b_cell) - 1
    return np.asarray((fault == HRS) * levels**2 + (fault == LRS) * (top - levels) ** 2)


def row_costs(
    levels: Float[np.ndarray, "rows columns"], fault: Int8[np.ndarray, "rows columns"],
    gains: Float[np.ndarray, " columns"], top: int,
) -> Float[np.ndarray, "logical physical"]:  # fmt: skip
    """What every logical row would suffer on every physical row of one array."""
    weight = gains**2
    low = (levels**2 * weight) @ (fault == HRS).T.astype(float)
    return np.asarray(low + ((top - levels) ** 2 * weight) @ (fault == LRS).T.astype(float))


def column_costs(
    levels: Float[np.ndarray, "rows columns"], fault: Int8[np.ndarray, "rows columns"],
    gains: Float[np.ndarray, " slices"], top: int, activity: Float[np.ndarray, " rows"],
) -> Float[np.ndarray, "logical physical"]:  # fmt: skip
    """What every logical weight column would suffer on every weight column of one array."""
    slices = len(gains)
    cells = levels.reshape(len(levels), -1, slices).transpose(1, 0, 2)
    weight = activity[:, None] * gains**2
    spots = fault.reshape(len(fault), -1, slices).transpose(1, 0, 2)
    low = np.einsum("nhs,mhs->nm", cells**2 * weight, (spots == HRS).astype(float))
    return np.asarray(low + np.einsum("nhs,mhs->nm", (top - cells) ** 2 * weight, (spots == LRS).astype(float)))


def _permuted(
    layer: WovenLayer, rows: Integer[np.ndarray, " rows"], columns: Integer[np.ndarray, " columns"]
) -> WovenLayer:
    """The layer with physical row j holding logical row rows[j], and likewise columns."""
    core = layer.core[:, rows][:, :, columns]
    if not np.array_equal(rows, np.arange(len(rows))):
        layer = layer.with_rows(InputTransform.select(len(rows), rows), core)
    place = np.argsort(columns)
    old = layer.output.columns
    scattered = place if old is None else np.where(old >= 0, place[np.maximum(old, 0)], -1)
    output = layer.output
    if not np.array_equal(columns, np.arange(len(columns))):
        output = replace(output, columns=scattered.astype(np.int64))
    return replace(layer, core=core.astype(np.int32), output=output)


def filled(mapping: LayerMapping) -> WovenLayer:
    """The layer with its last arrays filled up by rows that nothing drives and columns that nothing reads.

    Placement can then choose among all rows and columns of an array: a first convolution of 25 rows finds the best 25
    of 128. No array is added.

    Raises:
        InputError: a grouped layer.
    """
    layer = mapping.layer
    if layer.groups > 1:
        raise InputError(f"layers.{layer.name}", f"{layer.groups} groups", "one group for fault-aware placement")
    _, rows, columns = layer.core.shape
    more, wider = -rows % mapping.row_capacity, -columns % mapping.column_capacity
    core = np.pad(layer.core, ((0, 0), (0, more), (0, wider)))
    if wider and layer.output.columns is None:
        layer = replace(layer, output=replace(layer.output, columns=np.arange(columns)), core=core[:, :rows])
    return layer.with_rows(InputTransform.sum(range(rows), rows + more), core) if more else replace(layer, core=core)


def place(
    mapping: LayerMapping, faults: Faults, *, rows: bool = True, columns: bool = True, rounds: int = 2,
    activity: Float[np.ndarray, " rows"] | None = None,
) -> WovenLayer:  # fmt: skip
    """The layer with its rows and columns where the chip's stuck cells hurt least.

    Args:
        mapping: the layer on the chip's arrays.
        faults: the chip's known stuck cells, a map per block of the layer (0, `HRS`, `LRS`).
        rows: whether rows may be permuted.
        columns: whether weight columns may be.
        rounds: how often rows and columns take turns.
        activity: mean square of every row's input code, from a calibration batch; None: 1 for every row that P feeds.

    Raises:
        InputError: maps that do not fit the blocks, a grouped layer, or rows to move whose weights share signs.
    """
    layer = mapping.layer
    if rows and mapping.array.fragment is not None:
        expected = "false on polarised arrays: rows that share signs stay together"
        raise InputError("place.rows", rows, expected, "false")
    if layer.groups > 1:
        raise InputError(f"layers.{layer.name}", f"{layer.groups} groups", "one group for fault-aware placement")
    top = (1 << mapping.array.b_cell) - 1
    gains = np.array([s.gain for s in mapping.code.slices], float)
    row_order, column_order = np.arange(layer.core.shape[1]), np.arange(layer.core.shape[2])
    weight = driven(layer) if activity is None else np.asarray(activity, float)
    for _ in range(rounds):
        now = cut(_permuted(layer, row_order, column_order), mapping.array)
        found = list(_blocks(now, faults))
        for band in sorted({b.rows for b in now.blocks}) if rows else ():
            cost = sum(row_costs(lv, f, g, top) for b, lv, f, g in found if b.rows == band)
            logical, physical = linear_sum_assignment(np.asarray(cost) * weight[row_order[slice(*band)], None])
            row_order[slice(*band)] = row_order[slice(*band)][logical[np.argsort(physical)]]
        now = cut(_permuted(layer, row_order, column_order), mapping.array)
        found = list(_blocks(now, faults))
        for band in sorted({b.columns for b in now.blocks}) if columns else ():
            cost = sum(
                column_costs(lv, f, gains, top, weight[row_order[slice(*b.rows)]])
                for b, lv, f, _ in found
                if b.columns == band
            )
            logical, physical = linear_sum_assignment(np.asarray(cost))
            column_order[slice(*band)] = column_order[slice(*band)][logical[np.argsort(physical)]]
    return _permuted(layer, row_order, column_order)


def place_all(
    layers: Dictionary[str, LayerMapping], faults: Dictionary[str, Faults], *, rows: bool = True, columns: bool = True,
    activity: Dictionary[str, Float[np.ndarray, " rows"]] | None = None,
) -> dict[str, WovenLayer]:  # fmt: skip
    """`place` for every layer of a chip; what `Program.replace_layers` takes. Grouped layers stay as they are."""
    return {
        name: place(m, faults[name], rows=rows, columns=columns, activity=(activity or {}).get(name))
        for name, m in layers.items()
        if m.layer.groups == 1
    }
