"""The grid on which every analog engine computes the same bits.

A layer's effective conductances are rounded to multiples of 1/S of a level step, S an integer, so ideal levels are
exact and a column read is an exact integer sum a = S·p in any order, on any device. Rounding moves a read by at most
the larger of its column's summed positive and negative rounding errors: a bound known when the layer is prepared.

The narrow grid keeps a − B in 16 bits, with B in the middle of what reads can be, and decides codes with one 16×16-bit
product, code = clip((((a − B)·m >> 16) + c) >> k, 0, 2^b − 1), per column m and c (gain and offset of its converter).
It is taken where its error bound is below `TOLERANCE` of a step and, for perfect converters, where it is verified to
give every integer read exactly the code of `Adc.code`. Otherwise the wide grid keeps reads below 2^24 and decides
exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from crossloom.simulate.adc import Adc
from crossloom.simulate.analog_chip import Converters

TOLERANCE = 0.1
"""Largest numerical error of a read that the narrow grid may have, in converter steps."""
LARGEST_SIGMA = 2000
"""Most grid units that σ of a read may have on the narrow grid (`noisy_narrow` scales by at most 2^15)."""
NARROW, WIDE = (1 << 15) - 1, (1 << 24) - 1

Constants = list[tuple[Integer[np.ndarray, " columns"], Integer[np.ndarray, " columns"]]]


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid for the reads of one layer.

    Attributes:
        scale: S.
        narrow: which of the two.
        bias: B, even; 0 on the wide grid.
        shift: k.
        error: bound on the numerical error of any read at the converter's input, in steps.
        constants: m and c of every array's columns; empty on the wide grid.
        balanced: how cells are rounded, see `rounded`.
    """

    scale: int
    narrow: bool
    bias: int
    shift: int
    error: float
    constants: Constants
    balanced: bool = False


@dataclass(frozen=True, eq=False)
class Cells:
    """What a grid is made for.

    Attributes:
        weights: effective conductances of every array, in level steps.
        groups: the rows driven at once, of every array.
        converters: of every array.
        high, low: largest and smallest read, noise included.
        loudest: six standard deviations of the noisiest read.
        digit: largest input digit.
    """

    weights: list[Float[np.ndarray, "rows columns"]]
    groups: list[list[slice]]
    converters: list[Converters]
    high: float
    low: float
    loudest: float
    digit: int

    @property
    def rows(self) -> int:
        """Most rows of one read."""
        return max((g.stop - g.start for group in self.groups for g in group), default=1)

    def rounding(self, scale: int, balanced: bool = False) -> float:
        """The most that rounding to 1/scale moves any read, in level steps."""
        reach = 0.0
        for weights, groups in zip(self.weights, self.groups, strict=True):
            high, low = span(rounded(weights, groups, scale, balanced) - weights * scale, groups)
            reach = max(reach, high, -low)
        return self.digit / scale * reach


def rounded(
    weights: Float[np.ndarray, "rows columns"], groups: Sequence[slice], scale: int, balanced: bool
) -> Integer[np.ndarray, "rows columns"]:
    """Conductances on the grid, int32: each rounded to the nearest multiple.

    With `balanced`, the cells closest to the half-way point go the other way until the errors of every column's row
    group cancel to within half a step, which about evens out the worst errors of either sign.
    """
    exact = weights * scale
    cells = np.rint(exact)
    for group in groups if balanced else ():
        error = cells[group] - exact[group]
        total = error.sum(0)
        rank = np.argsort(np.argsort(-error * np.sign(total), axis=0), axis=0)
        cells[group] -= np.where(rank < np.rint(np.abs(total)), np.sign(total), 0)
    return cells.astype(np.int32)


def span(values: Float[np.ndarray, "rows columns"], groups: Sequence[slice]) -> tuple[float, float]:
    """The largest and the smallest sum over any subset of the rows of any group and column."""
    if not values.size:
        return 0.0, 0.0
    starts = [g.start for g in groups]
    high = np.add.reduceat(np.maximum(values, 0), starts, axis=0).max()
    low = np.add.reduceat(np.minimum(values, 0), starts, axis=0).min()
    return float(high), float(low)


def narrow_grid(cells: Cells, adc: Adc, largest: int) -> Grid | None:
    """The narrow grid, or None if it is not good enough.

    Args:
        cells: the layer.
        adc: the nominal converter.
        largest: the largest read of ideal cells.
    """
    if not all(c.linear for c in cells.converters) or adc.top > NARROW:
        return None
    single = max((float(np.abs(w).max(initial=0)) for w in cells.weights), default=0.0)
    most = int((2 * NARROW - cells.digit * cells.rows - 4) / max(cells.high - cells.low, 1e-9))
    most = min(most, int(NARROW / max(single, 1.0)), int(LARGEST_SIGMA * 6 / max(cells.loudest, 1e-9)))
    gain = max((float(np.abs(c.gain).max(initial=1)) for c in cells.converters), default=1.0)
    offset = max((float(np.abs(c.offset).max(initial=0)) for c in cells.converters), default=0.0)
    ideal = all(c.ideal for c in cells.converters)
    start = 0.5 - adc.p_min / adc.delta
    for scale in range(most, max(most - 32, 0), -1):
        bias = 2 * round(scale * (cells.high + cells.low) / 4)
        slope, centre = 65536 / (scale * adc.delta), bias / (scale * adc.delta)
        largest_c = gain * (abs(centre) + abs(adc.p_min) / adc.delta) + offset + 1
        room = min(NARROW / (gain * slope), NARROW / largest_c, NARROW / (adc.top + 1))
        shift = int(np.floor(np.log2(room))) if room >= 1 else -1
        if shift < 0:
            return None
        m, c = slope * 2**shift, (start + centre) * 2**shift
        chosen = (round(m), int(np.floor(c)) + 1)
        if ideal:
            p = np.arange(min(largest, (NARROW + bias) // scale) + 1, dtype=np.int64)
            found = _search(p * scale - bias, adc.code(p), m, c, shift, adc.top)
            if found is None:
                continue
            chosen = found
        above = chosen[1] - c
        decision = (abs(chosen[0] - m) / 2 + max(above, 1 - above)) / 2**shift if ideal else 1.25 / 2**shift
        balanced, error = False, decision + gain * cells.rounding(scale) / adc.delta
        if error > TOLERANCE:
            balanced, error = True, decision + gain * cells.rounding(scale, balanced=True) / adc.delta
        if error > TOLERANCE:
            return None
        constants = []
        for e in cells.converters:
            if ideal:
                constants.append((np.full(len(e.gain), chosen[0]), np.full(len(e.gain), chosen[1])))
                continue
            exact = (0.5 + e.offset + e.gain * (centre - adc.p_min / adc.delta)) * 2**shift
            constants.append((np.rint(e.gain * m).astype(np.int64), np.floor(exact).astype(np.int64) + 1))
        return Grid(scale, True, bias, shift, error, constants, balanced)
    return None


def _search(
    a: Integer[np.ndarray, " reads"], codes: Integer[np.ndarray, " reads"], m: float, c: float, shift: int, top: int
) -> tuple[int, int] | None:
    """Integers close to m and c that give exactly these codes."""
    first, below = round(m), int(np.floor(c))
    for constant in (below + 1, below, below + 2, below + 3):
        for multiplier in (first, first + 1, first - 1, first + 2):
            if not (0 < multiplier <= NARROW and abs(constant) <= NARROW):
                continue
            decided = (((a * multiplier) >> 16) + constant).clip(-NARROW - 1, NARROW) >> shift
            if np.array_equal(decided.clip(0, top), codes):
                return multiplier, constant
    return None


def wide_grid(cells: Cells, adc: Adc) -> Grid:
    """The wide grid, S at most 2^16."""
    reach = max(cells.high, -cells.low, 1e-9)
    scale = max(int(min((WIDE - cells.digit * cells.rows) / reach, 1 << 16)), 1)
    empty = np.zeros(0, np.int64)
    return Grid(scale, False, 0, 0, cells.rounding(scale) / adc.delta, [(empty, empty)] * len(cells.weights))
