"""The analog rung as its formulas say, read by read, in float64 loops: the oracle of the fast analog kernels.

Slow on purpose, and without random reads: read and conversion noise are tested against closed forms instead.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Integer

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate.adc import Adc
from crossloom.simulate.analog_chip import AnalogChip, Converters, inl_curve, program_block, row_groups, slice_gains
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.simulate.unfold import Fold
from crossloom.weave import WovenLayer


def steps(p: Float[np.ndarray, " reads"], adc: Adc, errors: Converters, column: int) -> Float[np.ndarray, " reads"]:
    """The converter's input in steps before rounding, static errors included."""
    v = (p * adc.denominator - adc.low) / adc.step
    u = np.clip(v, 0, adc.top) / adc.top
    return np.asarray(errors.gain[column] * v + errors.offset[column] + inl_curve(errors.inl[:, column], u))


def accumulate(
    mapping: LayerMapping, adc: Adc, chip: AnalogChip, x: Integer[np.ndarray, "vectors inputs"], copy: int = 0
) -> Integer[np.ndarray, "vectors columns"]:
    """Accumulators of one copy of a layer on one chip, int64."""
    layer, array = mapping.layer, mapping.array
    z = layer.transform.apply(x)
    outputs = layer.core.shape[0] * layer.core.shape[2]
    codes, correction = np.zeros((len(x), outputs), np.int64), np.zeros((len(x), outputs), np.int64)
    count = np.zeros(outputs, np.int64)
    top = (1 << array.b_cell) - 1
    for index, block in enumerate(mapping.blocks):
        made = program_block(mapping, index, copy, chip)
        rows, columns = mapping.core_rows(block), mapping.core_columns(block)
        gains = slice_gains(mapping, made.signs)
        for driven, gain in zip(row_groups(mapping, index), gains, strict=True):
            for digit in mapping.digits:
                piece = (z[:, rows[driven]] >> digit.lsb) & ((1 << digit.width) - 1)
                for c in range(len(gain)):
                    n = columns[c // mapping.code.columns]
                    p = (piece * made.weights[driven, c]).sum(1)
                    code = np.clip(np.floor(steps(p, adc, made.converters, c) + 0.5), 0, adc.top).astype(np.int64)
                    if made.flipped[c]:
                        correction[:, n] -= gain[c] * top * digit.weight * piece.sum(1)
                    codes[:, n] += gain[c] * digit.weight * code
                    count[n] += gain[c] * digit.weight
        correction[:, columns] += mapping.code.input_gain * z[:, rows].sum(1)[:, None]
    return np.asarray(adc.total(codes, count) + correction)


class AnalogReferenceEngine:
    """The oracle as an engine."""

    rung = "analog"

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """A kernel for one layer.

        Raises:
            InputError: the layer is not mapped, no chip is given, or its reads are random.
        """
        mapping = mapped(target, "analog-reference")
        adc, chip = settings.converter(mapping), settings.analog
        if chip is None:
            raise InputError("analog", None, "the chip to simulate")
        if chip.noisy_cells or mapping.array.adc_errors.noise_sigma:
            raise InputError("engine", "analog-reference", "a chip without read noise; this engine draws none")

        def kernel(x: torch.Tensor) -> torch.Tensor:
            fold = Fold.of(mapping.layer, tuple(x.shape))
            vectors = fold.vectors(x.cpu()).numpy().astype(np.int64)
            position = np.arange(len(vectors)) % (fold.positions // max(fold.batch[0], 1) or 1)
            out = np.zeros((len(vectors), mapping.layer.core.shape[0] * mapping.layer.core.shape[2]), np.int64)
            for copy in range(mapping.copies):
                mine = position % mapping.copies == copy
                out[mine] = accumulate(mapping, adc, chip, vectors[mine], copy)
            return fold.accumulators(torch.from_numpy(out)).to(x.device)

        return kernel
