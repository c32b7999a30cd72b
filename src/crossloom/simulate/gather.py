"""Numba kernels around a layer's product: im2col with rows as rows, the input transform, and Q.

Inside a CPU kernel a batch of input vectors is a matrix (rows, positions): every row of the unfolded input is
contiguous, so that all inner loops run over positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange

from crossloom.simulate.lanes import peek, poke
from crossloom.simulate.unfold import Fold

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the rows of an unfolded input lie, as arrays that a kernel takes.

    Attributes:
        rows: int64 (R, 3): channel, vertical and horizontal offset in pixels of every row.
        shape: int64 (6,): H, W, H', W' and the strides.
    """

    rows: np.ndarray
    shape: np.ndarray

    @staticmethod
    def of(fold: Fold, selection: np.ndarray | None = None) -> Geometry:
        """The geometry of all input rows, or of those selected."""
        chosen = np.arange(fold.inputs) if selection is None else selection
        if fold.convolution is None:
            rows = np.stack([chosen, np.zeros_like(chosen), np.zeros_like(chosen)], axis=1)
            return Geometry(np.ascontiguousarray(rows, np.int64), np.ones(6, np.int64))
        geometry = fold.convolution
        (kh, kw), (dy, dx) = geometry.kernel, geometry.dilation
        top, _, left, _ = geometry.padding
        vertical, horizontal = (chosen // kw) % kh * dy - top, chosen % kw * dx - left
        rows = np.stack([chosen // (kh * kw), vertical, horizontal], axis=1)
        return Geometry(
            np.ascontiguousarray(rows, np.int64), np.array([*fold.size, *fold.output_size, *geometry.stride], np.int64)
        )


@njit(**OPTIONS)
def fill_row(x, channel, down, right, shape, fill, first, count, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """One row of the unfolded input for `count` positions from `first`: out[i] = x[b, channel, y, x] or `fill`.

    x: (B, C, H, W). Positions run over (b, y', x').
    """
    height, width, rows, columns, sy, sx = shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]
    if rows * columns == 1 and height * width == 1:
        for i in range(count):
            out[i] = x[first + i, channel, 0, 0]
        return
    start = 0
    if right < 0:
        start = (-right + sx - 1) // sx
    stop = min((width - 1 - right) // sx + 1, columns) if width - 1 - right >= 0 else 0
    position, i = first, 0
    while i < count:
        image, rest = divmod(position, rows * columns)
        line, column = divmod(rest, columns)
        length = min(columns - column, count - i)
        y = line * sy + down
        if y < 0 or y >= height:
            for j in range(length):
                out[i + j] = fill
        else:
            a = min(max(start - column, 0), length)
            b = min(max(stop - column, a), length)
            for j in range(a):
                out[i + j] = fill
            source = x[image, channel, y]
            at = column * sx + right
            if sx == 1:
                for j in range(a, b):
                    out[i + j] = source[at + j]
            else:
                for j in range(a, b):
                    out[i + j] = source[at + j * sx]
            for j in range(b, length):
                out[i + j] = fill
        i += length
        position += length


@njit(**OPTIONS)
def swap_bytes(words, step, shift, mask):
    """One stage of an 8 × 8 byte transposition: exchange blocks of `step` bytes across the diagonal."""
    for i in range(8):
        if not i & step:
            a, b = words[i], words[i + step]
            moved = ((a >> shift) ^ b) & mask
            words[i], words[i + step] = a ^ (moved << shift), b ^ moved


@njit(parallel=True, **OPTIONS)
def transpose_bytes(x, z):
    """z = xᵀ for 8-bit codes, 8 × 8 at a time: x (P, K) uint8, z (K, P) uint8."""
    rows, columns = x.shape
    for tile in prange((columns + 63) // 64):
        left = np.int64(tile) * 64
        words = np.empty(8, np.uint64)
        for top in range(0, rows, 8):
            for k in range(left, min(left + 64, columns), 8):
                if top + 8 > rows or k + 8 > columns:
                    for i in range(top, min(top + 8, rows)):
                        for j in range(k, min(k + 8, columns)):
                            z[j, i] = x[i, j]
                    continue
                for i in range(8):
                    words[i] = peek(x.ctypes.data + (top + i) * columns + k)
                swap_bytes(words, 4, np.uint64(32), np.uint64(0x00000000FFFFFFFF))
                swap_bytes(words, 2, np.uint64(16), np.uint64(0x0000FFFF0000FFFF))
                swap_bytes(words, 1, np.uint64(8), np.uint64(0x00FF00FF00FF00FF))
                for j in range(8):
                    poke(z.ctypes.data + (k + j) * rows + top, words[j])


def transpose(x: np.ndarray) -> np.ndarray:
    """xᵀ, contiguous."""
    if x.itemsize > 1:
        return np.ascontiguousarray(x.T)
    z = np.empty(x.shape[::-1], x.dtype)
    transpose_bytes(np.ascontiguousarray(x).view(np.uint8), z.view(np.uint8))
    return z


@njit(parallel=True, **OPTIONS)
def unfold(x, rows, shape, fill, first, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Rows of the unfolded input: out (R, P) for P positions from `first`; x (B, C, H, W) of the same dtype."""
    for r in prange(rows.shape[0]):
        fill_row(x, rows[r, 0], rows[r, 1], rows[r, 2], shape, fill, first, out.shape[1], out[r])


@njit(parallel=True, **OPTIONS)
def combine(z, indptr, indices, data, shift, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """One factor of P: out (R, P) = ⌊M z / 2^shift + ½⌋ with M sparse by rows; exact in int64."""
    for r in prange(out.shape[0]):
        row = np.zeros(z.shape[1], np.int64)
        for e in range(indptr[r], indptr[r + 1]):
            weight, source = data[e], z[indices[e]]
            for i in range(z.shape[1]):
                row[i] += weight * np.int64(source[i])
        half = (np.int64(1) << shift[r]) >> 1
        for i in range(z.shape[1]):
            out[r, i] = (row[i] + half) >> shift[r]


@njit(parallel=True, **OPTIONS)
def direct(u, indptr, rows, weights, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sparse product: out (N, P) += Σ_e weights[e]·u[rows[e]]; wraps in the dtype of `out`, which the caller bounds."""
    for n in prange(out.shape[0]):
        row = out[n]
        for e in range(indptr[n], indptr[n + 1]):
            weight, source = weights[e], u[rows[e]]
            for i in range(row.shape[0]):
                row[i] += weight * source[i]


@njit(parallel=True, **OPTIONS)
def output_transform(acc, columns, bias, multiplier, shift, zero, low, high, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Q: out (B, N, P) = clip(((acc + bias)·m + ½·2^s) >> s + zero, low, high), acc (B, J, P), in int64."""
    batch, outputs, positions = out.shape
    for t in prange(batch * outputs):
        b, n = divmod(np.int64(t), np.int64(outputs))
        scale, right = multiplier[n], shift[n]
        half = (np.int64(1) << right) >> 1
        target = out[b, n]
        if columns[n] < 0:
            value = min(max(((bias[n] * scale + half) >> right) + zero, low), high)
            for i in range(positions):
                target[i] = value
        else:
            source = acc[b, columns[n]]
            start = bias[n] * scale + half
            for i in range(positions):
                target[i] = min(max(((np.int64(source[i]) * scale + start) >> right) + zero, low), high)


@njit(parallel=True, **OPTIONS)
def output_transform_last(acc, columns, bias, multiplier, shift, zero, low, high, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Q with channels last: out (V, N), acc (V, J)."""
    for v in prange(out.shape[0]):
        for n in range(out.shape[1]):
            value = bias[n]
            if columns[n] >= 0:
                value += np.int64(acc[v, columns[n]])
            half = (np.int64(1) << shift[n]) >> 1
            out[v, n] = min(max(((value * multiplier[n] + half) >> shift[n]) + zero, low), high)
