"""The analog rung in torch operations: any device, every option, the same bits as the CPU kernel on the narrow grid.

Digits times grid conductances are GEMMs of integers whose sums stay below 2^24, so they are exact in float32 and do
not depend on the order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate.analog_noise import (
    lane_of,
    narrow_variances,
    noisy_narrow,
    noisy_wide,
    normals,
    pools,
    vector_keys,
)
from crossloom.simulate.analog_plan import Plan, PlannedBlock, plan
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.simulate.tensor import exact_dtype, transform_rows
from crossloom.simulate.unfold import Fold
from crossloom.weave import Format, WovenLayer


@dataclass
class _Read:
    """Tensors of one row group of one block."""

    rows: torch.Tensor
    cells: torch.Tensor
    squares: torch.Tensor | None


class TensorPlan:
    """A plan with its tensors on a device."""

    def __init__(self, made: Plan, mapping: LayerMapping, device: torch.device) -> None:
        self.plan, self.mapping, self.device = made, mapping, device
        self.kind = exact_dtype(max(made.reach, 1 << 15))
        self.count = torch.from_numpy(made.count).to(device)
        self.tables = torch.from_numpy(pools().astype(np.int64)).to(device)
        self.blocks = [[self._read(b, i) for i in range(len(b.groups))] for b in made.blocks]

    def _read(self, block: PlannedBlock, i: int) -> _Read:
        group = block.groups[i]
        squares = block.noise[i].squares if block.noise else None
        return _Read(
            torch.from_numpy(block.rows[group]).to(self.device),
            torch.from_numpy(block.cells[group]).to(self.device, self.kind),
            None if squares is None else torch.from_numpy(squares).to(self.device, torch.float64),
        )

    def reads(self, block: int, group: int, digit: int, piece: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Column reads a (V, columns), int64, noise included, of one digit's pieces (V, rows of the group)."""
        planned, read = self.plan.blocks[block], self.blocks[block][group]
        driven = piece.to(self.kind)
        a = (driven @ read.cells).to(torch.int64)
        if not planned.noise:
            return a
        places = torch.from_numpy(planned.keys[group, :, digit].view(np.int64).copy()).to(self.device)
        lanes = torch.from_numpy(lane_of(a.shape[1], self.mapping.code.columns)).to(self.device)
        z = normals(places, keys, a.shape[1], self.tables)[:, lanes]
        squares = None if read.squares is None else (driven * driven).to(read.squares.dtype) @ read.squares
        if squares is not None and self.plan.grid.narrow:
            squares = squares.to(torch.int64)
        noise, made = planned.noise[group], self.plan
        if not made.grid.narrow:
            return noisy_wide(a, noise, piece.sum(1, dtype=torch.int64), squares, z)
        v = narrow_variances(a, noise, piece.sum(1, dtype=torch.int64), squares, piece.shape[1])
        return noisy_narrow(a, v, z, made.noise_factor, made.grid.bias)

    def codes(self, block: int, a: torch.Tensor) -> torch.Tensor:
        """The converter's decisions on reads, int64."""
        made, planned = self.plan, self.plan.blocks[block]
        if made.grid.narrow:
            m, c = (torch.from_numpy(v).to(self.device) for v in (planned.multiplier, planned.constant))
            reached = ((((a - made.grid.bias) * m) >> 16) + c).clamp(-32768, 32767)
            return (reached >> made.grid.shift).clamp(0, made.adc.top)
        errors = planned.converters
        if errors.ideal:
            return made.exact.code(a)  # type: ignore[no-any-return]
        v = (a.to(torch.float64) * made.adc.denominator - made.exact.low) / made.exact.step
        gain, offset = (torch.from_numpy(e).to(self.device) for e in (errors.gain, errors.offset))
        if errors.linear:
            return (v * gain + offset + 0.5).floor().clamp(0, made.adc.top).to(torch.int64)
        u = v.clamp(0, made.adc.top) / made.adc.top
        inl = torch.from_numpy(errors.inl).to(self.device)
        bow = inl[0] * (4 * u * (1 - u)) + inl[1] * (12 * 3**0.5 * u * (u - 0.5) * (u - 1))
        return (v * gain + offset + bow + 0.5).floor().clamp(0, made.adc.top).to(torch.int64)

    def accumulate(self, vectors: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Accumulators of input vectors (V, K), int64 (V, G·N')."""
        mapping, made = self.mapping, self.plan
        z = transform_rows(mapping.layer.transform, vectors)
        if z.dtype != torch.uint8:  # bytes stay bytes: most of the time goes into moving rows
            z = z.to(torch.int32 if mapping.layer.row_format.bits < 32 else torch.int64)
        total = torch.zeros((len(z), len(self.count)), dtype=torch.int64, device=self.device)
        correction = torch.zeros_like(total)
        slices = mapping.code.columns
        for i, block in enumerate(made.blocks):
            columns = torch.from_numpy(block.columns).to(self.device)
            flips = torch.from_numpy(block.flips).to(self.device)
            gains = torch.from_numpy(block.gains).to(self.device)
            rows = _columns(z, block.rows)
            if block.flips.any():
                correction.index_add_(1, columns, rows.sum(1, dtype=torch.int64)[:, None] * flips)
            summed = torch.zeros((len(z), len(gains)), dtype=torch.int64, device=self.device)
            for g, group in enumerate(block.groups):
                signs = torch.from_numpy(block.signs[g].astype(np.int64)).to(self.device)
                for d, digit in enumerate(mapping.digits):
                    piece = _piece(rows[:, group], digit.lsb, digit.width, mapping.layer.row_format)
                    summed += self.codes(i, self.reads(i, g, d, piece, keys)) * (signs * digit.weight)
            total.index_add_(1, columns, (summed * gains).reshape(len(z), -1, slices).sum(2))
        return made.adc.total(total, self.count) + correction  # type: ignore[no-any-return]


def _columns(z: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
    """Columns of a matrix, a view where they are neighbours."""
    if len(chosen) and np.array_equal(chosen, np.arange(chosen[0], chosen[0] + len(chosen))):
        return z[:, int(chosen[0]) : int(chosen[0]) + len(chosen)]
    return z[:, torch.from_numpy(chosen).to(z.device)]


def _piece(rows: torch.Tensor, lsb: int, width: int, form: Format) -> torch.Tensor:
    """One digit of every row; the rows themselves where it is all of them."""
    if lsb == 0 and width >= form.bits and not form.signed:
        return rows
    return (rows >> lsb) & ((1 << width) - 1)


class AnalogTensorEngine:
    """The analog rung in torch operations."""

    rung = "analog"

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """A kernel for one layer.

        Raises:
            InputError: the layer is not mapped onto arrays, or no chip is given.
        """
        mapping, chip = mapped(target, "analog-tensor"), settings.analog
        if chip is None:
            raise InputError("analog", None, "the chip to simulate")
        adc = settings.converter(mapping)
        return TensorKernel(mapping, [plan(mapping, adc, chip, c) for c in range(mapping.copies)], settings)


class TensorKernel:
    """The kernel of one layer on one chip; `settings.clock` numbers the images."""

    def __init__(self, mapping: LayerMapping, plans: list[Plan], settings: Settings) -> None:
        self.mapping, self.settings = mapping, settings
        self.plans = [TensorPlan(p, mapping, settings.device) for p in plans]
        widest = max((len(b.gains) for p in plans for b in p.blocks), default=1)
        layer = mapping.layer
        each = 8 * (12 * widest + 4 * layer.inputs + 3 * layer.core.shape[0] * layer.core.shape[2])
        self.step = max(settings.memory_budget // each, 1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Accumulators of input codes."""
        fold = Fold.of(self.mapping.layer, tuple(x.shape))
        vectors = fold.vectors(x)
        per_image = max(fold.positions // max(fold.batch[0], 1), 1)
        keys = vector_keys(0, len(vectors), per_image, self.settings.clock.first_image)
        names = torch.from_numpy(keys.view(np.int64)).to(x.device)
        out = torch.zeros((len(vectors), len(self.plans[0].count)), dtype=torch.int64, device=x.device)
        if len(self.plans) == 1:
            for first in range(0, len(vectors), self.step):
                part = slice(first, first + self.step)
                out[part] = self.plans[0].accumulate(vectors[part], names[part])
            return fold.accumulators(out)
        turn = np.arange(len(vectors)) % per_image % len(self.plans)
        for copy, made in enumerate(self.plans):
            mine = torch.from_numpy(np.flatnonzero(turn == copy)).to(x.device)
            for chosen in mine.split(self.step):
                out[chosen] = made.accumulate(vectors[chosen], names[chosen])
        return fold.accumulators(out)
