"""From programmed cells to integers: the grid on which every analog engine computes the same bits.

A layer's effective conductances are rounded to multiples of 1/S of a level step, S an integer, so ideal levels are
exact and a column read is an exact integer sum a = S·p in any order, on any device. Rounding moves a read by at most
the larger of its column's summed positive and negative rounding errors: a bound known when the layer is prepared.

The narrow grid keeps reads in 16 bits and decides codes with one 16×16-bit product,
code = clip(((a·m >> 16) + c) >> k, 0, 2^b − 1), per column m and c (gain and offset of its converter). It is taken
where its error bound is below `TOLERANCE` of a step and, for perfect converters, where it is verified to give every
integer read exactly the code of `Adc.code`. Otherwise the wide grid keeps reads below 2^24 and decides exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

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
from crossloom.simulate.analog_noise import LANES, LOUDEST, ROOT_SCALE, GroupNoise, place_keys

TOLERANCE = 0.1
"""Largest numerical error of a read that the narrow grid may have, in converter steps."""
VARIANCE_TOLERANCE = 0.02
"""Largest typical relative error of σ with which a read's variance is taken from the read itself."""
LARGEST_SIGMA = 2000
"""Most grid units that σ of a read may have on the narrow grid (`noisy_narrow` scales by at most 2^15)."""
NARROW, WIDE = (1 << 15) - 1, (1 << 24) - 1


@dataclass(frozen=True, eq=False)
class PlannedBlock:
    """One array ready to be read.

    Attributes:
        rows: index into the rows of P x.
        groups: rows driven at once.
        columns: accumulators of the weight columns.
        flipped: per physical column, whether it holds complements.
        gains: what one unit of each physical column adds, sign of flipped columns included.
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
    flipped: Bool[np.ndarray, " columns"]
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
        scale: S.
        narrow: which grid.
        shift: k of the narrow decision.
        error: bound on the numerical error of any read at the converter's input, in steps.
        count: Σ gain·weight of the reads of each accumulator.
        reach: largest |a|.
        noise_factor: what `noisy_narrow` scales σ by.
    """

    blocks: list[PlannedBlock]
    adc: Adc
    scale: int
    narrow: bool
    shift: int
    error: float
    count: Integer[np.ndarray, " outputs"]
    reach: int
    noise_factor: int

    @property
    def exact(self) -> Adc:
        """The converter as a function of a instead of p."""
        a = self.adc
        return Adc(a.bits, a.step * self.scale, a.low * self.scale, a.denominator)


def span(values: Float[np.ndarray, "rows columns"], groups: Sequence[slice]) -> tuple[float, float]:
    """The largest and the smallest sum over any subset of the rows of any group and column."""
    if not values.size:
        return 0.0, 0.0
    starts = [g.start for g in groups]
    high = np.add.reduceat(np.maximum(values, 0), starts, axis=0).max()
    low = np.add.reduceat(np.minimum(values, 0), starts, axis=0).min()
    return float(high), float(low)


def plan(mapping: LayerMapping, adc: Adc, chip: AnalogChip, copy: int = 0) -> Plan:
    """Program one copy of a layer on a chip and put it on a grid."""
    made = [program_block(mapping, i, copy, chip) for i in range(len(mapping.blocks))]
    groups = [row_groups(mapping, i) for i in range(len(mapping.blocks))]
    digit = max((1 << d.width) - 1 for d in mapping.digits)
    weights = [b.weights for b in made]
    spans = [span(w, g) for w, g in zip(weights, groups, strict=True)]
    reach = digit * max((max(high, -low) for high, low in spans), default=0.0)
    loudest = max((_loudest(b, g, adc, chip, reach, digit) for b, g in zip(made, groups, strict=True)), default=0.0)
    largest = digit * (mapping.array.active_rows * ((1 << mapping.array.b_cell) - 1))
    decision = _narrow(weights, groups, [b.converters for b in made], adc, reach + loudest, loudest, largest, digit)
    narrow = decision is not None
    scale, shift, error, constants = decision or _wide(weights, groups, adc, reach + loudest, digit)
    factor = int(np.ceil(loudest / 6 * scale * 1024 / np.sqrt(LOUDEST - 64))) if narrow else 0
    unit = max(factor, 1) / 1024 / ROOT_SCALE if narrow else 1.0
    noisy = chip.noisy_cells or mapping.array.adc_errors.noise_sigma > 0
    slices = mapping.code.columns
    count = np.zeros(mapping.layer.core.shape[0] * mapping.layer.core.shape[2], np.int64)
    blocks = []
    weight = sum(d.weight for d in mapping.digits)
    for i, (block, b, g) in enumerate(zip(mapping.blocks, made, groups, strict=True)):
        gains, columns = slice_gains(mapping, b.flipped), mapping.core_columns(block)
        per_output = gains.reshape(-1, slices).sum(1)
        count[columns] += per_output * weight * len(g)
        top = (1 << mapping.array.b_cell) - 1
        flips = np.where(b.flipped, -gains * top, 0).reshape(-1, slices).sum(1) + mapping.code.input_gain
        cells = np.rint(weights[i] * scale).astype(np.int32)
        shape = (len(g), -(-len(gains) // LANES), len(mapping.digits))
        names = (chip.index, mapping.layer.name, copy, i)
        keys = place_keys(chip.seed, names, math.prod(shape)) if noisy else np.zeros(shape, np.uint64)
        blocks.append(
            PlannedBlock(
                rows=mapping.core_rows(block),
                groups=g,
                columns=columns,
                flipped=b.flipped,
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
    return Plan(blocks, adc, scale, narrow, shift, error, count, top_reach, factor)


Constants = list[tuple[np.ndarray, np.ndarray]]


def _rounding(weights: list[np.ndarray], groups: list[list[slice]], scale: int, digit: int) -> float:
    """The most that rounding to the grid moves any read, in level steps."""
    errors = [span(np.rint(w * scale) - w * scale, g) for w, g in zip(weights, groups, strict=True)]
    return digit / scale * max((max(high, -low) for high, low in errors), default=0.0)


def _narrow(
    weights: list[np.ndarray],
    groups: list[list[slice]],
    converters: list[Converters],
    adc: Adc,
    reach: float,
    loudest: float,
    largest: int,
    digit: int,
) -> tuple[int, int, float, Constants] | None:
    """Scale, k, error bound and constants of the narrow grid, or None if it is not good enough."""
    if not all(c.linear for c in converters) or adc.top > NARROW:
        return None
    rows = max((g.stop - g.start for group in groups for g in group), default=1)
    most = int((NARROW - digit * rows / 2) // max(reach, 1e-9))
    most = min(most, NARROW, int(LARGEST_SIGMA * 6 / max(loudest, 1e-9)))
    if most < 1:
        return None
    gain = max((float(np.abs(c.gain).max(initial=1)) for c in converters), default=1.0)
    offset = max((float(np.abs(c.offset).max(initial=0)) for c in converters), default=0.0)
    whole = gain * (reach + abs(adc.p_min)) / adc.delta + offset + 2
    ideal = all(c.ideal for c in converters)
    p = np.arange(min(largest, NARROW // most if most else 0) + 1, dtype=np.int64)
    expected = adc.code(p)
    for scale in range(most, max(most - 32, 0), -1):
        shift = int(np.floor(np.log2(NARROW / 2 / whole))) if whole < NARROW / 2 else -1
        unit = 65536 / (scale * adc.delta)
        while shift >= 0 and gain * unit * 2**shift > NARROW:
            shift -= 1
        if shift < 0:
            return None
        start = 0.5 - adc.p_min / adc.delta
        m0, c0 = round(unit * 2**shift), int(np.floor(start * 2**shift))
        chosen = (m0, c0 + 1)
        if ideal:
            near = [(m, c) for c in (c0 + 1, c0, c0 + 2, c0 + 3) for m in (m0, m0 + 1, m0 - 1, m0 + 2)]
            good = (mc for mc in near if _matches(mc, shift, scale, p, expected, adc.top))
            found = next(good, None)
            if found is None:
                continue
            chosen = found
        slip = abs(chosen[0] / (unit * 2**shift) - 1) + gain / 2 / chosen[0] * (not ideal)
        decision = (abs(chosen[1] - start * 2**shift) + 1) / 2**shift + slip * gain * reach / adc.delta
        error = gain * _rounding(weights, groups, scale, digit) / adc.delta + decision
        if error > TOLERANCE:
            return None
        constants = [
            (
                np.rint(c.gain * unit * 2**shift).astype(np.int64) if not ideal else np.full(len(c.gain), chosen[0]),
                np.floor((start + c.offset + (1 - c.gain) * adc.p_min / adc.delta) * 2**shift).astype(np.int64) + 1
                if not ideal
                else np.full(len(c.gain), chosen[1]),
            )
            for c in converters
        ]
        return scale, shift, error, constants
    return None


def _matches(mc: tuple[int, int], shift: int, scale: int, p: np.ndarray, expected: np.ndarray, top: int) -> bool:
    codes = (((p * scale * mc[0]) >> 16) + mc[1]) >> shift
    return 0 < mc[0] <= NARROW and abs(mc[1]) <= NARROW and bool(np.array_equal(codes.clip(0, top), expected))


def _wide(
    weights: list[np.ndarray], groups: list[list[slice]], adc: Adc, reach: float, digit: int
) -> tuple[int, int, float, Constants]:
    rows = max((g.stop - g.start for group in groups for g in group), default=1)
    scale = max(int(min((WIDE - digit * rows) / max(reach, 1e-9), WIDE)), 1)
    scale = min(scale, 1 << 16)
    empty = np.zeros(0, np.int64)
    return scale, 0, _rounding(weights, groups, scale, digit) / adc.delta, [(empty, empty)] * len(weights)


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
        points, sigmas = np.array(law.table).T
        return GroupNoise(constant, table=np.stack([points * scale, sigmas * scale / unit]))
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
    good = float(np.sqrt((typical**2).mean())) <= VARIANCE_TOLERANCE and np.abs(linear).max(initial=0) < 1
    if digit == 1 and good and not law.exact:
        return estimate
    return GroupNoise(constant, squares=np.rint(squares) if narrow else squares)
