"""Positional number codes: how inputs are cut into digits and weights into cell slices.

One idea serves both sides: a b-bit number is a sum of `Field`s, each an unsigned piece of `width` bits at bit
`lsb`, with a sign. Two's complement gives the sign bit a field of its own with a negative sign, so that every
piece is something a wordline can drive or a cell can hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Integer, UInt8

EncodingName = Literal["offset", "differential", "twos_complement", "polarised", "binary"]
ENCODINGS: tuple[EncodingName, ...] = ("offset", "differential", "twos_complement", "polarised", "binary")


@dataclass(frozen=True)
class Field:
    """A piece of a number: `sign · 2^lsb · piece`, with 0 ≤ piece < 2^width."""

    lsb: int
    width: int
    sign: int = 1

    @property
    def weight(self) -> int:
        """What one unit of the piece is worth."""
        return self.sign << self.lsb if self.sign > 0 else -(1 << self.lsb)


def fields(bits: int, width: int, signed: bool) -> tuple[Field, ...]:
    """Cut a `bits`-wide number into fields of at most `width` bits, lowest first.

    Signed numbers are two's complement: the top bit is a field of its own with negative weight.

    >>> [(f.lsb, f.width, f.sign) for f in fields(5, 2, signed=True)]
    [(0, 2, 1), (2, 2, 1), (4, 1, -1)]
    """
    if bits < 1 or width < 1:
        raise ValueError(f"fields: {bits} bits in pieces of {width}; expected both at least 1")
    magnitude = bits - int(signed)
    low = [Field(lsb, min(width, magnitude - lsb)) for lsb in range(0, magnitude, width)]
    return (*low, Field(bits - 1, 1, -1)) if signed else tuple(low)


def pieces(values: Integer[np.ndarray, "..."], cut: tuple[Field, ...]) -> list[Integer[np.ndarray, "..."]]:
    """The unsigned piece of every value for every field (values in two's complement)."""
    return [(values >> f.lsb) & ((1 << f.width) - 1) for f in cut]


@dataclass(frozen=True)
class CellSlice:
    """One physical column of a weight: a field of the weight, of its positive or negative part, or of its size."""

    field: Field
    part: Literal["value", "plus", "minus", "size"] = "value"
    gain: int = 1
    """What one unit read from this column adds to the accumulator."""


@dataclass(frozen=True)
class WeightCode:
    """How the weights of one layer become cells.

    A column read gives p_s = Σ_h x_h · cell_{s,h}; then Σ_h x_h·w_h = Σ_s gain_s·p_s + input_gain·Σ_h x_h. With
    `polarised` cells hold |w| and the weights that one read sums up share a sign, which is kept apart (FORMS, Yuan et
    al., ISCA 2021): Σ_h x_h·w_h = ±Σ_s gain_s·p_s, in half the columns of `differential`.

    Attributes:
        encoding: the rule.
        weight_bits: b_w.
        zero: what is added to a weight before it is stored (`offset` only).
        slices: the physical columns of one weight, adjacent in the array.
        input_gain: the correction per unit of input, from a reference column or a digital sum of inputs.
    """

    encoding: EncodingName
    weight_bits: int
    zero: int
    slices: tuple[CellSlice, ...]
    input_gain: int

    @property
    def columns(self) -> int:
        """Physical columns of one weight."""
        return len(self.slices)

    def encode(self, weights: Integer[np.ndarray, "rows outputs"]) -> UInt8[np.ndarray, "rows columns"]:
        """Cell levels of a block of weights; the columns of output n are n·S … n·S + S−1.

        Raises:
            ValueError: a weight that this code cannot hold.
        """
        weights = np.asarray(weights).astype(np.int64)
        if weights.size and (weights.min() < self.low or weights.max() > self.high):
            raise ValueError(
                f"weights from {weights.min()} to {weights.max()}: a {self.weight_bits}-bit {self.encoding} "
                f"code with zero {self.zero} holds {self.low} to {self.high}"
            )
        if self.encoding == "binary" and np.any(weights == 0):
            raise ValueError("weights: 0 in a binary layer; expected −1 and +1 only")
        parts = {
            "value": (weights + 1) // 2 if self.encoding == "binary" else weights + self.zero,
            "plus": np.maximum(weights, 0),
            "minus": np.maximum(-weights, 0),
            "size": np.abs(weights),
        }
        columns = [pieces(parts[s.part], (s.field,))[0] for s in self.slices]
        return np.stack(columns, axis=-1).reshape(weights.shape[0], -1).astype(np.uint8)

    def decode(self, cells: UInt8[np.ndarray, "rows columns"]) -> Integer[np.ndarray, "rows outputs"]:
        """The weights that a block of cells holds: the exact inverse of `encode`, up to the sign with `polarised`."""
        gains = np.array([s.gain for s in self.slices], np.int64)
        by_slice = cells.reshape(cells.shape[0], -1, self.columns).astype(np.int64)
        return np.asarray(by_slice @ gains + self.input_gain)

    @property
    def low(self) -> int:
        """Smallest weight the code holds."""
        if self.encoding == "binary":
            return -1
        if self.encoding in ("differential", "polarised"):
            return -self.high
        return -self.zero if self.encoding == "offset" else -(1 << (self.weight_bits - 1))

    @property
    def high(self) -> int:
        """Largest weight the code holds."""
        if self.encoding == "binary":
            return 1
        if self.encoding == "offset":
            return (1 << self.weight_bits) - 1 - self.zero
        return max((1 << (self.weight_bits - 1)) - 1, 1)


def weight_code(encoding: EncodingName, weight_bits: int, cell_bits: int, zero: int | None = None) -> WeightCode:
    """The code of `weight_bits`-wide weights in cells of `cell_bits`.

    One-bit weights are ±1 and have no offset, two's complement or polarised form: they take `binary` under those
    encodings. `zero` is the weight zero point of asymmetric quantisation; the default 2^(b_w−1) is the usual
    offset code (DESIGN §2).

    Raises:
        ValueError: an unknown encoding, or `binary` with more than one bit.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding: {encoding!r}; expected one of {', '.join(ENCODINGS)}")
    if weight_bits == 1 and encoding != "differential":
        return WeightCode("binary", 1, 0, (CellSlice(Field(0, 1), gain=2),), -1)
    if encoding == "binary":
        raise ValueError(f"encoding: binary with {weight_bits}-bit weights; expected weight bits 1")
    if encoding == "polarised":
        cut = fields(weight_bits - 1, cell_bits, signed=False)
        return WeightCode(encoding, weight_bits, 0, tuple(CellSlice(f, "size", f.weight) for f in cut), 0)
    if encoding == "differential":
        cut = fields(max(weight_bits - 1, 1), cell_bits, signed=False)
        plus = [CellSlice(f, "plus", f.weight) for f in cut]
        minus = [CellSlice(f, "minus", -f.weight) for f in cut]
        return WeightCode(encoding, weight_bits, 0, tuple(plus + minus), 0)
    if encoding == "offset":
        zero = 1 << (weight_bits - 1) if zero is None else zero
        cut = fields(weight_bits, cell_bits, signed=False)
        return WeightCode(encoding, weight_bits, zero, tuple(CellSlice(f, gain=f.weight) for f in cut), -zero)
    cut = fields(weight_bits, cell_bits, signed=True)
    return WeightCode(encoding, weight_bits, 0, tuple(CellSlice(f, gain=f.weight) for f in cut), 0)
