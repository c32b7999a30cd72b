"""What the programmed cells of one array add up to, without writing each of them down.

Two sums are enough for cost: which columns are stored flipped, and the conductance that every row connects. Both
equal what `LayerMapping.cells` gives cell by cell; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from jaxtyping import Bool, Float, UInt8

from crossloom.mapping import Block, LayerMapping


class CellTable:
    """The cells of every weight that a layer's code can hold.

    Args:
        mapped: the layer.
    """

    def __init__(self, mapped: LayerMapping) -> None:
        self.mapped = mapped
        code = mapped.code
        self.low = code.low
        self.core = np.ascontiguousarray(mapped.layer.core, np.int32)
        self.top = (1 << mapped.array.b_cell) - 1
        values = np.arange(code.low, code.high + 1, dtype=np.int64)
        held = values[values != 0] if code.encoding == "binary" else values
        self.levels: UInt8[np.ndarray, "values slices"] = np.zeros((len(values), code.columns), np.uint8)
        self.levels[held - code.low] = code.encode(held[:, None])

    def _region(self, block: Block) -> tuple[np.ndarray, tuple[int, int, int, int, int]]:
        """A core and the (group, first row, row stop, first column, column stop) in it that hold a block's weights."""
        (g0, g1), (r0, r1), (n0, n1) = block.groups, block.rows, block.columns
        if g1 - g0 == 1:
            return self.core, (g0, r0, r1, n0, n1)
        packed = self.mapped.weights(block).astype(np.int32)
        return packed[None], (0, 0, packed.shape[0], 0, packed.shape[1])

    def flipped(self, block: Block) -> Bool[np.ndarray, " columns"]:
        """Which physical columns of a block hold the complement of their levels (`LayerMapping.cells`)."""
        core, region = self._region(block)
        _, r0, r1, n0, n1 = region
        if not self.mapped.array.flip:
            return np.zeros((n1 - n0) * self.mapped.code.columns, bool)
        sums = _level_sums(core, region, self.levels, self.low)
        return np.asarray(sums.reshape(-1) * 2 > self.top * (r1 - r0))

    def row_conductances(
        self, blocks: Sequence[Block], conductances: Sequence[float]
    ) -> list[Float[np.ndarray, " rows"]]:
        """`row_conductance` of many blocks; where nothing is flipped, in one pass over the core."""
        if not blocks:
            return []
        if self.mapped.array.flip or any(b.groups[1] - b.groups[0] > 1 for b in blocks):
            return [self.row_conductance(block, conductances) for block in blocks]
        regions = np.array([(b.groups[0], *b.rows, *b.columns) for b in blocks], np.int64).reshape(-1, 5)
        ends = np.cumsum(regions[:, 2] - regions[:, 1])
        weights = np.asarray(conductances, np.float64)[self.levels].sum(1)
        sums = _plain_sums(self.core, regions, ends, weights, self.low)
        return np.split(sums, ends[:-1])

    def row_conductance(self, block: Block, conductances: Sequence[float]) -> Float[np.ndarray, " rows"]:
        """Sum of the conductances of all cells on each row of a block, in siemens.

        Args:
            block: one of the layer's blocks.
            conductances: of the 2^b_cell levels, lowest first.
        """
        core, region = self._region(block)
        of_level = np.asarray(conductances, np.float64)
        plain = of_level[self.levels]
        change = of_level[self.top - self.levels] - plain
        flips = self.flipped(block).reshape(-1, self.mapped.code.columns)
        return np.asarray(_row_sums(core, region, plain.sum(1), change, flips, flips.any(1), self.low))


@numba.njit(cache=True)
def _level_sums(core, region, levels, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    g, r0, r1, n0, n1 = region
    slices = levels.shape[1]
    sums = np.zeros((n1 - n0, slices), np.int64)
    for r in range(r0, r1):
        for n in range(n0, n1):
            value = core[g, r, n] - low
            for s in range(slices):
                sums[n - n0, s] += levels[value, s]
    return sums


@numba.njit(cache=True)
def _plain_sums(core, regions, ends, weights, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    sums = np.zeros(ends[-1], np.float64)
    for b in range(len(regions)):
        g, r0, r1, n0, n1 = regions[b]
        start = ends[b] - (r1 - r0)
        for r in range(r0, r1):
            total = 0.0
            for n in range(n0, n1):
                total += weights[core[g, r, n] - low]
            sums[start + r - r0] = total
    return sums


@numba.njit(cache=True)
def _row_sums(core, region, plain, change, flips, any_flip, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    g, r0, r1, n0, n1 = region
    sums = np.zeros(r1 - r0, np.float64)
    for r in range(r0, r1):
        total = 0.0
        for n in range(n0, n1):
            value = core[g, r, n] - low
            total += plain[value]
            if any_flip[n - n0]:
                for s in range(change.shape[1]):
                    if flips[n - n0, s]:
                        total += change[value, s]
        sums[r - r0] = total
    return sums
