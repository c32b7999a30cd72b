"""The `crossbar` rung on a CPU: plans the reads of a layer for the bit-sliced kernels of `planes`.

What is simulated is what is programmed (`LayerMapping.cells`). A column's rows are known when the layer is prepared,
so the plan is a list of rows per read; data only fills planes. Where the converter cannot change any read, the
integer product is the same number and takes its place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate import columns, planes
from crossloom.simulate.adc import Adc
from crossloom.simulate.converter import Converter, compiled
from crossloom.simulate.crossbar_plan import Plan, plan
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.simulate.gather import transpose
from crossloom.simulate.integer import IntegerEngine, RowSource, columns_first
from crossloom.simulate.lanes import PLANE, WORDS
from crossloom.simulate.tensor import TensorEngine
from crossloom.weave import InputTransform, WovenLayer


class CrossbarEngine:
    """The bit-sliced crossbar."""

    rung = "crossbar"

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """A kernel for one layer.

        Raises:
            InputError: the layer is not mapped onto arrays, or its sums leave 62 bits.
        """
        mapping = mapped(target, "crossbar")
        adc = settings.converter(mapping)
        if settings.device.type != "cpu":
            return TensorEngine().prepare(mapping, settings)
        if settings.shortcut and adc.lossless(mapping.array.read_max):
            return IntegerEngine().prepare(mapping, settings)
        reads = plan(mapping)
        if settings.shortcut and adc.lossless(reads.largest_read):
            return IntegerEngine().prepare(mapping, settings)
        return _Crossbar(mapping, reads, adc, settings)


class _Crossbar:
    """The kernel of one layer."""

    def __init__(self, mapping: LayerMapping, reads: Plan, adc: Adc, settings: Settings) -> None:
        layer, transform = mapping.layer, mapping.layer.transform
        self.layer, self.adc, self.budget = layer, adc, settings.memory_budget
        self.plan = reads
        selection = transform.factors[0].selection if len(transform.factors) == 1 else None
        self.direct = transform.is_identity or selection is not None
        identity = InputTransform.identity(transform.rows)
        self.source = RowSource(layer, selection, identity if self.direct else transform)
        self.rows, self.height = transform.rows, int(reads.places.max(initial=0)) + 1
        self.bits = layer.row_format.bits
        self.fields = mapping.digits
        self.digits = np.array([(d.lsb, d.sign) for d in mapping.digits], np.int64)
        self.digit_bits = max(d.width for d in mapping.digits)
        converter = Converter.of(adc, self.plan.largest_read, int(self.plan.slot_reads.max(initial=1)))
        self.read_planes, self.slot_planes = converter.planes, converter.accumulator
        self.converter = compiled(converter)
        self.silent = int(adc.code(np.zeros(1, np.int64))[0]) == 0
        self._sizes(mapping, converter.top)

    def _sizes(self, mapping: LayerMapping, top_code: int) -> None:
        shift, sign = self.plan.slots[:, 1], self.plan.slots[:, 2]
        reach = np.zeros((2, self.plan.outputs), object)
        for d in mapping.digits:
            side = (sign * d.sign < 0).astype(np.int64)
            largest = self.plan.slot_reads.astype(object) * top_code * 2 ** (shift + d.lsb).astype(object)
            np.add.at(reach, (side, self.plan.slot_output), largest)
        bound = int(reach.max(initial=1))
        self.sum_planes = bound.bit_length() + 1
        value = 2 * (self.adc.step * bound + abs(self.adc.low) * int(np.abs(self.plan.count).max(initial=0)))
        value += self.adc.denominator
        if value >= 1 << 62:
            raise InputError("array.b_adc", self.adc.bits, "sums of codes times the converter's step below 2^62")
        adc = self.adc
        self.numbers = np.array([adc.step, adc.low, adc.denominator, value < 1 << 52], np.int64)
        p = self.plan
        gains = np.zeros(len(p.correction_start) - 1, np.int64)
        terms = np.abs(p.corrections) * np.diff(p.band_start)[p.correction_band]
        np.add.at(gains, np.repeat(np.arange(len(gains)), np.diff(p.correction_start)), terms)
        form = mapping.layer.row_format
        total = value // (2 * self.adc.denominator) + 1 + int(gains.max(initial=0)) * max(form.high, -form.low)
        self.dtype = torch.int32 if total < 1 << 31 else torch.int64

    def _layout(self, words: int) -> np.ndarray:
        layout = np.zeros((3, self.bits), np.int64)
        for number, digit in enumerate(self.fields):
            for bit in range(digit.width):
                layout[:2, digit.lsb + bit] = number, bit
        layout[2] = words
        return layout

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        fold, geometry, codes = self.source.open(x)
        positions = fold.positions
        out = torch.empty((self.plan.outputs, positions), dtype=self.dtype)
        words = WORDS
        while words > 1 and 64 * words >= 2 * positions:
            words //= 2
        vectors = -(-len(self.digits) * words // WORDS)
        chunk_bytes = self.digit_bits * vectors * self.height * PLANE
        position_bytes = self.dtype.itemsize * self.plan.outputs + 8 * len(self.plan.band_start)
        position_bytes += self.layer.inputs * x.itemsize if self.direct else 8 * (self.rows + self.layer.inputs)
        wave = max(int(self.budget // (chunk_bytes + 64 * words * position_bytes)), 1)
        wave = min(wave, -(-positions // (64 * words)))
        shape = (wave, self.digit_bits, vectors, self.height, WORDS)
        packed = planes.aligned(math.prod(shape)).reshape(shape)
        layout = self._layout(words)
        p = self.plan
        sizes = [p.per_block, words, self.read_planes, self.slot_planes, self.sum_planes]
        for first in range(0, positions, wave * 64 * words):
            count = min(wave * 64 * words, positions - first)
            part = packed[: -(-count // (64 * words))]
            target = out[:, first : first + count]
            self._wave(codes, fold, geometry, first, count, part, layout, np.array(sizes), target)
        return columns_first(out, fold)

    def _wave(
        self,
        codes: np.ndarray,
        fold: Any,
        geometry: Any,
        first: int,
        count: int,
        packed: np.ndarray,
        layout: np.ndarray,
        sizes: np.ndarray,
        out: torch.Tensor,
    ) -> None:
        p = self.plan
        narrow = self.direct and codes.itemsize == 1
        sums = np.zeros((len(p.band_start) - 1, count), np.int32 if narrow else np.int64)
        bands = p.band_rows, p.places, p.band_start, layout, packed, sums
        if self.direct and fold.convolution is not None:
            border = codes.dtype.type(fold.fill)
            planes.pack_image(codes, geometry.rows, geometry.shape, border, first, first + count, *bands)
        elif self.direct:
            z = transpose(codes.reshape(-1, fold.inputs)[first : first + count])
            planes.pack_rows(z, geometry.rows[:, 0].copy(), *bands)
        else:
            z = self.source.rows(codes, fold, geometry, first, count)
            planes.pack_rows(z, np.arange(self.rows), *bands)
        added = np.empty((len(p.correction_start) - 1, count), out.numpy().dtype)
        columns.correct(sums, p.correction_start, p.correction_band, p.corrections.astype(added.dtype), added)
        driven = np.ones((len(packed), packed.shape[2], len(p.groups)), bool)
        if self.silent:
            planes.find_ones(packed, p.groups, driven)
        columns.read_columns(
            packed, driven, p.unit_start, p.unit_group, p.step_start, p.steps, p.rows, p.slot_start, p.slots,
            self.digits, sizes, self.converter.address, p.count, self.numbers, added, p.pattern, out.numpy(),
        )  # fmt: skip
