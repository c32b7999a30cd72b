"""Level sets, the Q of "W ∈ P and W ∈ Q": every weight is a scale times one of a few codes.

With a fixed scale the nearest point is found weight by weight. With a scale that is free (a *scaled* level set) the
best one is found exactly: while the scale α falls from infinity, weights leave the code 0 one after another and the
nearest codes q change only where α crosses |w| ÷ (midpoint of two codes). Of each such q the best scale is
α = ⟨W,q⟩/⟨q,q⟩ and the error ‖W‖² − ⟨W,q⟩²/⟨q,q⟩, so sorting the crossings and two running sums give the least
error of all. (Yuan et al., arXiv 1908.11691, alternate between α and q, which can stop at a local minimum.)

Scales have so few significant bits that every α·code is a float32 number: what is projected stays projected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossloom.errors import InputError
from crossloom.methods.constraints import Constraint

SIGNIFICANT = 24
"""Bits of a float32 significand, shared between scale and code."""

CROSSINGS = 1 << 17
"""Crossings that are sorted. A weight with more of them (4000 weights of 6 bits) gets its scale by turns from several
starts: a local minimum, whose squared error the tests hold to within three per cent of the least."""

SAMPLES, STARTS, TURNS = 1 << 14, 6, 4
"""Of that search: weights that starts are judged by, starts, and turns of q and α."""


class Levels(Constraint):
    """Weights scale·code with code from a list that holds 0.

    Args:
        codes: the integers.
        scale: α, positive; None: free, one for the tensor or one for every output.
        per_channel: one free scale for every index of axis 0.

    Raises:
        InputError: codes without 0, not integers or too wide; a scale that is not positive.
    """

    name: ClassVar[str] = "levels"

    def __init__(self, codes: Sequence[int], scale: float | None = None, per_channel: bool = False) -> None:
        numbers = sorted(set(codes))
        if len(numbers) < 2 or 0 not in numbers or any(int(c) != c for c in numbers):
            raise InputError(f"{self.name}.codes", list(codes), "two or more integers with 0 among them")
        if scale is not None and not 0 < scale < math.inf:
            raise InputError(f"{self.name}.scale", scale, "a positive number", "1.0")
        self.codes = torch.tensor(numbers, dtype=torch.int64)
        self.scale, self.per_channel = scale, per_channel
        self.span = (int(numbers[0]), int(numbers[-1]))
        self.bits = max(max(abs(c) for c in numbers).bit_length() + (min(numbers) < 0), 2)
        if self.bits > 16:
            raise InputError(f"{self.name}.codes", f"{self.bits} bits wide", "codes of at most 16 bits")

    def fit(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "..."]:
        """The scale of the nearest point, float64: () or, per channel, (N, 1, …)."""
        if self.scale is not None:
            return torch.tensor(self.scale, dtype=torch.float64, device=weight.device)
        rows = weight.detach().double().reshape(len(weight) if self.per_channel else 1, -1)
        found = rows.new_tensor([_best_scale(row, self.codes.to(row)) for row in rows])
        found = _rounded(found, SIGNIFICANT - int(self.codes.abs().max()).bit_length())
        return found.view(-1, *[1] * (weight.dim() - 1)) if self.per_channel else found[0]

    def nearest(
        self, weight: Float[Tensor, "outputs ..."], scale: Float[Tensor, "..."]
    ) -> Float[Tensor, "outputs ..."]:
        """The nearest codes for a scale, in the weight's type; halves go up."""
        x = weight.detach() / scale.to(weight.device, weight.dtype)
        low, high = self.span
        if high - low == len(self.codes) - 1:
            return x.add_(0.5).floor_().clamp_(low, high)
        codes = self.codes.to(weight.device)
        middles = (codes[1:] + codes[:-1]).to(x) / 2
        return codes[torch.bucketize(x, middles, right=True)].to(weight.dtype)

    def at(self, weight: Float[Tensor, "outputs ..."], scale: Float[Tensor, "..."]) -> Float[Tensor, "outputs ..."]:
        """The nearest point with this scale."""
        return self.nearest(weight, scale) * scale.to(weight.device, weight.dtype)

    def project(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """See `Constraint.project`."""
        return self.at(weight, self.fit(weight))


class FixedPoint(Levels):
    """Symmetric fixed-point numbers k·α, |k| ≤ 2^(bits−1) − 1.

    Args:
        bits: of a code with its sign, 2 to 16.
        fraction: α = 2^−fraction; None: α is free (scaled levels).
        per_channel: one free scale for every output.

    Raises:
        InputError: bits out of range.
    """

    name: ClassVar[str] = "fixed-point"

    def __init__(self, bits: int = 8, fraction: int | None = None, per_channel: bool = False) -> None:
        if not 2 <= bits <= 16:
            raise InputError("fixed-point.bits", bits, "2 to 16", str(min(max(bits, 2), 16)))
        top = (1 << (bits - 1)) - 1
        super().__init__(range(-top, top + 1), None if fraction is None else 2.0**-fraction, per_channel)
        self.bits = bits


class PowerOfTwo(Levels):
    """0 and ±2^e·α for 2^(bits−1) − 1 neighbouring exponents e: a product is a shift.

    Args:
        bits: of the index of a level, 2 to 4 (1, 3 or 7 magnitudes). The integer codes are wider.
        exponent: the largest magnitude is 2^exponent; None: α is free.
        per_channel: one free scale for every output.

    Raises:
        InputError: bits out of range.
    """

    name: ClassVar[str] = "power-of-two"

    def __init__(self, bits: int = 4, exponent: int | None = None, per_channel: bool = False) -> None:
        if not 2 <= bits <= 4:
            raise InputError("power-of-two.bits", bits, "2 to 4", str(min(max(bits, 2), 4)))
        count = (1 << (bits - 1)) - 1
        magnitudes = [1 << e for e in range(count)]
        scale = None if exponent is None else 2.0 ** (exponent - count + 1)
        super().__init__([0, *magnitudes, *(-m for m in magnitudes)], scale, per_channel)


class DeviceLevels(Levels):
    """What a cell, or a pair of cells, can hold: any list of integers with 0, such as (−3, −1, 0, 1, 3).

    Args:
        levels: in steps of the cell's smallest difference of conductances.
        scale: weight of one step; None: free.
        per_channel: one free scale for every output.
    """

    name: ClassVar[str] = "device-levels"

    def __init__(self, levels: Sequence[int], scale: float | None = None, per_channel: bool = False) -> None:
        super().__init__(levels, scale, per_channel)


def _rounded(x: Float[Tensor, "..."], bits: int) -> Float[Tensor, "..."]:
    """x with so many significant bits."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.floor(mantissa * 2.0**bits + 0.5) / 2.0**bits, exponent)


def _sides(w: Tensor, codes: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(magnitudes of the weights, magnitudes of the codes from 0 up) of the positive and of the negative side."""
    sides = [(w[w > 0], codes[codes >= 0]), (-w[w < 0], -codes[codes <= 0].flip(0))]
    return [(values, steps) for values, steps in sides if len(values) and len(steps) > 1]


def _best_scale(w: Float[Tensor, " weights"], codes: Float[Tensor, " codes"]) -> float:
    """The scale of the nearest point of {α·q}; 1 if that is zero. See the module's text."""
    sides = _sides(w, codes)
    if not sides:
        return 1.0
    if sum(len(v) * (len(c) - 1) for v, c in sides) > CROSSINGS:
        return _descent(sides)
    places, gains, sizes = [], [], []
    for values, steps in sides:
        at = values[:, None] * 2 / (steps[1:] + steps[:-1])
        places.append(at.reshape(-1))
        gains.append((values[:, None] * steps.diff()).reshape(-1))
        sizes.append(steps.square().diff().expand_as(at).reshape(-1))
    order = torch.cat(places).argsort(descending=True)
    num, den = torch.cat(gains)[order].cumsum(0), torch.cat(sizes)[order].cumsum(0)
    best = int((num.square() / den).argmax())
    return float(num[best] / den[best])


def _descent(sides: list[tuple[Tensor, Tensor]]) -> float:
    """q and α in turn, from the best few of 97 scales: what covers the largest weight, and six octaves down."""
    widest = max(float(values.max() / steps[-1]) for values, steps in sides)

    def fitted(scale: float, every: int = 1) -> tuple[float, float]:
        """(−⟨W,q⟩²/⟨q,q⟩, its scale) for the codes q that are nearest at a scale."""
        num = den = 0.0
        for values, steps in sides:
            some, middles = values[::every], (steps[1:] + steps[:-1]) / 2
            q = steps[torch.bucketize(some / scale, middles)]
            num, den = num + float(some @ q), den + float(q @ q)
        return (-(num**2) / den, num / den) if den else (0.0, scale)

    stride = max(1, sum(len(values) for values, _ in sides) // SAMPLES)
    starts = [widest * 2 ** (-step / 16) for step in range(97)]
    found = []
    for start in sorted(starts, key=lambda scale: fitted(scale, stride)[0])[:STARTS]:
        error, scale = fitted(start)
        for _ in range(TURNS):
            error, scale = fitted(scale)
        found.append((error, scale))
    return min(found)[1]


def codes_of(weight: Float[Tensor, "outputs ..."], scale: Float[Tensor, "..."]) -> Int64[Tensor, "outputs ..."]:
    """The integer codes of a weight that lies on its levels."""
    return torch.round(weight.detach().double() / scale).long()
