"""The analog-to-digital converter as exact integer arithmetic.

A column read p (an integer on the exact rungs, a real number on the analog ones) becomes

    code = clip(⌊(p − p_min)/Δ + ½⌋, 0, 2^b − 1)        q = p_min + Δ·code

Δ and p_min are rational numbers over one denominator, so that every engine, device and instruction set makes the
same decision at the half-way points, where a quotient of floats would not. A layer's accumulator is

    acc = ⌊Σ gain·weight·q + ½⌋ + digital corrections,

rounded half up once, over all reads of an output. Since q is rational, that is an integer formula in the sum of
codes and the number of reads (`Adc.total`), and everything behind the converter stays integer-only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from crossloom.errors import InputError
from crossloom.hardware import Array

GRID = 1 << 16
"""Denominator of a calibrated Δ and p_min: a reference voltage is itself set by a converter of finite resolution."""


@dataclass(frozen=True)
class Adc:
    """One converter's transfer function.

    Attributes:
        bits: resolution b.
        step: Δ in units of 1/denominator, positive.
        low: p_min in units of 1/denominator.
        denominator: common denominator of Δ and p_min, positive.
    """

    bits: int
    step: int = 1
    low: int = 0
    denominator: int = 1

    def __post_init__(self) -> None:
        if self.bits < 1:
            raise InputError("array.b_adc", self.bits, "at least 1 bit")
        if self.step < 1 or self.denominator < 1:
            raise InputError("adc.step", f"{self.step}/{self.denominator}", "a positive step")

    @staticmethod
    def of(bits: int, delta: float | Fraction, p_min: float | Fraction = 0) -> Adc:
        """The converter with step `delta` and lowest level `p_min`, in units of one cell level times one digit level.

        Fractions are kept exactly; floats are rounded to the nearest 1/`GRID`, the step to one unit at least.

        Raises:
            InputError: a step that is not positive and finite.
        """
        if not (math.isfinite(delta) and delta > 0 and math.isfinite(p_min)):
            raise InputError("adc.delta", (float(delta), float(p_min)), "a positive finite step and a finite p_min")
        parts = [v if isinstance(v, Fraction) else Fraction(round(v * GRID), GRID) for v in (delta, p_min)]
        step, low = max(parts[0], Fraction(1, GRID)), parts[1]
        denominator = math.lcm(step.denominator, low.denominator)
        return Adc(bits, int(step * denominator), int(low * denominator), denominator)

    @property
    def delta(self) -> float:
        """Δ."""
        return self.step / self.denominator

    @property
    def p_min(self) -> float:
        """What code 0 stands for."""
        return self.low / self.denominator

    @property
    def top(self) -> int:
        """The largest code, 2^b − 1."""
        return (1 << self.bits) - 1

    def steps(self, p: Any) -> Any:
        """⌊(p − p_min)/Δ + ½⌋ before the clip, for Python ints, int64 numpy arrays or int64 torch tensors."""
        return (2 * (p * self.denominator - self.low) + self.step) // (2 * self.step)

    def code(self, p: Any) -> Any:
        """The codes of integer reads, numpy or torch, same type as `p`."""
        return self.steps(p).clip(0, self.top)

    def total(self, codes: Any, count: Any) -> Any:
        """⌊Δ·codes + p_min·count + ½⌋: the value of a weighted sum of reads.

        Args:
            codes: Σ gain·weight·code.
            count: Σ gain·weight of the same reads.
        """
        if self.denominator == 1:
            return codes * self.step + count * self.low
        return (2 * (codes * self.step + count * self.low) + self.denominator) // (2 * self.denominator)

    def lossless(self, high: int, low: int = 0) -> bool:
        """True if every integer from `low` to `high` comes back as itself.

        That is: a whole number of steps lies between p_min and every integer, and none of them is clipped.
        """
        whole = self.denominator % self.step == 0 and self.low % self.step == 0
        first, last = self.low, self.low + self.step * self.top
        return whole and first <= low * self.denominator and high * self.denominator <= last


def array_adc(array: Array) -> Adc:
    """The converter that an array's own range policy gives.

    `full` covers 0 … p_max (`Array.read_max`, whatever the data) with Δ = max(1, p_max/(2^b − 1)); `unit` has Δ = 1
    and clips.

    Raises:
        InputError: the policy is `calibrated`, which needs data.
    """
    if array.adc_range == "unit":
        return Adc(array.b_adc)
    if array.adc_range == "full":
        delta = max(Fraction(1), Fraction(array.read_max, (1 << array.b_adc) - 1))
        return Adc.of(array.b_adc, delta)
    if array.adc_range == "calibrated":
        raise InputError("array.adc_range", "calibrated", "a calibration record for this policy, or full or unit")
    raise InputError.choice("array.adc_range", array.adc_range, ("full", "unit", "calibrated"))


def multiply_shift(adc: Adc, high: int) -> tuple[int, int, int]:
    """Integers (m, c, k) with code = clip((p·m + c) >> k, 0, 2^b − 1) for every p from 0 to `high`.

    Found by search and verified at every p. Among the shortest shifts that work, the m of fewest signed digits
    is taken, since each is one addition in a bit-sliced datapath.
    """
    p = np.arange(high + 1, dtype=np.int64)
    steps = adc.steps(p)
    within = (steps >= 0) & (steps <= adc.top)
    best: tuple[int, tuple[int, int, int]] | None = None
    for k in range(64 - max(high, 1).bit_length() - adc.bits - 2):
        ideal = ((adc.denominator << k) + adc.step // 2) // adc.step
        for m in range(max(ideal - 2, 0), ideal + 3):
            product = p * m
            floor = np.where(steps < 0, np.iinfo(np.int64).min, (np.minimum(steps, adc.top + 1) << k) - product)
            ceiling = np.where(steps > adc.top, np.iinfo(np.int64).max, (np.maximum(steps, -1) + 1 << k) - 1 - product)
            lowest, highest = int(floor.max()), int(ceiling.min())
            if lowest > highest or (not within.any() and m == 0):
                continue
            c = _roundest(max(lowest, -(1 << 61)), min(highest, 1 << 61))
            cost = len(signed_digits(m)) + (c != 0)
            if best is None or cost < best[0]:
                best = cost, (m, c, k)
        if best is not None and k >= best[1][2] + 3:
            break
    if best is None:
        raise InputError("adc", adc, f"a converter whose codes of reads 0 … {high} fit 64-bit arithmetic")
    m, c, k = best[1]
    assert np.array_equal(np.clip((p * m + c) >> k, 0, adc.top), adc.code(p))
    return m, c, k


def _roundest(low: int, high: int) -> int:
    """The number from `low` to `high` with the most trailing zero bits (0 if it is among them)."""
    if low <= 0 <= high:
        return 0
    for zeros in range(max(abs(low), abs(high)).bit_length(), 0, -1):
        candidate = -(-low >> zeros) << zeros if low > 0 else (high >> zeros) << zeros
        if low <= candidate <= high:
            return candidate
    return low


def signed_digits(value: int) -> list[tuple[int, int]]:
    """Canonical signed digits of a non-negative integer: (shift, ±1) terms, highest first (Reitwiesner 1960)."""
    terms: list[tuple[int, int]] = []
    shift = 0
    while value:
        if value & 1:
            digit = 2 - (value & 3)
            terms.append((shift, digit))
            value -= digit
        value >>= 1
        shift += 1
    return terms[::-1]
