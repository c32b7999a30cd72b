"""Integer number formats and the rounding that every room shares.

A real value v is held as an integer code q with v = scale · (q − zero_point). Rounding is half up
everywhere, floor(v + ½), because that is what an adder and a right shift do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MULTIPLIER_BITS = 16
"""Width of a fixed-point multiplier. An accumulator below 2^37 times it is exact in int64 and float64."""


@dataclass(frozen=True)
class Format:
    """How the values on one edge of a program are held as integers.

    Attributes:
        bits: width of a code, 1 to 32.
        signed: codes run from −2^(bits−1) to 2^(bits−1)−1 if true, else from 0 to 2^bits−1.
        scale: real value of one step (dimensionless; the unit of the network's own values).
        zero_point: the code that stands for 0.0.
    """

    bits: int
    signed: bool
    scale: float = 1.0
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise ValueError(f"format.bits: {self.bits}; expected 1 to 32")
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"format.scale: {self.scale}; expected a positive finite number")
        if not self.low <= self.zero_point <= self.high:
            raise ValueError(f"format.zero_point: {self.zero_point}; expected a code from {self.low} to {self.high}")

    @property
    def low(self) -> int:
        """Smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest code."""
        return (1 << (self.bits - int(self.signed))) - 1

    @staticmethod
    def covering(low: int, high: int) -> Format:
        """The narrowest format (scale 1) that holds every integer from `low` to `high`."""
        signed = low < 0
        magnitude = max(high, -low - 1, 0)
        return Format(bits=max(magnitude.bit_length() + int(signed), 1), signed=signed)


def round_shift(value: Any, shift: Any) -> Any:
    """value / 2^shift rounded half up, on integers: an adder and an arithmetic right shift.

    Only +, * and >> are used, so `value` may be an int, a numpy array or a torch tensor. `shift` is a
    non-negative integer or an integer array that broadcasts against it.
    """
    half = (1 << shift) >> 1 if isinstance(shift, int) else (shift * 0 + 1 << shift) >> 1
    return (value + half) >> shift


@dataclass(frozen=True, eq=False)
class Rescale:
    """Multiplication by a positive real as integers do it: (value · multiplier + ½·2^shift) >> shift.

    Attributes:
        multiplier: int64 array, one per channel, or of one element for all; a power of two where only shifts
            are allowed.
        shift: int64 array of the same shape, non-negative.
    """

    multiplier: np.ndarray = field(default_factory=lambda: np.ones(1, np.int64))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))

    @staticmethod
    def of(ratio: Any, power_of_two: bool = False) -> Rescale:
        """The nearest fixed-point factor to each entry of `ratio` (positive; scalar or 1-D array).

        With `power_of_two` the nearest 2^n in the logarithm is taken, and only a shift is left. Otherwise the
        multiplier has `MULTIPLIER_BITS` bits, so the relative error is below 2^−16.

        Raises:
            ValueError: a ratio is not positive and finite, or too large for the multiplier.
        """
        ratio = np.atleast_1d(np.asarray(ratio, np.float64))
        if not (np.all(np.isfinite(ratio)) and np.all(ratio > 0)):
            raise ValueError(f"rescale ratio: {ratio}; expected positive finite numbers")
        mantissa, exponent = np.frexp(ratio)
        if power_of_two:
            exponent = np.rint(np.log2(ratio)).astype(np.int64)
            multiplier = np.int64(1) << np.maximum(exponent, 0)
            return Rescale(multiplier, np.maximum(-exponent, 0))
        shift = (MULTIPLIER_BITS - exponent).astype(np.int64)
        multiplier = np.rint(mantissa * 2.0**MULTIPLIER_BITS).astype(np.int64)
        if np.any(shift < 0):
            raise ValueError(f"rescale ratio: {ratio.max()}; expected at most 2^{MULTIPLIER_BITS}")
        # A ratio so small that the shift leaves int64 is zero for every accumulator there is.
        multiplier = np.where(shift > 62, 0, multiplier)
        shift = np.minimum(shift, 62)
        while np.any(even := (multiplier % 2 == 0) & (shift > 0) & (multiplier > 0)):
            multiplier = np.where(even, multiplier >> 1, multiplier)
            shift = np.where(even, shift - 1, shift)
        return Rescale(multiplier, shift)

    @property
    def ratio(self) -> np.ndarray:
        """The exact real factor, float64."""
        return self.multiplier * 2.0 ** -self.shift.astype(np.float64)

    @property
    def only_shifts(self) -> bool:
        """True if no multiplier is needed in the datapath."""
        return bool(np.all((self.multiplier & (self.multiplier - 1)) == 0))

    def apply(self, value: np.ndarray) -> np.ndarray:
        """Rescale int64 codes; channels are the last axis."""
        return np.asarray(round_shift(value * self.multiplier, self.shift))
