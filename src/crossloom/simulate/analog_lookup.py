"""The analog rung on a CPU: lays a plan out for the lookup kernels and runs them within a memory budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from crossloom.mapping import LayerMapping
from crossloom.simulate import analog_kernels as kernels
from crossloom.simulate.analog_noise import active_shift, pools, vector_keys
from crossloom.simulate.analog_plan import NARROW, Plan, PlannedBlock
from crossloom.simulate.engine import Settings
from crossloom.simulate.integer import RowSource, columns_first
from crossloom.weave import InputTransform

COLUMNS, ROWS, BITS = kernels.COLUMNS, kernels.ROWS, kernels.BITS
SPREAD = kernels.spread_bits()
TILE_BYTES = 512 << 10
"""Lookup words of one task: they are read once per strip and should stay in the second-level cache."""


def fits(mapping: LayerMapping, made: Plan) -> bool:
    """True if the lookup kernels can run a plan: a narrow grid, sums within 32 bits, a variance that they know."""
    if not made.narrow:
        return False
    noise = [n for b in made.blocks for n in b.noise]
    if any(n.table is not None for n in noise) or (
        mapping.array.b_dac > 1 and any(n.squares is not None for n in noise)
    ):
        return False
    weight = sum(abs(d.weight) for d in mapping.digits)
    reads = np.zeros(mapping.layer.core.shape[0] * mapping.layer.core.shape[2], np.int64)
    for block in made.blocks:
        reads[block.columns] += len(block.groups)
    return int(reads.max(initial=0)) * weight * made.adc.top < 1 << 31


@dataclass(frozen=True, eq=False)
class Rows:
    """How rows become lookup words; the same for every chip. Arrays are those of `kernels.pack`.

    Attributes:
        bands: number of each distinct list of rows.
        group_of: first row group of each band.
    """

    order: np.ndarray
    band_start: np.ndarray
    group_start: np.ndarray
    bands: dict[tuple[int, ...], int]
    group_of: np.ndarray

    @staticmethod
    def of(blocks: list[PlannedBlock]) -> Rows:
        """The rows of all blocks, each distinct list once."""
        bands: dict[tuple[int, ...], int] = {}
        order: list[np.ndarray] = []
        band_start, group_start, group_of = [0], [0], [0]
        for block in blocks:
            key = tuple(block.rows.tolist())
            if key in bands:
                continue
            bands[key] = len(bands)
            for group in block.groups:
                rows = block.rows[group]
                order.append(np.concatenate([rows, np.full(-len(rows) % ROWS, -1)]))
                group_start.append(group_start[-1] + len(order[-1]) // ROWS)
            band_start.append(group_start[-1])
            group_of.append(len(group_start) - 1)
        flat = np.concatenate([np.zeros(0, np.int64), *order])
        return Rows(flat, np.array(band_start), np.array(group_start), bands, np.array(group_of))


def segments_of(mapping: LayerMapping, top: int) -> np.ndarray:
    """`segments` of `kernels.read`: codes of neighbouring digits are added in 16 bits as long as they fit."""
    rows: list[list[int]] = []
    reach = 0
    for d, digit in enumerate(mapping.digits):
        if rows and digit.sign == rows[-1][3] and reach + (top << (digit.lsb - rows[-1][2])) <= NARROW:
            rows[-1][1] = d + 1
        else:
            rows.append([d, d + 1, digit.lsb, digit.sign])
            reach = 0
        reach += top << (digit.lsb - rows[-1][2])
    return np.array(rows, np.int64)


class Strips:
    """The cells, converters and noise of one chip's copy of a layer in the kernels' layout."""

    def __init__(self, mapping: LayerMapping, made: Plan, rows: Rows) -> None:
        slices, digits = mapping.code.columns, len(mapping.digits)
        sets: dict[tuple[int, ...], list[PlannedBlock]] = {}
        for block in made.blocks:
            sets.setdefault(tuple(block.columns.tolist()), []).append(block)
        noisy = any(b.noise for b in made.blocks)
        self.exact = any(n.squares is not None for b in made.blocks for n in b.noise)
        strip_start, parts, outputs = [0], [], []
        band_of: list[int] = []
        flips: list[int] = []
        cells, squares, lanes, noise_lanes, noise_values, keys = [], [], [], [], [], []
        at, places = 0, 0
        for columns, blocks in sets.items():
            chunks = -(-len(columns) * slices // COLUMNS)
            first_strip = len(strip_start) - 1
            for i, n in enumerate(columns):
                outputs.append((n, COLUMNS * first_strip + i * slices, len(band_of)))
                for block in blocks:
                    if block.flips[i]:
                        band_of.append(rows.bands[tuple(block.rows.tolist())])
                        flips.append(int(block.flips[i]))
            for chunk in range(chunks):
                mine = slice(COLUMNS * chunk, COLUMNS * (chunk + 1))
                for block in blocks:
                    band = rows.bands[tuple(block.rows.tolist())]
                    parts.append((rows.band_start[band], at, rows.group_of[band], len(block.groups), places))
                    cells.append(_rows(block.cells[:, mine], block.groups))
                    at += len(cells[-1])
                    lanes.append(_lanes(block, mine))
                    if not noisy:
                        continue
                    if self.exact:
                        every = [_or_zero(n.squares, g, block) for n, g in zip(block.noise, block.groups, strict=True)]
                        squares.append(_rows(np.concatenate(every)[:, mine], block.groups))
                    for g, noise in enumerate(block.noise):
                        size = block.groups[g].stop - block.groups[g].start
                        constant, quadratic, pair = noise.factors(len(block.gains), size)
                        noise_lanes.append(np.stack([_pad(v[mine]) for v in pair]))
                        noise_values.append((constant, quadratic, active_shift(size)))
                        keys.append(block.keys[g, chunk])
                    places += len(block.groups)
                strip_start.append(len(parts))
        outputs.append((0, 0, len(band_of)))
        self.noisy = noisy
        self.cells = _stack(cells, (0, COLUMNS), np.int16)
        self.squares = _stack(squares, (0, COLUMNS), np.int16)
        self.strip_start = np.array(strip_start, np.int64)
        self.parts = np.array(parts, np.int64).reshape(-1, 5)
        self.lanes = np.array(lanes, np.int16).reshape(-1, 4, COLUMNS)
        self.noise_lanes = np.array(noise_lanes, np.int16).reshape(-1, 2, COLUMNS)
        self.noise_values = np.array(noise_values, np.int64).reshape(-1, 3)
        self.keys = np.array(keys, np.uint64).reshape(-1, digits)
        self.outputs = np.array(outputs, np.int64)
        self.band_of, self.flips = np.array(band_of, np.int64), np.array(flips, np.int64)
        self.strips = len(self.strip_start) - 1


def _stack(parts: list[np.ndarray], empty: tuple[int, ...], kind: type) -> np.ndarray:
    return np.ascontiguousarray(np.concatenate(parts) if parts else np.zeros(empty), kind)


def _or_zero(squares: np.ndarray | None, group: slice, block: PlannedBlock) -> np.ndarray:
    return np.zeros_like(block.cells[group]) if squares is None else squares


def _pad(values: np.ndarray) -> np.ndarray:
    return np.pad(values, (0, COLUMNS - len(values)))


def _rows(values: np.ndarray, groups: list[slice]) -> np.ndarray:
    """Cells of one part: 32 columns, every row group filled up to whole lookups."""
    wide = np.pad(values, ((0, 0), (0, COLUMNS - values.shape[1])))
    parts = [np.pad(wide[g], ((0, -(g.stop - g.start) % ROWS), (0, 0))) for g in groups]
    return np.concatenate(parts).astype(np.int16)


def _lanes(block: PlannedBlock, mine: slice) -> np.ndarray:
    halves = (-_pad(block.flipped[mine].astype(np.int32))).view(np.int16).reshape(2, COLUMNS)
    return np.stack(
        [_pad(block.multiplier[mine]).astype(np.int16), _pad(block.constant[mine]).astype(np.int16), *halves]
    )


class LookupKernel:
    """The kernel of one layer on one chip; every copy of the layer has its own plan."""

    def __init__(self, mapping: LayerMapping, plans: list[Plan], settings: Settings) -> None:
        layer, transform = mapping.layer, mapping.layer.transform
        self.mapping, self.settings = mapping, settings
        selection = transform.factors[0].selection if len(transform.factors) == 1 else None
        direct = transform.is_identity or selection is not None
        self.source = RowSource(layer, selection, InputTransform.identity(transform.rows) if direct else transform)
        self.rows = Rows.of(plans[0].blocks)
        self.strips = [Strips(mapping, p, self.rows) for p in plans]
        self.plans = [replace(p, blocks=[]) for p in plans]
        self.bits = layer.row_format.bits
        self.segments = segments_of(mapping, plans[0].adc.top)
        self.pieces = np.array([(d.lsb, d.width) for d in mapping.digits], np.int64)
        self.gains = np.array([s.gain for s in mapping.code.slices], np.int64)
        self.width = mapping.array.b_dac
        self.outputs = layer.core.shape[0] * layer.core.shape[2]
        words, lookups = -(-self.bits // BITS), int(self.rows.band_start[-1])
        strips = max((s.strips for s in self.strips), default=0)
        self.bytes = 8 * words * lookups + 4 * COLUMNS * strips + 16 * len(self.rows.group_start) * words
        self.bytes += 8 * (len(self.rows.band_start) + 4) + 9 * (transform.rows + layer.inputs)
        self.shape = (words, lookups)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return run_chips([self], x)[0]

    def pack(self, z: np.ndarray, counted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lookup words, band sums and, if `counted`, active rows of a wave: the same for every chip."""
        words, lookups = self.shape
        count, groups = z.shape[1], len(self.rows.group_start) - 1
        packed = np.empty((words, count, lookups), np.uint64)
        bands = np.empty((len(self.rows.band_start) - 1, count), np.int64)
        active = np.empty((count if counted else 0, groups, BITS * words), np.uint16)
        r = self.rows
        kernels.pack(z, r.order, SPREAD, r.band_start, r.group_start, packed, bands, active)
        return packed, bands, active

    def read(
        self, copy: int, packed: tuple[np.ndarray, np.ndarray, np.ndarray], names: np.ndarray, out: np.ndarray
    ) -> None:
        """All reads of packed positions: accumulators int64 (N, P) into `out`."""
        words, bands, active = packed
        s, made = self.strips[copy], self.plans[copy]
        count = words.shape[1]
        sums = np.zeros((s.strips, count, COLUMNS), np.int32)
        longest = int(np.diff(self.rows.band_start).max(initial=1))
        sizes = np.array(
            [self.bits, made.shift, made.adc.top, s.noisy, s.exact, longest, made.noise_factor, self.width], np.int64
        )
        tile = int(np.clip(TILE_BYTES // (8 * self.shape[0] * max(self.shape[1], 1)), 64, 512))
        kernels.read(
            words, active, names, s.cells, s.squares, s.strip_start, s.parts, np.diff(self.rows.group_start), s.lanes,
            s.noise_lanes, s.noise_values, s.keys, self.segments, self.pieces, sizes, pools(), tile, sums,
        )  # fmt: skip
        adc = made.adc
        kernels.finish(
            sums, s.outputs, self.gains, made.count, adc.step, adc.low, adc.denominator, bands, s.band_of, s.flips, out
        )


def run_chips(chips: list[LookupKernel], x: torch.Tensor) -> list[torch.Tensor]:
    """The accumulators of one layer on several chips for the same inputs, which are unfolded and packed once."""
    one = chips[0]
    fold, geometry, codes = one.source.open(x)
    outs = [torch.zeros((one.outputs, fold.positions), dtype=torch.int64) for _ in chips]
    per_image = max(fold.positions // max(fold.batch[0], 1), 1)
    wave = max(int(one.settings.memory_budget // one.bytes), 1)
    counted = any(s.noisy for c in chips for s in c.strips)
    copies = len(one.plans)
    for first in range(0, fold.positions, wave):
        count = min(wave, fold.positions - first)
        z = one.source.rows(codes, fold, geometry, first, count)
        names = vector_keys(first, count, per_image, one.settings.clock.first_image)
        turn = (np.arange(first, first + count) % per_image) % copies
        for copy in range(copies):
            mine = slice(None) if copies == 1 else np.flatnonzero(turn == copy)
            part = z if copies == 1 else np.ascontiguousarray(z[:, mine])
            if not part.shape[1]:
                continue
            packed = one.pack(part, counted)
            for chip, out in zip(chips, outs, strict=True):
                target = out.numpy()[:, first : first + count]
                if copies == 1:
                    chip.read(copy, packed, names, target)
                    continue
                made = np.zeros((one.outputs, part.shape[1]), np.int64)
                chip.read(copy, packed, names[mine], made)
                target[:, mine] = made
    return [columns_first(out, fold) for out in outs]
