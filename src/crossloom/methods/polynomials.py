"""Integer bases for groups of weights: what the moments of the inputs are made of.

A group of n weights is a combination of r ≤ n integer rows p_k(0) … p_k(n−1), so W = C·P and the crossbar sees the
moments Σ_t p_k(t)·x_t. Any integer rows of full rank will do; these are the ones there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer

Basis = Literal["orthogonal", "index", "cosine"]
COSINE_AMPLITUDE = 8
"""Largest entry of a cosine row: four bits with sign; the rows' angles to the true cosines are below 4°."""


def orthogonal(n: int, order: int) -> Integer[np.ndarray, "rows n"]:
    """Discrete Chebyshev (Gram) polynomials of degree 0 … order on t = 0 … n−1, in smallest integers.

    (k+1)·g_{k+1}(t) = (2k+1)(2t−n+1)·g_k(t) − k(n²−k²)·g_{k−1}(t), divided by the entries' common divisor
    (Abramowitz and Stegun, 22.17; Szegő, Orthogonal Polynomials, section 2.8).
    """
    before, now = [0] * n, [1] * n
    rows = []
    for k in range(order + 1):
        divisor = math.gcd(*now)
        rows.append([value // divisor for value in now])
        after = [
            ((2 * k + 1) * (2 * t - n + 1) * now[t] - k * (n * n - k * k) * before[t]) // (k + 1) for t in range(n)
        ]
        before, now = now, after
    return np.array(rows, dtype=object)


def index(n: int, order: int) -> Integer[np.ndarray, "rows n"]:
    """Powers t^k of the index, k = 0 … order (Nehete et al., IEEE OJ Nanotechnology 6, 2025)."""
    return np.array([[t**k for t in range(n)] for k in range(order + 1)], dtype=object)


def cosine(n: int, order: int) -> Integer[np.ndarray, "rows n"]:
    """The first order + 1 rows of the discrete cosine transform, cos(πk(2t+1)/2n), rounded to four bits."""
    k, t = np.arange(order + 1)[:, None], np.arange(n)[None, :]
    rows = np.rint(COSINE_AMPLITUDE * np.cos(np.pi * k * (2 * t + 1) / (2 * n))).astype(np.int64)
    return np.asarray(rows // np.gcd.reduce(rows, axis=1, keepdims=True))


BASES = {"orthogonal": orthogonal, "index": index, "cosine": cosine}


@dataclass(frozen=True, eq=False)
class Run:
    """Groups of one length, one behind the other.

    Attributes:
        groups: how many.
        rows: P of one group, integers of full rank.
        exponents: the chip forms the moments 2^e_k·Σ p_k(t)·x_t: wiring where e_k ≥ 0, a rounding shift below.
    """

    groups: int
    rows: Integer[np.ndarray, "rows n"]
    exponents: Integer[np.ndarray, " rows"]

    @property
    def scaled(self) -> Float[np.ndarray, "rows n"]:
        """2^e_k·p_k, float64 (exact)."""
        return np.asarray(self.rows * 2.0 ** self.exponents[:, None])

    @property
    def orthonormal(self) -> Float[np.ndarray, "rows n"]:
        """Orthonormal rows Φ that span what P spans; row k is a combination of p_0 … p_k, with p_k's sign."""
        q, r = np.linalg.qr(self.scaled.T)
        return np.asarray((q * np.sign(np.diag(r))).T)

    @property
    def change(self) -> Float[np.ndarray, "rows rows"]:
        """L with Φ = L·P, so that coefficients A in the orthonormal basis are C = A·L on the chip."""
        return np.asarray(self.orthonormal @ np.linalg.pinv(self.scaled))


def shapes(inputs: int, n: int, order: int, basis: Basis) -> list[tuple[int, np.ndarray]]:
    """(number of groups, their rows as Python integers) of groups of n, and of a shorter last one if there is one."""
    make = BASES[basis]
    parts = [(inputs // n, make(n, order))]
    if rest := inputs % n:
        parts.append((1, make(rest, min(order, rest - 1))))
    return [(count, rows.astype(object)) for count, rows in parts]


def reaches(parts: list[tuple[int, np.ndarray]]) -> list[list[int]]:
    """How many times the inputs' span every moment spans: the larger of its positive and negative sums.

    Twice that where any row of the layer has a negative entry, because then the format of all of them has a sign.
    """
    twice = 2 if any((rows < 0).any() for _, rows in parts) else 1
    return [[int(max(row[row > 0].sum(), -row[row < 0].sum())) * twice for row in rows] for _, rows in parts]


def exact_growth(inputs: int, n: int, order: int, basis: Basis) -> int:
    """G: exact moments of b-bit inputs have at most b + G bits."""
    return max((r - 1).bit_length() for found in reaches(shapes(inputs, n, order, basis)) for r in found)


def runs(inputs: int, n: int, order: int, basis: Basis, growth: int | None = None) -> tuple[Run, ...]:
    """The groups of a layer of `inputs` inputs: groups of n, and a shorter one for what is left over.

    The moments of a layer are streamed in one format, as wide as the largest of them needs: b_x + G bits. One weight
    step serves the coefficients of all rows of a column, and a step of row k moves the weights by the row's length
    ‖p_k‖. The rows are therefore multiplied by powers of two that bring their lengths together, as far as they stay in
    the format. That costs no bit and no adder, and the coefficients of all orders use the same part of the code.

    Args:
        inputs: K of one group of the convolution.
        n: inputs of a group.
        order: polynomial degree; a shorter last group of m inputs takes at most m − 1.
        basis: of the rows.
        growth: G, bits of the moments beyond those of the inputs; None: as many as exact moments need. With fewer, the
            moments are rounded to b_x + G bits by right shifts.
    """
    parts = shapes(inputs, n, order, basis)
    found = reaches(parts)
    bits = exact_growth(inputs, n, order, basis) if growth is None else growth
    fits = [np.array([largest_exponent(r, bits) for r in part]) for part in found]
    lengths = [np.sqrt((rows.astype(np.float64) ** 2).sum(1)) for _, rows in parts]
    common = float(np.min(lengths[0] * 2.0 ** fits[0]))
    result = []
    for (count, rows), length, fit in zip(parts, lengths, fits, strict=True):
        exponents = np.clip(np.rint(np.log2(common / length)), np.minimum(fit, 0), fit)
        result.append(Run(count, rows.astype(np.int64), exponents.astype(np.int64)))
    return tuple(result)


def largest_exponent(reached: int, bits: int) -> int:
    """The largest e with reached·2^e ≤ 2^bits; a rounding shift (e < 0) keeps clear of the end, as it may round up."""
    e = bits - (reached - 1).bit_length()
    return e - 1 if e < 0 and reached == 1 << (bits - e) else e
