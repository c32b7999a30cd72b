"""Where a block lies in its physical array, whose every cell, used or not, hangs on the same wires.

Wordlines are numbered from the sense amplifiers and bitlines from the drivers, so a block smaller than its array lies
next to both. The transfer matrix and the netlist count rows from the far end: row r of a block is their row H − 1 − r.
The other cells are blank, in their high-resistance state; their rows are held at 0 V and their columns are sensed but
not read. A reference column, where there is one, is one further than the array's own columns.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from crossloom.hardware import Array


def physical(
    conductance: Float64[np.ndarray, "rows columns"],
    array: Array,
    blank: float,
    reference: Float64[np.ndarray, " rows"] | None = None,
) -> Float64[np.ndarray, "array_rows array_columns"]:
    """Conductances of the whole array in siemens, far row first: block, blank cells, and a reference column if any."""
    rows, columns = conductance.shape
    whole = np.full((array.rows, array.columns + (reference is not None)), blank)
    whole[:rows, :columns] = conductance
    if reference is not None:
        whole[:rows, -1] = reference
    return np.ascontiguousarray(whole[::-1])


def driven(voltages: Float64[np.ndarray, " rows"], array: Array) -> Float64[np.ndarray, " array_rows"]:
    """Voltages of all rows of the array, far row first, given those of the block's."""
    whole = np.zeros(array.rows)
    whole[: len(voltages)] = voltages
    return whole[::-1].copy()


def of_block(
    transfer: Float64[np.ndarray, "array_columns array_rows"], rows: int, columns: slice
) -> Float64[np.ndarray, "rows columns"]:
    """The part of a whole array's transfer matrix that a block reads, laid out as the block's cells are."""
    return np.ascontiguousarray(transfer[columns, ::-1][:, :rows].T)
