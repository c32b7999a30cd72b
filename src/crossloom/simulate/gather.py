"""Numba kernels around a layer's product: im2col with rows as rows, the input transform, and Q.

Inside a CPU kernel a batch of input vectors is a matrix (rows, positions): every row of the unfolded input is
contiguous, so that all inner loops run over positions.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, D417

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange

from crossloom.simulate.lanes import peek, poke
from crossloom.simulate.unfold import Fold

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


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
def put(out, value):
    """out[:] = value."""
    for i in range(len(out)):
        out[i] = value


@njit(**OPTIONS)
def copy(out, source):
    """out[:] = source, element by element from 0, which is what LLVM vectorises."""
    for i in range(len(out)):
        out[i] = source[i]


@njit(**OPTIONS)
def copy_shifted(plane, line, stop, down, right, fill, out):
    """Rows line … stop−1 of an image (H, W) shifted by (down, right); what comes from outside is `fill`.

    Whole rows are contiguous, so this is one copy and a patch at the left or right edge.
    """
    height, width = plane.shape
    first = min(max(line, -down), stop)
    last = max(min(stop, height - down), first)
    put(out[: (first - line) * width], fill)
    put(out[(last - line) * width :], fill)
    source, offset = plane.reshape(-1), (first + down) * width + right
    inside = out[(first - line) * width : (last - line) * width]
    low = min(max(-offset, 0), len(inside))
    high = max(min(len(inside), height * width - offset), low)
    copy(inside[low:high], source[offset + low : offset + high])
    left, edge = (0, min(-right, width)) if right < 0 else (max(width - right, 0), width)
    if right:
        for column in range(left, edge):
            put(inside[column::width], fill)


@njit(**OPTIONS)
def copy_images(source, step, images, height, width, down, right, fill, target):
    """Whole images of bytes shifted by (down, right) into one another's place, eight pixels at a time.

    Args:
        source: address of the first image, lines of `width` bytes, a multiple of 8.
        step: bytes from one image to the next.
        fill: eight times the byte for what comes from outside.
        target: address that the shifted images go to, one after the other.
    """
    first, last = min(max(-down, 0), height), min(max(height - down, 0), height)
    left, over = np.uint64(8 * max(-right, 0)), np.uint64(8 * max(right, 0))
    low, high = (np.uint64(1) << left) - np.uint64(1), ~(ALL >> over)
    for _ in range(images):
        for line in range(height):
            at, stop = target + line * width, target + (line + 1) * width
            if line < first or line >= last:
                while at < stop:
                    poke(at, fill)
                    at += 8
                continue
            place = source + (line + down) * width
            if right < 0:
                poke(at, (peek(place) << left) | (fill & low))
                at += 8
                place += 8
            if right > 0:
                stop -= 8
            while at < stop:
                poke(at, peek(place + right))
                at += 8
                place += 8
            if right > 0:
                poke(at, (peek(place) >> over) | (fill & high))
        source += step
        target += height * width


@njit(**OPTIONS)
def fill_row(x, channel, down, right, shape, fill, first, count, out):
    """One row of the unfolded input for `count` positions from `first`: out[i] = x[b, channel, y, x] or `fill`.

    x: (B, C, H, W). Positions run over (b, y', x').
    """
    height, width, rows, columns, sy, sx = shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]
    start = (-right + sx - 1) // sx if right < 0 else 0
    stop = min((width - 1 - right) // sx + 1, columns) if width - 1 - right >= 0 else 0
    same = x.itemsize == 1 and sx == 1 and sy == 1 and columns == width and rows == height and width % 8 == 0
    word = np.uint64(fill & 255) * np.uint64(0x0101010101010101)
    image, rest = divmod(first, rows * columns)
    line, column = divmod(rest, columns)
    i = 0
    while i < count:
        lines = min(rows - line, (count - i) // columns)
        images = (count - i) // (rows * columns) if line == 0 and column == 0 else 0
        if images and same and -8 < right < 8:
            place = x.ctypes.data + x.strides[0] * image + x.strides[1] * channel
            copy_images(place, x.strides[0], images, height, width, down, right, word, out.ctypes.data + i)
            i += images * rows * columns
            image += images
        elif sx == 1 and sy == 1 and columns == width and column == 0 and lines > 0:
            copy_shifted(x[image, channel], line, line + lines, down, right, fill, out[i : i + lines * columns])
            i += lines * columns
            line += lines
        else:
            length = min(columns - column, count - i)
            y = line * sy + down
            a, b = 0, 0
            if 0 <= y < height:
                a = min(max(start - column, 0), length)
                b = min(max(stop - column, a), length)
                at = column * sx + right
                source = x[image, channel, y]
                if sx == 1:
                    copy(out[i + a : i + b], source[at + a : at + b])
                else:
                    copy(out[i + a : i + b], source[at + a * sx : at + b * sx : sx])
            put(out[i : i + a], fill)
            put(out[i + b : i + length], fill)
            i += length
            column += length
            if column == columns:
                column = 0
                line += 1
        if line == rows:
            line = 0
            image += 1


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
def unfold(x, rows, shape, fill, first, out):
    """Rows of the unfolded input: out (R, P) for P positions from `first`; x (B, C, H, W) of the same dtype."""
    for r in prange(rows.shape[0]):
        fill_row(x, rows[r, 0], rows[r, 1], rows[r, 2], shape, fill, first, out.shape[1], out[r])


@njit(parallel=True, **OPTIONS)
def combine(z, indptr, indices, data, shift, out):
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
def direct(u, indptr, rows, weights, out):
    """Sparse product: out (N, P) += Σ_e weights[e]·u[rows[e]]; wraps in the dtype of `out`, which the caller bounds."""
    for n in prange(out.shape[0]):
        row = out[n]
        for e in range(indptr[n], indptr[n + 1]):
            weight, source = weights[e], u[rows[e]]
            for i in range(row.shape[0]):
                row[i] += weight * source[i]


@njit(parallel=True, **OPTIONS)
def output_transform(acc, columns, bias, multiplier, shift, zero, low, high, out):
    """Q: out (B, N, P) = clip(((acc + bias)·m + ½·2^s) >> s + zero, low, high), acc (J, B·P), in int64."""
    batch, outputs, positions = out.shape
    for t in prange(batch * outputs):
        b, n = divmod(np.int64(t), np.int64(outputs))
        scale, right = multiplier[n], shift[n]
        target = out[b, n]
        start = bias[n] * scale + ((np.int64(1) << right) >> 1)
        if columns[n] < 0:
            value = min(max((start >> right) + zero, low), high)
            for i in range(positions):
                target[i] = value
        else:
            source = acc[columns[n], b * positions : (b + 1) * positions]
            for i in range(positions):
                target[i] = min(max(((np.int64(source[i]) * scale + start) >> right) + zero, low), high)


@njit(parallel=True, **OPTIONS)
def output_transform_last(acc, columns, bias, multiplier, shift, zero, low, high, out):
    """Q with channels last: out (V, N), acc (J, V)."""
    for v in prange(out.shape[0]):
        for n in range(out.shape[1]):
            value = bias[n]
            if columns[n] >= 0:
                value += np.int64(acc[columns[n], v])
            half = (np.int64(1) << shift[n]) >> 1
            out[v, n] = min(max(((value * multiplier[n] + half) >> shift[n]) + zero, low), high)


@njit(parallel=True, **OPTIONS)
def add_codes(a, b, numbers, out):
    """out = clip((a·numbers[0] + b·numbers[1] + numbers[2]) >> numbers[3] + numbers[4], numbers[5], numbers[6])."""
    first, second, start, right = numbers[0], numbers[1], numbers[2], numbers[3]
    zero, low, high = numbers[4], numbers[5], numbers[6]
    for i in prange(a.shape[0]):
        value = (np.int64(a[i]) * first + np.int64(b[i]) * second + start) >> right
        out[i] = min(max(value + zero, low), high)
