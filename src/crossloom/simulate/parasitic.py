"""The exact transfer matrix of a crossbar with resistive wires: I = M·V.

A crossbar of ohmic cells between resistive wires is a linear network, so the currents that its columns deliver are
a fixed matrix times the voltages that its rows are driven with. M is found once per programmed array; from then
on a read with IR drop costs what a read without costs.

The network (one convention, shared with the netlists of `crossloom.simulate.spice`):

    V_i ─[driver]─ w(i,0) ─[row segment]─ w(i,1) ─ … ─ w(i,W−1)          wordline i, driven at column 0
                     │ G(i,0)                │ G(i,1)
                   b(i,0)                  b(i,1)
                     │ [column segment]
                   b(i+1,0) … b(H−1,0) ─[sense]─ 0 V                     bitline j, sensed below row H−1

Segments lie between neighbouring cells only; all that lies between a source and its first cell, or between the last
cell and the converter's virtual ground, is the driver's and the sense resistance. A row that is not driven is held at
0 V through its driver.

M is the star–mesh reduction of this network to its terminals (Rosen, Bull. AMS 30, 1924: removing a node k joins its
neighbours p, q by c_pk·c_qk / Σ_r c_kr). It only adds, multiplies and divides positive numbers, so every entry of M
has nearly full relative precision whatever the ratio of cells to wires, and a wire of 0 Ω is taken as one 10³⁰ times
more conductive than anything else without loss. Nodes are removed by nested dissection (George, SIAM J. Numer. Anal.
10, 1973): tiles of cells first, then their common edges, two regions at a time. An n × n array takes O(n³) operations
where eliminating it column by column takes O(n⁴).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64
from threadpoolctl import threadpool_limits

from crossloom.errors import InputError
from crossloom.hardware import Array
from crossloom.simulate.parasitic_regions import reduce_regions
from crossloom.simulate.parasitic_tiles import reduce_tiles

SHORT = 1e30
"""Conductance, relative to the largest cell, from which a resistor is as good as none: far beyond float64's 1e16."""

WORKING_BYTES = 512
"""Bytes of working space per cell: the reduced tiles (16 float64 a cell), and their copies while they are joined."""


@dataclass(frozen=True)
class Wires:
    """Everything resistive around the cells of an array, in ohm.

    Attributes:
        row_segment: one wordline segment between neighbouring cells.
        column_segment: one bitline segment between neighbouring cells.
        driver: between a row's source and its first cell, at each driven end.
        sense: between a column's last cell and virtual ground, at each sensed end.
        drive: `left` (at column 0) or `both` ends of every row.
        collect: `bottom` (below the last row) or `both` ends of every column; the current is the sum of both ends.

    Raises:
        InputError: a resistance that is negative or not finite, or an unknown side.
    """

    row_segment: float = 0.0
    column_segment: float = 0.0
    driver: float = 0.0
    sense: float = 0.0
    drive: Literal["left", "both"] = "left"
    collect: Literal["bottom", "both"] = "bottom"

    def __post_init__(self) -> None:
        for name in ("row_segment", "column_segment", "driver", "sense"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"wires.{name}", value, "a resistance in ohm, 0 or more")
        if self.drive not in ("left", "both"):
            raise InputError.choice("wires.drive", self.drive, ("left", "both"))
        if self.collect not in ("bottom", "both"):
            raise InputError.choice("wires.collect", self.collect, ("bottom", "both"))

    @staticmethod
    def of(array: Array) -> Wires:
        """The wires of an array's description: driven at the left, sensed at the bottom."""
        segment = array.wire_resistance
        return Wires(segment, segment, array.driver_resistance, array.sense_resistance)

    @property
    def ideal(self) -> bool:
        """True if nothing drops a voltage: M is the transposed conductance matrix itself."""
        return not (self.row_segment or self.column_segment or self.driver or self.sense)


def effective_conductances(
    conductance: Float64[np.ndarray, "*arrays rows columns"],
    array: Array | Wires,
    *,
    memory_budget: int = 256 << 20,
) -> Float64[np.ndarray, "*arrays columns rows"]:
    """M of each array, in siemens: column currents = M @ row voltages.

    M is 0 or more; no row sum exceeds its column's Σ G and no column sum its row's, but a single entry may exceed its
    cell's G by what sneaks through other cells. With ideal wires M is Gᵀ, bit for bit.

    Args:
        conductance: cell conductances G in siemens, 0 or more; any leading axes are a batch.
        array: the array's description, or its wires.
        memory_budget: bytes of working space; at least one array is worked on at a time (512 bytes a cell).

    Raises:
        InputError: a conductance that is negative or not finite, or fewer than two axes.
    """
    wires = array if isinstance(array, Wires) else Wires.of(array)
    g = np.asarray(conductance, np.float64)
    if g.ndim < 2:
        raise InputError("conductance", g.shape, "(…, rows, columns)")
    if not np.isfinite(g).all() or (g.size and g.min() < 0):
        raise InputError(
            "conductance", "negative, infinite or NaN entries", "finite conductances in siemens, 0 or more"
        )
    if wires.ideal:
        return np.ascontiguousarray(np.swapaxes(g, -1, -2))
    *batch, rows, columns = g.shape
    flat = g.reshape(-1, rows, columns)
    transfer = np.zeros((len(flat), columns, rows))
    if g.size and g.max() > 0:
        step = max(memory_budget // (WORKING_BYTES * rows * columns), 1)
        for first in range(0, len(flat), step):
            transfer[first : first + step] = _transfer(flat[first : first + step], wires, float(g.max()))
    return transfer.reshape(*batch, columns, rows)


def _transfer(
    g: Float64[np.ndarray, "arrays rows columns"], wires: Wires, unit: float
) -> Float64[np.ndarray, "arrays columns rows"]:
    """`effective_conductances` of one part of a batch; `unit` is the conductance all others are divided by."""
    _, rows, columns = g.shape
    height, width = _tile(rows), _tile(columns)
    both_driven, both_sensed = wires.drive == "both", wires.collect == "both"
    along = _half_segments(columns, width, wires.row_segment, wires.driver, unit, both_driven)
    up = _half_segments(rows, height, wires.column_segment, wires.sense, unit, both_sensed)
    cells = np.zeros((len(g), len(up[0]), len(along[0])))
    cells[:, :rows, :columns] = g[:, ::-1] / unit
    with threadpool_limits(1, "blas"):  # arrays are shared out between threads already; BLAS's own would fight them
        tiles = reduce_tiles(cells, *along, *up, height, width)
        reduced = reduce_regions(tiles, height, width, both_driven, both_sensed)
    return np.swapaxes(reduced[:, :rows, :columns][:, ::-1], 1, 2) * unit


def _tile(length: int) -> int:
    """Side of the tiles that a side of `length` is cut in: a power of two, at most 16."""
    return min(16, 1 << (length - 1).bit_length())


def _half_segments(
    length: int, tile: int, segment: float, end: float, unit: float, both: bool
) -> tuple[Float64[np.ndarray, " padded"], Float64[np.ndarray, " padded"]]:
    """Conductance, over `unit`, of each cell's half segments towards the near end (driver, sense) and away from it.

    Cells beyond `length` fill the last tile. They hold nothing; where the far end is connected, they pass it through.
    """

    def conductance(resistance: float) -> float:
        return SHORT if resistance * unit * SHORT <= 1 else 1 / (resistance * unit)

    padded = -(-length // tile) * tile
    near, far = np.full((2, padded), conductance(segment / 2))
    near[0], far[length - 1] = conductance(end), conductance(end) if both else 0.0
    near[length:] = far[length:] = SHORT if both else 0.0
    return near, far
