"""Programming one layer on one chip: its arrays with their cells on a grid, their converters and their noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Int8, Integer
from scipy.optimize import lsq_linear

from crossloom.mapping import LayerMapping
from crossloom.simulate.adc import Adc
from crossloom.simulate.analog_chip import (
    AnalogChip,
    Converters,
    ProgrammedBlock,
    program_block,
    row_groups,
    slice_gains,
)
from crossloom.simulate.analog_grid import Cells, Grid, narrow_grid, rounded, span, wide_grid
from crossloom.simulate.analog_noise import LANES, LOUDEST, ROOT_SCALE, GroupNoise, place_keys

VARIANCE_TOLERANCE = 0.02
"""Largest typical relative error of σ with which a read's variance is taken from the read itself."""


@dataclass(frozen=True, eq=False)
class PlannedBlock:
    """One array ready to be read.

    Attributes:
        rows: index into the rows of P x.
        groups: rows driven at once.
        columns: accumulators of the weight columns.
        signs: per row group and physical column, −1 where reads are subtracted.
        gains: what one unit of each physical column adds where it is not.
        flips: per weight column, what the sum of inputs is multiplied by for its flipped columns.
        cells: int32 (rows, physical columns), S·g.
        multiplier, constant: int64 per physical column, of the narrow decision.
        converters: of the wide decision.
        noise: per row group, or empty for reads that are not random.
        keys: uint64 (groups, chunks, digits).
    """

    rows: Integer[np.ndarray, " rows"]
    groups: list[slice]
    columns: Integer[np.ndarray, " outputs"]
    signs: Int8[np.ndarray, "groups columns"]
    gains: Integer[np.ndarray, " columns"]
    flips: Integer[np.ndarray, " outputs"]
    cells: Integer[np.ndarray, "rows columns"]
    multiplier: Integer[np.ndarray, " columns"]
    constant: Integer[np.ndarray, " columns"]
    converters: Converters
    noise: list[GroupNoise]
    keys: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """One copy of one layer on one chip.

    Attributes:
        blocks: its arrays.
        adc: the nominal converter.
        grid: what its reads are rounded to and how they are decided.
        count: Σ gain·weight of the reads of each accumulator.
        reach: largest |a|.
        noise_factor: what `noisy_narrow` scales σ by.
    """

    blocks: list[PlannedBlock]
    adc: Adc
    grid: Grid
    count: Integer[np.ndarray, " outputs"]
    reach: int
    noise_factor: int

    @property
    def exact(self) -> Adc:
        """The converter as a function of a instead of p."""
        a = self.adc
        return Adc(a.bits, a.step * self.grid.scale, a.low * self.grid.scale, a.denominator)


def plan(mapping: LayerMapping, adc: Adc, chip: AnalogChip, copy: int = 0) -> Plan:
    """Program one copy of a layer on a chip and put it on a grid."""
    made = [program_block(mapping, i, copy, chip) for i in range(len(mapping.blocks))]
    groups = [row_groups(mapping, i) for i in range(len(mapping.blocks))]
    digit = max((1 << d.width) - 1 for d in mapping.digits)
    weights = [b.weights for b in made]
    spans = [span(w, g) for w, g in zip(weights, groups, strict=True)]
    high, low = digit * max((s[0] for s in spans), default=0.0), digit * min((s[1] for s in spans), default=0.0)
    reach = max(high, -low)
    loudest = max((_loudest(b, g, adc, chip, reach, digit) for b, g in zip(made, groups, strict=True)), default=0.0)
    held = Cells(weights, groups, [b.converters for b in made], high + loudest, low - loudest, loudest, digit)
    largest = digit * (mapping.array.active_rows * ((1 << mapping.array.b_cell) - 1))
    grid = narrow_grid(held, adc, largest) or wide_grid(held, adc)
    scale, narrow, constants = grid.scale, grid.narrow, grid.constants
    factor = int(np.ceil(loudest / 6 * scale * 1024 / np.sqrt(LOUDEST - 64))) if narrow else 0
    unit = max(factor, 1) / 1024 / ROOT_SCALE if narrow else 1.0
    noisy = chip.noisy_cells or mapping.array.adc_errors.noise_sigma > 0
    slices = mapping.code.columns
    count = np.zeros(mapping.layer.core.shape[0] * mapping.layer.core.shape[2], np.int64)
    blocks = []
    weight = sum(d.weight for d in mapping.digits)
    for i, (block, b, g) in enumerate(zip(mapping.blocks, made, groups, strict=True)):
        signed, columns = slice_gains(mapping, b.signs), mapping.core_columns(block)
        count[columns] += signed.sum(0).reshape(-1, slices).sum(1) * weight
        gains = signed[0] * b.signs[0]
        top = (1 << mapping.array.b_cell) - 1
        flips = np.where(b.flipped, gains * top, 0).reshape(-1, slices).sum(1) + mapping.code.input_gain
        cells = rounded(weights[i], g, scale, grid.balanced)
        shape = (len(g), -(-len(gains) // LANES), len(mapping.digits))
        names = (chip.index, mapping.layer.name, copy, i)
        keys = place_keys(chip.seed, names, math.prod(shape)) if noisy else np.zeros(shape, np.uint64)
        blocks.append(
            PlannedBlock(
                rows=mapping.core_rows(block),
                groups=g,
                columns=columns,
                signs=b.signs,
                gains=gains,
                flips=flips,
                cells=cells,
                multiplier=constants[i][0],
                constant=constants[i][1],
                converters=b.converters,
                noise=[_noise(b, s, cells[s], adc, chip, scale, digit, unit, narrow) for s in g] if noisy else [],
                keys=keys.reshape(shape),
            )
        )
    top_reach = max((int(max(*map(abs, span(b.cells, b.groups)))) for b in blocks), default=0) * digit
    return Plan(blocks, adc, grid, count, top_reach, factor)


def _loudest(
    block: ProgrammedBlock, groups: list[slice], adc: Adc, chip: AnalogChip, reach: float, digit: int
) -> float:
    """Six standard deviations of the noisiest read, in level steps: what the grid leaves room for beyond `reach`."""
    law, sigma = chip.conditions.read_noise, chip.noise_sigma
    variance = law.floor**2 + (block.converters.noise * adc.delta) ** 2
    if law.law == "table":
        variance += max(s for _, s in law.table) ** 2
    elif law.law == "cell" and sigma:
        variance += (sigma * digit) ** 2 * span(block.squares, groups)[0]
    else:
        variance += sigma**2 * (reach if law.law == "root" else reach**2)
    return 6 * float(np.sqrt(variance))


def _noise(
    block: ProgrammedBlock,
    group: slice,
    cells: np.ndarray,
    adc: Adc,
    chip: AnalogChip,
    scale: int,
    digit: int,
    unit: float,
    narrow: bool,
) -> GroupNoise:
    """The variance of one row group's reads, σ in units of `unit` grid steps."""
    law, sigma = chip.conditions.read_noise, chip.noise_sigma * scale / unit
    constant = ((law.floor * scale) ** 2 + (block.converters.noise * adc.delta * scale) ** 2) / unit**2
    if law.law == "table":
        high, low = span(cells, [slice(0, len(cells))])
        terms = None if law.exact or low < 0 else smooth_table(law.table, math.ceil(high * digit / scale))
        if terms is None:
            points, sigmas = np.array(law.table).T
            return GroupNoise(constant, table=np.stack([points * scale, sigmas * scale / unit]))
        fixed, slope, quadratic = (term * scale**2 / unit**2 for term in terms)
        slopes = np.full(cells.shape[1], slope / scale)
        return GroupNoise(constant + fixed, linear=slopes, quadratic=quadratic / scale**2)
    if sigma == 0:
        return GroupNoise(constant)
    columns = cells.shape[1]
    if law.law == "proportional":
        return GroupNoise(constant, quadratic=(sigma / scale) ** 2)
    if law.law == "root":
        return GroupNoise(constant, linear=np.full(columns, sigma**2 / scale))
    squares = sigma**2 * block.squares[group]
    centred, deviation = cells - cells.mean(0), squares - squares.mean(0)
    power = (centred * centred).sum(0)
    linear = np.divide((centred * deviation).sum(0), power, out=np.zeros(columns), where=power > 0)
    residual = (deviation - linear * centred).std(0)
    typical = 0.5 * residual / np.maximum(squares.mean(0) * np.sqrt(max(len(cells) / 4, 1)), 1e-300)
    estimate = GroupNoise(constant, linear=linear, active=squares.mean(0) - linear * cells.mean(0))
    good = float(np.sqrt((typical**2).mean())) <= VARIANCE_TOLERANCE and np.abs(linear).max(initial=0) < 0.5
    if digit == 1 and good and not law.exact:
        return estimate
    return GroupNoise(constant, squares=np.rint(squares) if narrow else squares)


@cache
def smooth_table(table: tuple[tuple[float, float], ...], reach: int) -> tuple[float, float, float] | None:
    """(c, l, q) with σ(p)² = c + l·p + q·p² for p = 0, 1, … `reach`, q ≥ 0, σ good to `VARIANCE_TOLERANCE` of itself.

    None if no such parabola is that good. Tables whose variance grows evenly, as that of summed cells does, have one,
    and reads then need no look into the table.
    """
    p = np.arange(reach + 1.0)
    wanted = np.interp(p, *np.array(table).T)
    if wanted.min() <= 0:
        return None
    terms = np.stack([np.ones_like(p), p, p * p], axis=1) / (wanted**2)[:, None]
    found = lsq_linear(terms, np.ones_like(p), bounds=([-np.inf, -np.inf, 0.0], np.inf)).x
    variance = np.stack([np.ones_like(p), p, p * p], axis=1) @ found
    if variance.min() <= 0 or np.abs(np.sqrt(variance) / wanted - 1).max() > VARIANCE_TOLERANCE:
        return None
    return float(found[0]), float(found[1]), float(found[2])
