"""The `crossbar` rung in torch operations: bit-equal to the CPU engine, for any device that torch knows.

Digits times cell slices are float GEMMs whose sums are far below 2^24, so every read is exact.
"""

from __future__ import annotations

import numpy as np
import torch

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate.adc import Adc
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.simulate.unfold import Fold
from crossloom.weave import InputTransform, WovenLayer, round_shift


def exact_dtype(bound: int) -> torch.dtype:
    """The float type whose GEMMs are exact on integers whose sums stay within `bound`.

    float32 only where torch is set to compute it as such: TF32 and bfloat16 products drop bits.

    Raises:
        InputError: beyond float64.
    """
    if bound >= 1 << 53:
        raise InputError("accumulator bound", bound, "below 2^53")
    full = torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if full and bound < 1 << 24 else torch.float64


def transform_rows(transform: InputTransform, x: torch.Tensor) -> torch.Tensor:
    """P x for integer vectors (V, K): (V, R), in int64 where P computes, else in the dtype of `x`."""
    for factor in transform.factors:
        if factor.selection is not None:
            x = x[:, torch.from_numpy(factor.selection).to(x.device)]
            continue
        entries = factor.matrix.tocoo()
        row, column, data = (
            torch.from_numpy(np.asarray(v, np.int64)).to(x.device) for v in (entries.row, entries.col, entries.data)
        )
        z = torch.zeros((len(x), factor.matrix.shape[0]), dtype=torch.int64, device=x.device)
        z.index_add_(1, row, x[:, column].to(torch.int64) * data)
        x = round_shift(z, torch.from_numpy(factor.shift).to(x.device))
    return x


class TensorEngine:
    """The crossbar in torch operations."""

    rung = "crossbar"

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """A kernel for one layer.

        Raises:
            InputError: the layer is not mapped onto arrays.
        """
        mapping = mapped(target, "tensor")
        layer, adc, device = mapping.layer, settings.converter(mapping), settings.device
        groups = [_Group(mapping, rows, at, device) for rows, at in _row_groups(mapping)]
        columns = layer.core.shape[0] * layer.core.shape[2]
        counts = torch.zeros(columns, dtype=torch.int64, device=device)
        weight = sum(digit.weight for digit in mapping.digits)
        for group in groups:
            counts.index_add_(0, group.outputs, group.gains * weight)
        reads = max((len(g.gains) for g in groups), default=1)
        step = max(
            settings.memory_budget
            // (8 * (6 * reads + 4 * layer.inputs + 2 * layer.core.size // max(layer.core.shape[2], 1) + columns)),
            1,
        )

        def kernel(x: torch.Tensor) -> torch.Tensor:
            fold = Fold.of(layer, tuple(x.shape))
            vectors = fold.vectors(x)
            parts = [_accumulate(mapping, adc, groups, counts, v) for v in vectors.split(step)]
            return fold.accumulators(torch.cat(parts))

        return kernel


def _row_groups(mapping: LayerMapping) -> list[tuple[int, slice]]:
    """Every group of rows that is driven at once: the block's number and the slice of its rows."""
    active = mapping.array.active_rows
    return [
        (i, slice(first, min(first + active, len(mapping.core_rows(block)))))
        for i, block in enumerate(mapping.blocks)
        for first in range(0, len(mapping.core_rows(block)), active)
    ]


class _Group:
    """The columns of one block over one group of rows, as tensors."""

    def __init__(self, mapping: LayerMapping, block_index: int, driven: slice, device: torch.device) -> None:
        block = mapping.blocks[block_index]
        cells, slices = mapping.cells(block), mapping.code.slices
        top = (1 << mapping.array.b_cell) - 1
        columns = mapping.core_columns(block)
        sign = cells.signs[driven.start // mapping.array.active_rows]
        gain = np.tile([s.gain for s in slices], len(columns))
        largest = top * ((1 << mapping.array.b_dac) - 1) * (driven.stop - driven.start)
        self.dtype = exact_dtype(largest)
        self.rows = torch.from_numpy(mapping.core_rows(block)[driven]).to(device)
        self.levels = torch.from_numpy(cells.levels[driven].astype(np.float64)).to(device, self.dtype)
        self.gains = torch.from_numpy(gain * sign).to(device)
        self.outputs = torch.from_numpy(np.repeat(columns, len(slices))).to(device)
        flips = np.where(cells.flipped, gain * top, 0).reshape(len(columns), -1).sum(1)
        self.columns = torch.from_numpy(columns).to(device)
        self.input_gain = torch.from_numpy(flips + mapping.code.input_gain).to(device)


def _accumulate(
    mapping: LayerMapping, adc: Adc, groups: list[_Group], counts: torch.Tensor, vectors: torch.Tensor
) -> torch.Tensor:
    z = transform_rows(mapping.layer.transform, vectors).to(torch.int64)
    codes = torch.zeros((len(vectors), len(counts)), dtype=torch.int64, device=z.device)
    correction = torch.zeros_like(codes)
    for group in groups:
        part = z[:, group.rows]
        correction.index_add_(1, group.columns, part.sum(1)[:, None] * group.input_gain)
        for digit in mapping.digits:
            piece = (part >> digit.lsb) & ((1 << digit.width) - 1)
            reads = (piece.to(group.dtype) @ group.levels).to(torch.int64)
            codes.index_add_(1, group.outputs, adc.code(reads) * (group.gains * digit.weight))
    total: torch.Tensor = adc.total(codes, counts) + correction
    return total
