"""The `crossbar` rung on a CPU: plans the reads of a layer for the bit-sliced kernels of `planes`.

What is simulated is what is programmed (`LayerMapping.cells`). A column's rows are known when the layer is prepared,
so the plan is a list of rows per read; data only fills planes. Where the converter cannot change any read, the
integer product is the same number and takes its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate import planes
from crossloom.simulate.adc import Adc
from crossloom.simulate.converter import Converter, compiled
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.simulate.gather import transpose
from crossloom.simulate.lanes import PLANE, WORDS
from crossloom.simulate.integer import IntegerEngine, RowSource, columns_first
from crossloom.simulate.tensor import TensorEngine
from crossloom.weave import InputTransform, WovenLayer

SLOTS = 16
"""Column accumulators that a task works on between two rows' worth of inputs: they share the first-level cache."""


def largest_reads(mapping: LayerMapping) -> int:
    """The largest sum that any column of a mapped layer can give, from the cells that are programmed."""
    array, high = mapping.array, 0
    digit = max((1 << d.width) - 1 for d in mapping.digits)
    for block in mapping.blocks:
        levels = mapping.cells(block).levels.astype(np.int64)
        starts = np.arange(0, len(levels), array.active_rows)
        high = max(high, int(np.add.reduceat(levels, starts, axis=0).max(initial=0)) * digit)
    return high


@dataclass(frozen=True, eq=False)
class Plan:
    """The reads of one layer in the form that `planes.read_columns` takes; names are its."""

    read_start: np.ndarray
    read_slot: np.ndarray
    term_start: np.ndarray
    terms: np.ndarray
    rows: np.ndarray
    slot_start: np.ndarray
    slots: np.ndarray
    band_rows: np.ndarray
    band_start: np.ndarray
    gain_start: np.ndarray
    gain_band: np.ndarray
    gains: np.ndarray
    count: np.ndarray
    per_block: int
    outputs: int
    largest_read: int
    reads_per_slot: int


@dataclass
class _Read:
    slot: tuple[int, int, int]
    group: tuple[int, int]
    passes: list[tuple[np.ndarray, int]]


def plan(mapping: LayerMapping) -> Plan:
    """Work out every read: its rows, its accumulator, its gain and the digital corrections.

    Raises:
        InputError: a weight code whose gains are not powers of two.
    """
    layer, array, slices = mapping.layer, mapping.array, mapping.code.slices
    outputs = layer.core.shape[0] * layer.core.shape[2]
    zero_row = layer.core.shape[0] * layer.core.shape[1]
    top = (1 << array.b_cell) - 1
    if any(abs(s.gain) & (abs(s.gain) - 1) for s in slices):
        raise InputError("array.encoding", mapping.code.encoding, "a code whose gains are powers of two")
    per_block = max(SLOTS // len(slices), 1)
    bands: dict[tuple[int, ...], int] = {}
    reads: list[_Read] = []
    gains: dict[tuple[int, int], int] = {}
    count = np.zeros(outputs, np.int64)
    weight = sum(d.weight for d in mapping.digits)
    for block in mapping.blocks:
        cells, rows = mapping.cells(block), mapping.core_rows(block)
        columns = mapping.core_columns(block)
        band = bands.setdefault(tuple(rows.tolist()), len(bands))
        for c in range(cells.levels.shape[1]):
            n, gain, flipped = int(columns[c // len(slices)]), slices[c % len(slices)].gain, bool(cells.flipped[c])
            if flipped:
                gains[n, band] = gains.get((n, band), 0) + gain * top
                gain = -gain
            slot = (n, c % len(slices), 1 if gain > 0 else -1)
            for first in range(0, len(rows), array.active_rows):
                levels = cells.levels[first : first + array.active_rows, c]
                count[n] += gain * weight
                passes = []
                for bit in range(array.b_cell):
                    chosen = rows[first + np.flatnonzero((levels >> bit) & 1)]
                    passes += [(chosen[k : k + planes.SEGMENT], bit) for k in range(0, len(chosen), planes.SEGMENT)]
                reads.append(_Read(slot, (band, first), passes))
        for n in columns.tolist():
            gains[n, band] = gains.get((n, band), 0) + mapping.code.input_gain
    reads.sort(key=lambda r: (r.slot[0] // per_block, r.group, [len(rows) + 7 >> 3 for rows, _ in r.passes], r.slot))
    return _flatten(mapping, reads, gains, bands, count, per_block, outputs, zero_row)


def _flatten(
    mapping: LayerMapping,
    reads: list[_Read],
    gains: dict[tuple[int, int], int],
    bands: dict[tuple[int, ...], int],
    count: np.ndarray,
    per_block: int,
    outputs: int,
    zero_row: int,
) -> Plan:
    blocks = math.ceil(outputs / per_block)
    read_block = np.array([r.slot[0] // per_block for r in reads], np.int64)
    names = sorted({r.slot for r in reads}, key=lambda s: (s[0] // per_block, s))
    slot_block = np.array([n // per_block for n, _, _ in names], np.int64)
    slot_start = np.searchsorted(slot_block, np.arange(blocks + 1))
    number = {name: i - int(slot_start[name[0] // per_block]) for i, name in enumerate(names)}
    shift = [abs(s.gain).bit_length() - 1 for s in mapping.code.slices]
    slots = np.array([(n % per_block, shift[s], sign) for n, s, sign in names], np.int64).reshape(-1, 3)
    terms: list[tuple[int, int, int]] = []
    term_start, lists, at = [0], [], 0
    for read in reads:
        for chosen, bit in read.passes:
            padded = np.concatenate([chosen, np.full(-len(chosen) % 8, zero_row)])
            lists.append(padded)
            terms.append((at, at + len(padded), bit))
            at += len(padded)
        term_start.append(len(terms))
    corrected = sorted(key for key, gain in gains.items() if gain)
    used = np.bincount([_slot_index(slot_start, number, r, per_block) for r in reads], minlength=1)
    return Plan(
        read_start=np.searchsorted(read_block, np.arange(blocks + 1)),
        read_slot=np.array([number[r.slot] for r in reads], np.int64),
        term_start=np.array(term_start, np.int64),
        terms=np.array(terms, np.int64).reshape(-1, 3),
        rows=(np.concatenate([*lists, np.zeros(0, np.int64)]) * PLANE).astype(np.uint32),
        slot_start=slot_start,
        slots=slots,
        band_rows=np.array([r for band in bands for r in band], np.int64),
        band_start=np.cumsum([0, *(len(band) for band in bands)]),
        gain_start=np.searchsorted([n for n, _ in corrected], np.arange(outputs + 1)),
        gain_band=np.array([band for _, band in corrected], np.int64),
        gains=np.array([gains[key] for key in corrected], np.int64),
        count=count,
        per_block=per_block,
        outputs=outputs,
        largest_read=largest_reads(mapping),
        reads_per_slot=int(used.max(initial=1)),
    )


def _slot_index(slot_start: np.ndarray, number: dict[tuple[int, int, int], int], read: _Read, per_block: int) -> int:
    return int(slot_start[read.slot[0] // per_block]) + number[read.slot]


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
        if settings.shortcut and adc.lossless(largest_reads(mapping)):
            return IntegerEngine().prepare(mapping, settings)
        if settings.device.type != "cpu":
            return TensorEngine().prepare(mapping, settings)
        return _Crossbar(mapping, adc, settings)


class _Crossbar:
    """The kernel of one layer."""

    def __init__(self, mapping: LayerMapping, adc: Adc, settings: Settings) -> None:
        layer, transform = mapping.layer, mapping.layer.transform
        self.layer, self.adc, self.budget = layer, adc, settings.memory_budget
        self.plan = plan(mapping)
        selection = transform.factors[0].selection if len(transform.factors) == 1 else None
        self.direct = transform.is_identity or selection is not None
        identity = InputTransform.identity(transform.rows)
        self.source = RowSource(layer, selection, identity if self.direct else transform)
        self.rows = transform.rows
        self.bits = layer.row_format.bits
        self.fields = mapping.digits
        self.digits = np.array([(d.lsb, d.sign) for d in mapping.digits], np.int64)
        self.digit_bits = max(d.width for d in mapping.digits)
        converter = Converter.of(adc, self.plan.largest_read, self.plan.reads_per_slot)
        self.read_planes, self.slot_planes = converter.planes, converter.accumulator
        self.converter = compiled(converter)
        self._sizes(mapping, converter.top)

    def _sizes(self, mapping: LayerMapping, top_code: int) -> None:
        shift, sign = self.plan.slots[:, 1], self.plan.slots[:, 2]
        blocks = np.repeat(np.arange(len(self.plan.slot_start) - 1), np.diff(self.plan.slot_start))
        output = blocks * self.plan.per_block + self.plan.slots[:, 0]
        reads = np.bincount(
            np.repeat(self.plan.slot_start[:-1], np.diff(self.plan.read_start)) + self.plan.read_slot,
            minlength=len(shift),
        )
        reach = np.zeros((2, self.plan.outputs), object)
        for d in mapping.digits:
            for n, left, s, r in zip(output.tolist(), shift.tolist(), sign.tolist(), reads.tolist(), strict=True):
                reach[int(s * d.sign < 0), n] += r * top_code << (left + d.lsb)
        bound = int(reach.max(initial=1))
        self.sum_planes = bound.bit_length() + 1
        value = 2 * (self.adc.step * bound + abs(self.adc.low) * int(np.abs(self.plan.count).max(initial=0)))
        value += self.adc.denominator
        if value >= 1 << 62:
            raise InputError("array.b_adc", self.adc.bits, "sums of codes times the converter's step below 2^62")
        self.narrow = value < 1 << 52
        gains = np.zeros(self.plan.outputs, np.int64)
        lengths = np.diff(self.plan.band_start)
        np.add.at(
            gains,
            np.repeat(np.arange(self.plan.outputs), np.diff(self.plan.gain_start)),
            np.abs(self.plan.gains) * lengths[self.plan.gain_band],
        )
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
        threads = numba.get_num_threads()
        words = WORDS
        while words > 1 and 64 * words >= 2 * positions:
            words //= 2
        vectors = -(-len(self.digits) * words // WORDS)
        chunk_bytes = self.digit_bits * vectors * (self.rows + 1) * PLANE
        wide = self.sum_planes > 31
        position_bytes = (8 if wide else 4) * self.plan.outputs + 8 * len(self.plan.band_start)
        position_bytes += self.layer.inputs * x.itemsize if self.direct else 8 * (self.rows + self.layer.inputs)
        wave = max(int(self.budget // (chunk_bytes + 64 * words * position_bytes)), 1)
        wave = min(wave, -(-positions // (64 * words)))
        shape = (wave, self.digit_bits, vectors, self.rows + 1, WORDS)
        packed = planes.aligned(math.prod(shape)).reshape(shape)
        layout = self._layout(words)
        sizes = np.array([self.plan.per_block, words, self.read_planes, self.slot_planes, self.sum_planes], np.int64)
        for first in range(0, positions, wave * 64 * words):
            count = min(wave * 64 * words, positions - first)
            part = packed[: -(-count // (64 * words))]
            self._wave(codes, fold, geometry, first, count, part, layout, sizes, wide, out[:, first : first + count])
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
        wide: bool,
        out: torch.Tensor,
    ) -> None:
        p = self.plan
        narrow = self.direct and codes.itemsize == 1
        sums = np.zeros((len(p.band_start) - 1, count), np.int32 if narrow else np.int64)
        bands = p.band_rows, p.band_start, layout, packed, sums
        if self.direct and fold.convolution is not None:
            border = codes.dtype.type(fold.fill)
            planes.pack_image(codes, geometry.rows, geometry.shape, border, first, first + count, *bands)
        elif self.direct:
            z = transpose(codes.reshape(-1, fold.inputs)[first : first + count])
            planes.pack_rows(z, geometry.rows[:, 0].copy(), *bands)
        else:
            z = self.source.rows(codes, fold, geometry, first, count)
            planes.pack_rows(z, np.arange(self.rows), *bands)
        low = np.empty((p.outputs, count), np.int32)
        high = np.empty((p.outputs if wide else 0, count if wide else 0), np.int32)
        planes.read_columns(
            packed, p.read_start, p.read_slot, p.term_start, p.terms, p.rows, p.slot_start, p.slots,
            self.digits, sizes, self.converter.address, low, high,
        )  # fmt: skip
        planes.finish(
            low, high, p.count, self.adc.step, self.adc.low, self.adc.denominator, sums,
            p.gain_start, p.gain_band, p.gains, self.narrow, out.numpy(),
        )  # fmt: skip
