"""The `crossbar` rung on a CPU: plans the reads of a layer for the bit-sliced kernels of `planes`.

What is simulated is what is programmed (`LayerMapping.cells`). A column's rows are known when the layer is prepared,
so the plan is a list of rows per read; data only fills planes. Where the converter cannot change any read, the
integer product is the same number and takes its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate import planes
from crossloom.simulate.adc import Adc
from crossloom.simulate.converter import Converter, compiled
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.simulate.gather import transpose
from crossloom.simulate.integer import IntegerEngine, RowSource, columns_first
from crossloom.simulate.lanes import PLANE, WORDS
from crossloom.simulate.tensor import TensorEngine
from crossloom.weave import InputTransform, WovenLayer

SLOTS = 16
"""Column accumulators that a task works on between two rows' worth of inputs: they share the first-level cache."""


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
    slot_reads: np.ndarray
    slot_output: np.ndarray
    band_rows: np.ndarray
    places: np.ndarray
    band_start: np.ndarray
    gain_start: np.ndarray
    gain_band: np.ndarray
    gains: np.ndarray
    count: np.ndarray
    per_block: int
    outputs: int
    largest_read: int


def plan(mapping: LayerMapping) -> Plan:
    """Work out every read: its rows, its accumulator, its gain and the digital corrections.

    Raises:
        InputError: a weight code whose gains are not powers of two.
    """
    layer, array, slices = mapping.layer, mapping.array, mapping.code.slices
    outputs, per_block = layer.core.shape[0] * layer.core.shape[2], max(SLOTS // len(slices), 1)
    gains = np.array([s.gain for s in slices], np.int64)
    if np.any(np.abs(gains) & (np.abs(gains) - 1)):
        raise InputError("array.encoding", mapping.code.encoding, "a code whose gains are powers of two")
    top, weight = (1 << array.b_cell) - 1, sum(d.weight for d in mapping.digits)
    largest_digit = max((1 << d.width) - 1 for d in mapping.digits)
    bands: dict[tuple[int, ...], np.ndarray] = {}
    numbers: dict[tuple[int, ...], int] = {}
    reads, passes, corrections, lists = [], [], [], [np.zeros(0, np.uint8)]
    largest = number = at = height = 0
    for block in mapping.blocks:
        cells, rows, columns = mapping.cells(block), mapping.core_rows(block), mapping.core_columns(block)
        key = tuple(rows.tolist())
        if key not in bands:
            bands[key] = height + _places(len(rows), array.active_rows)
            height = int(bands[key][-1]) + 1
        band, places = numbers.setdefault(key, len(numbers)), bands[key]
        output, which = np.repeat(columns, len(slices)), np.tile(np.arange(len(slices)), len(columns))
        sign = np.sign(gains[which]) * np.where(cells.flipped, -1, 1)
        flips = np.where(cells.flipped, gains[which] * top, 0).reshape(len(columns), -1).sum(1)
        corrections.append(np.stack([columns, np.full_like(columns, band), flips + mapping.code.input_gain], 1))
        for first in range(0, len(rows), array.active_rows):
            levels = cells.levels[first : first + array.active_rows]
            largest = max(largest, int(levels.sum(0, dtype=np.int64).max(initial=0)) * largest_digit)
            here = number + np.arange(len(output))
            number += len(output)
            lengths = np.zeros(len(output), np.int64)
            for start in range(0, len(levels), planes.SEGMENT):
                part, zero = levels[start : start + planes.SEGMENT], int(places[first + start]) - 1
                for bit in range(array.b_cell):
                    chosen, bounds = _lists(((part >> bit) & 1).T.astype(bool))
                    used = np.flatnonzero(np.diff(bounds))
                    lengths += np.diff(bounds)
                    base = np.full(len(used), zero)
                    ends = bounds[used] + at, bounds[used + 1] + at
                    passes.append(np.stack([here[used], *ends, base, np.full_like(base, bit)], 1))
                    lists.append(chosen)
                    at += len(chosen)
            group = np.full_like(output, band), np.full_like(output, first)
            reads.append(np.stack([output // per_block, *group, lengths, output, which, sign], 1))
    return _flatten(
        mapping,
        np.concatenate([np.zeros((0, 7), np.int64), *reads]),
        np.concatenate([np.zeros((0, 5), np.int64), *passes]),
        np.concatenate(lists),
        np.concatenate([np.zeros((0, 3), np.int64), *corrections]),
        bands,
        (per_block, outputs, largest, weight),
    )


def _places(rows: int, active: int) -> np.ndarray:
    """Where the rows of a band go: before every group of rows, and every `SEGMENT` rows of it, lies a row of zeros."""
    row = np.arange(rows)
    return np.asarray(row + 1 + row // active * -(-active // planes.SEGMENT) + row % active // planes.SEGMENT)


def _lists(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, from 1, of each column's set cells (columns, rows), padded with 0 to multiples of 8; their bounds."""
    counts = cells.sum(1)
    bounds = np.concatenate([[0], np.cumsum(-(-counts // 8) * 8)])
    chosen = np.zeros(bounds[-1], np.uint8)
    column, row = np.nonzero(cells)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen[bounds[column] + within] = row + 1
    return chosen, bounds


def _flatten(
    mapping: LayerMapping,
    reads: np.ndarray,
    passes: np.ndarray,
    lists: np.ndarray,
    corrections: np.ndarray,
    bands: dict[tuple[int, ...], np.ndarray],
    scalars: tuple[int, int, int, int],
) -> Plan:
    """Reads in order of execution: by block of outputs, group of rows and length, so that loops repeat themselves."""
    per_block, outputs, largest, weight = scalars
    blocks = math.ceil(outputs / per_block)
    shift = np.array([abs(s.gain).bit_length() - 1 for s in mapping.code.slices], np.int64)
    order = (
        np.lexsort(reads[:, 6:3:-1].T.tolist() + reads[:, 3::-1].T.tolist()) if len(reads) else np.zeros(0, np.int64)
    )
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    passes = passes[np.argsort(rank[passes[:, 0]], kind="stable")]
    term_start = np.searchsorted(rank[passes[:, 0]], np.arange(len(reads) + 1))
    reads = reads[order]
    names, index = np.unique(reads[:, [0, 4, 5, 6]], axis=0, return_inverse=True)
    slot_start = np.searchsorted(names[:, 0], np.arange(blocks + 1))
    gains = shift[reads[:, 5]]
    count = np.zeros(outputs, np.int64)
    np.add.at(count, reads[:, 4], (reads[:, 6] << gains) * weight)
    corrections = corrections[corrections[:, 2] != 0]
    corrections = corrections[np.lexsort((corrections[:, 1], corrections[:, 0]))]
    return Plan(
        read_start=np.searchsorted(reads[:, 0], np.arange(blocks + 1)),
        read_slot=index.reshape(-1) - slot_start[reads[:, 0]],
        term_start=term_start,
        terms=np.ascontiguousarray(passes[:, 1:]),
        rows=lists,
        slot_start=slot_start,
        slots=np.stack([names[:, 1] % per_block, shift[names[:, 2]], names[:, 3]], 1),
        slot_reads=np.bincount(index.reshape(-1), minlength=len(names)),
        slot_output=names[:, 1],
        band_rows=np.array([r for band in bands for r in band], np.int64),
        places=np.concatenate([np.zeros(0, np.int64), *bands.values()]),
        band_start=np.cumsum([0, *(len(band) for band in bands)]),
        gain_start=np.searchsorted(corrections[:, 0], np.arange(outputs + 1)),
        gain_band=corrections[:, 1].copy(),
        gains=corrections[:, 2].copy(),
        count=count,
        per_block=per_block,
        outputs=outputs,
        largest_read=largest,
    )


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
        words = WORDS
        while words > 1 and 64 * words >= 2 * positions:
            words //= 2
        vectors = -(-len(self.digits) * words // WORDS)
        chunk_bytes = self.digit_bits * vectors * self.height * PLANE
        wide = self.sum_planes > 31
        position_bytes = (8 if wide else 4) * self.plan.outputs + 8 * len(self.plan.band_start)
        position_bytes += self.layer.inputs * x.itemsize if self.direct else 8 * (self.rows + self.layer.inputs)
        wave = max(int(self.budget // (chunk_bytes + 64 * words * position_bytes)), 1)
        wave = min(wave, -(-positions // (64 * words)))
        shape = (wave, self.digit_bits, vectors, self.height, WORDS)
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
