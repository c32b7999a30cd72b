"""What the programmed cells of one array add up to, without writing each of them down.

Two sums are enough for cost: which columns are stored flipped, and the conductance that every row connects. Both
equal what `LayerMapping.cells` gives cell by cell; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from crossloom.mapping import Block, LayerMapping


def block_weights(mapped: LayerMapping, block: Block) -> Integer[np.ndarray, "rows outputs"]:
    """The weights of a block, a view of the core where one group fills it."""
    first, stop = block.groups
    if stop - first == 1:
        return mapped.layer.core[first, slice(*block.rows), slice(*block.columns)]
    return mapped.weights(block)


class CellTable:
    """The cells of every weight that a layer's code can hold.

    Args:
        mapped: the layer.
    """

    def __init__(self, mapped: LayerMapping) -> None:
        self.mapped = mapped
        code = mapped.code
        self.low = code.low
        self.top = (1 << mapped.array.b_cell) - 1
        values = np.arange(code.low, code.high + 1, dtype=np.int64)
        held = values[values != 0] if code.encoding == "binary" else values
        self.levels: UInt8[np.ndarray, "values slices"] = np.zeros((len(values), code.columns), np.uint8)
        self.levels[held - code.low] = code.encode(held[:, None])

    def flipped(self, block: Block) -> Bool[np.ndarray, " columns"]:
        """Which physical columns of a block hold the complement of their levels (`LayerMapping.cells`)."""
        weights = block_weights(self.mapped, block)
        if not self.mapped.array.flip:
            return np.zeros(weights.shape[1] * self.mapped.code.columns, bool)
        sums = _level_sums(weights, self.levels, self.low)
        return np.asarray(sums.reshape(-1) * 2 > self.top * weights.shape[0])

    def row_conductance(self, block: Block, conductances: Sequence[float]) -> Float[np.ndarray, " rows"]:
        """Sum of the conductances of all cells on each row of a block, in siemens.

        Args:
            block: one of the layer's blocks.
            conductances: of the 2^b_cell levels, lowest first.
        """
        weights = block_weights(self.mapped, block)
        of_level = np.asarray(conductances, np.float64)
        plain = of_level[self.levels]
        change = of_level[self.top - self.levels] - plain
        flips = self.flipped(block).reshape(weights.shape[1], -1)
        return np.asarray(_row_sums(weights, plain.sum(1), change, flips, flips.any(1), self.low))


@numba.njit(cache=True)
def _level_sums(weights, levels, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    rows, outputs = weights.shape
    slices = levels.shape[1]
    sums = np.zeros((outputs, slices), np.int64)
    for r in range(rows):
        for n in range(outputs):
            value = weights[r, n] - low
            for s in range(slices):
                sums[n, s] += levels[value, s]
    return sums


@numba.njit(cache=True)
def _row_sums(weights, plain, change, flips, any_flip, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    rows, outputs = weights.shape
    sums = np.zeros(rows, np.float64)
    for r in range(rows):
        total = 0.0
        for n in range(outputs):
            value = weights[r, n] - low
            total += plain[value]
            if any_flip[n]:
                for s in range(change.shape[1]):
                    if flips[n, s]:
                        total += change[value, s]
        sums[r] = total
    return sums
