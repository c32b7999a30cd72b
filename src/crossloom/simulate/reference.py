"""The crossbar as DESIGN §2 says it, read by read, in plain NumPy loops: the oracle of every fast engine.

Slow on purpose. It sees programmed cells only, never the weights.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Integer

from crossloom.mapping import LayerMapping
from crossloom.simulate.adc import Adc
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.simulate.unfold import Fold
from crossloom.weave import WovenLayer


def accumulate(
    mapping: LayerMapping, adc: Adc, x: Integer[np.ndarray, "vectors inputs"]
) -> Integer[np.ndarray, "vectors columns"]:
    """Accumulators of one layer for a batch of input vectors, int64.

    Args:
        mapping: the layer on its arrays.
        adc: the converter behind every column.
        x: integer input codes.
    """
    layer, array = mapping.layer, mapping.array
    z = layer.transform.apply(x)
    outputs = layer.core.shape[0] * layer.core.shape[2]
    codes = np.zeros((len(x), outputs), np.int64)
    count = np.zeros(outputs, np.int64)
    correction = np.zeros((len(x), outputs), np.int64)
    top = (1 << array.b_cell) - 1
    slices = mapping.code.slices
    for block in mapping.blocks:
        cells = mapping.cells(block)
        rows, columns = mapping.core_rows(block), mapping.core_columns(block)
        for group, first in enumerate(range(0, len(rows), array.active_rows)):
            driven = slice(first, first + array.active_rows)
            for digit in mapping.digits:
                piece = (z[:, rows[driven]] >> digit.lsb) & ((1 << digit.width) - 1)
                for c in range(cells.levels.shape[1]):
                    n, gain = columns[c // len(slices)], slices[c % len(slices)].gain
                    code = adc.code((piece * cells.levels[driven, c].astype(np.int64)).sum(1))
                    if cells.flipped[c]:
                        correction[:, n] += gain * top * digit.weight * piece.sum(1)
                    gain *= int(cells.signs[group, c])
                    codes[:, n] += gain * digit.weight * code
                    count[n] += gain * digit.weight
        correction[:, columns] += mapping.code.input_gain * z[:, rows].sum(1)[:, None]
    return np.asarray(adc.total(codes, count) + correction)


class ReferenceEngine:
    """The brute-force engine, for tests and for `--engine reference`."""

    rung = "crossbar"

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """A kernel for one layer.

        Raises:
            InputError: the layer is not mapped onto arrays.
        """
        mapping = mapped(target, "reference")
        adc = settings.converter(mapping)

        def kernel(x: torch.Tensor) -> torch.Tensor:
            fold = Fold.of(mapping.layer, tuple(x.shape))
            vectors = fold.vectors(x.cpu()).numpy().astype(np.int64)
            return fold.accumulators(torch.from_numpy(accumulate(mapping, adc, vectors))).to(x.device)

        return kernel
