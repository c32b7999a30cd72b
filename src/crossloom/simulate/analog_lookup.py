"""The analog rung on a CPU: lays a plan out for the lookup kernels and runs them within a memory budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from crossloom.mapping import LayerMapping
from crossloom.simulate import analog_kernels as kernels
from crossloom.simulate.analog_grid import NARROW
from crossloom.simulate.analog_noise import active_shift, lane_of, pools, vector_keys
from crossloom.simulate.analog_plan import Plan, PlannedBlock
from crossloom.simulate.engine import Settings
from crossloom.simulate.integer import RowSource, columns_first
from crossloom.weave import InputTransform

COLUMNS, ROWS, BITS = kernels.COLUMNS, kernels.ROWS, kernels.BITS
WAVE_BYTES = 32 << 20
"""Working set of one wave of positions: fresh memory costs more than starting another wave."""
TILE_BYTES = 512 << 10
"""Lookup words of one task: they are read once per strip and should stay in the second-level cache."""


def fits(mapping: LayerMapping, made: Plan) -> bool:
    """True if the lookup kernels can run a plan: a narrow grid, sums within 32 bits, a variance that they know."""
    if not made.grid.narrow:
        return False
    noise = [n for b in made.blocks for n in b.noise]
    if any(n.table is not None for n in noise) or (
        mapping.array.b_dac > 1 and any(n.squares is not None for n in noise)
    ):
        return False
    slices = sum(abs(s.gain) for s in mapping.code.slices)
    return code_bound(mapping, made) < slices << 31 and finish_bound(mapping, made) < 1 << 52


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
        sets: dict[tuple[int, ...], list[PlannedBlock]] = {}
        for block in made.blocks:
            sets.setdefault(tuple(block.columns.tolist()), []).append(block)
        chunks = {columns: -(-len(columns) * mapping.code.columns // COLUMNS) for columns in sets}
        band = {id(b): rows.bands[tuple(b.rows.tolist())] for b in made.blocks}
        height = {id(b): ROWS * int(np.diff(rows.band_start)[band[id(b)]]) for b in made.blocks}
        total = sum(chunks[columns] * height[id(b)] for columns, blocks in sets.items() for b in blocks)
        self.noisy = any(b.noise for b in made.blocks)
        self.exact = any(n.squares is not None for b in made.blocks for n in b.noise)
        self.cells = np.zeros((total, COLUMNS), np.int16)
        self.squares = np.zeros((total if self.exact else 0, COLUMNS), np.int16)
        parts, strip_start, layout, corrections = [], [0], [], []
        lanes, noise_lanes, noise_values = [], [], []
        sign_lanes: list[np.ndarray] = []
        keys: list[np.ndarray] = []
        at = 0
        for columns, blocks in sets.items():
            layout.append((len(strip_start) - 1, len(columns)))
            corrections += [[(band[id(b)], int(b.flips[i])) for b in blocks if b.flips[i]] for i in range(len(columns))]
            order = np.argsort(lane_of(len(blocks[0].gains), mapping.code.columns))
            for chunk in range(chunks[columns]):
                mine = order[COLUMNS * chunk : COLUMNS * (chunk + 1)]
                for block in blocks:
                    first = rows.group_of[band[id(block)]]
                    exact = any(n.squares is not None for n in block.noise)
                    places = len(block.groups), len(sign_lanes)
                    parts.append((rows.band_start[band[id(block)]], at, first, *places, exact))
                    lanes.append(_padded(np.stack([block.multiplier[mine], block.constant[mine]])))
                    for g, group in enumerate(block.groups):
                        size = group.stop - group.start
                        self.cells[at : at + size, : len(mine)] = block.cells[group][:, mine]
                        sign_lanes.append(_padded(block.signs[g : g + 1, mine] < 0)[0])
                        if self.noisy:
                            noise = block.noise[g]
                            constant, quadratic, pair = noise.factors(len(block.gains), size)
                            noise_lanes.append(_padded(pair[:, mine]))
                            noise_values.append((constant, quadratic, active_shift(size)))
                            keys.append(block.keys[g, chunk])
                            if noise.squares is not None:
                                self.squares[at : at + size, : len(mine)] = noise.squares[:, mine]
                        at += -(-size // ROWS) * ROWS
                strip_start.append(len(parts))
        self.strip_start = np.array(strip_start, np.int64)
        self.strips = len(strip_start) - 1
        self.parts = np.array(parts, np.int64).reshape(-1, 6)
        self.lanes = np.array(lanes, np.int16).reshape(-1, 2, COLUMNS)
        self.sign_lanes = -np.array(sign_lanes, np.int32).reshape(-1, COLUMNS)
        self.noise_lanes = np.array(noise_lanes, np.int16).reshape(-1, 2, COLUMNS)
        self.noise_values = np.array(noise_values, np.int64).reshape(-1, 3)
        self.keys = np.array(keys, np.uint64).reshape(-1, len(mapping.digits))
        self.layout = np.array(layout, np.int64).reshape(-1, 2)
        self.outputs = np.array([n for columns in sets for n in columns], np.int64)
        self.entry_start = np.cumsum([0, *map(len, corrections)])
        self.entries = np.array([e for entries in corrections for e in entries], np.int64).reshape(-1, 2)


def _padded(values: np.ndarray) -> np.ndarray:
    wide = np.zeros((len(values), COLUMNS), np.int16)
    wide[:, : values.shape[1]] = values
    return wide


def code_bound(mapping: LayerMapping, made: Plan) -> int:
    """The largest sum of codes that an accumulator can have, slices weighted."""
    reads = np.zeros(len(made.count), np.int64)
    for block in made.blocks:
        reads[block.columns] += len(block.groups)
    weight = sum(abs(d.weight) for d in mapping.digits) * sum(abs(s.gain) for s in mapping.code.slices)
    return int(reads.max(initial=0)) * weight * made.adc.top


def finish_bound(mapping: LayerMapping, made: Plan) -> int:
    """More than any number that `kernels.finish` makes on its way, digital corrections left out."""
    low = int(np.abs(made.count).max(initial=0)) * abs(made.adc.low)
    return 2 * (code_bound(mapping, made) * made.adc.step + low) + made.adc.denominator


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
        kind = np.int32 if max(code_bound(mapping, p) for p in plans) < 1 << 31 else np.int64
        self.gains = np.array([s.gain for s in mapping.code.slices], kind)
        self.width = mapping.array.b_dac
        self.outputs = layer.core.shape[0] * layer.core.shape[2]
        words, lookups = -(-self.bits // BITS), int(self.rows.band_start[-1])
        strips = max((s.strips for s in self.strips), default=0)
        self.bytes = 8 * words * lookups + 4 * COLUMNS * strips + 16 * len(self.rows.group_start) * words
        self.bytes += 8 * (len(self.rows.band_start) + 4) + 9 * (transform.rows + layer.inputs)
        self.shape = (words, lookups)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Accumulators of input codes."""
        return run_chips([self], x)[0]

    def pack(self, z: np.ndarray, counted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lookup words, band sums and, if `counted`, active rows of a wave: the same for every chip."""
        words, lookups = self.shape
        count, groups = z.shape[1], len(self.rows.group_start) - 1
        packed = np.empty((words, count, lookups), np.uint64)
        bands = np.empty((len(self.rows.band_start) - 1, count), np.int64)
        active = np.empty((count if counted else 0, groups, BITS * words), np.uint16)
        r = self.rows
        kernels.pack(z, r.order, r.band_start, r.group_start, packed, bands, active)
        return packed, bands, active

    def read(
        self, copy: int, packed: tuple[np.ndarray, np.ndarray, np.ndarray], names: np.ndarray, out: np.ndarray
    ) -> None:
        """All reads of packed positions: accumulators int64 (N, P) into `out`."""
        words, bands, active = packed
        s, made = self.strips[copy], self.plans[copy]
        count = words.shape[1]
        sums = np.empty((s.strips, count, COLUMNS), np.int32)
        longest = int(np.diff(self.rows.band_start).max(initial=1))
        grid, factor = made.grid, made.noise_factor
        sizes = np.array(
            [self.bits, grid.shift, made.adc.top, s.noisy, s.exact, longest, factor, self.width, grid.bias], np.int64
        )
        tile = int(np.clip(TILE_BYTES // (8 * self.shape[0] * max(self.shape[1], 1)), 64, 512))
        kernels.read(
            words, active, names, s.cells, s.squares, s.strip_start, s.parts, np.diff(self.rows.group_start), s.lanes,
            s.sign_lanes, s.noise_lanes, s.noise_values, s.keys, self.segments, self.pieces, sizes, pools(), tile, sums,
        )  # fmt: skip
        adc = made.adc
        kernels.finish(
            sums, s.layout, s.outputs, self.gains, made.count, adc.step, adc.low, adc.denominator, bands,
            s.entry_start, s.entries, out,
        )  # fmt: skip


def run_chips(chips: list[LookupKernel], x: torch.Tensor) -> list[torch.Tensor]:
    """The accumulators of one layer on several chips for the same inputs, which are unfolded and packed once."""
    one = chips[0]
    fold, geometry, codes = one.source.open(x)
    outs = [torch.zeros((one.outputs, fold.positions), dtype=torch.int64) for _ in chips]
    per_image = max(fold.positions // max(fold.batch[0], 1), 1)
    wave = max(int(min(one.settings.memory_budget, WAVE_BYTES) // one.bytes), 1)
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
