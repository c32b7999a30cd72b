"""Bit planes: how the inputs of 1024 positions at a time lie in memory, and how codes get there.

A lane is a position (an input vector), a plane is one bit of 1024 lanes. Digits are streamed side by side: word
i·L + l of a row holds digit i of positions 64·l … 64·l+63, L words a digit. `packed[chunk, bit of the digit, vector,
place, word]`: places are rows in the order in which they are read together, with a row of zeros, which pads lists of
rows, before every `sharing.SEGMENT` rows.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, D417

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from crossloom.simulate.gather import fill_row
from crossloom.simulate.lanes import WORDS, gather_bits

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**OPTIONS)
def aligned(words):
    """A zeroed uint64 array on a 64-byte boundary."""
    raw = np.zeros(words + 8, np.uint64)
    start = (-(raw.ctypes.data >> 3)) & 7
    return raw[start : start + words]


@njit(**OPTIONS)
def pack_row(codes, layout, packed, chunk, place):
    """Write the bits of one row's codes (two's complement) as planes; `layout` as in `pack_image`."""
    words = layout[2, 0]
    low = np.empty(len(codes) if codes.itemsize > 1 else 0, np.uint8)
    address = codes.ctypes.data if codes.itemsize == 1 else low.ctypes.data
    for bit in range(layout.shape[1]):
        if codes.itemsize > 1 and bit % 8 == 0:
            for i in range(len(codes)):
                low[i] = (codes[i] >> bit) & 255
        vector, first = divmod(layout[0, bit] * words, WORDS)
        run = packed[chunk, layout[1, bit], vector, place, first : first + words]
        for word in range(words):
            run[word] = gather_bits(address + 64 * word, bit % 8)


@njit(**OPTIONS)
def pack_image_task(task, x, rows, shape, zero, first, positions, band_rows, places, band_start, layout, packed, sums):
    """One task of `pack_image`."""
    bands = len(band_start) - 1
    chunk, band = divmod(task, bands)
    length = 64 * layout[2, 0]
    start = chunk * length
    count = min(length, positions - first - start)
    codes = np.zeros(length, x.dtype)
    total = np.zeros(length, sums.dtype)
    for i in range(band_start[band], band_start[band + 1]):
        r = band_rows[i]
        fill_row(x, rows[r, 0], rows[r, 1], rows[r, 2], shape, zero, first + start, count, codes)
        pack_row(codes, layout, packed, chunk, places[i])
        for j in range(length):
            total[j] += codes[j]
    sums[band, start : start + count] = total[:count]


@njit(parallel=True, **OPTIONS)
def pack_image(x, rows, shape, zero, first, positions, band_rows, places, band_start, layout, packed, sums):
    """Unfold a convolution's input and pack it, one chunk of positions and one band of rows a task.

    Args:
        x: codes (B, C, H, W).
        rows, shape: `Geometry`.
        zero: code around the border.
        first: first position of the first chunk.
        positions: number of positions in all.
        band_rows, places, band_start: the rows of every band, one band after the other, and where they go.
        layout: int64 (3, bits): digit, bit within the digit, and in [2, 0] the words per digit.
        packed: see the module.
        sums: int32 or int64 (bands, positions from `first` on), set to Σ x over each band's rows.
    """
    for task in prange(packed.shape[0] * (len(band_start) - 1)):
        pack_image_task(
            np.int64(task), x, rows, shape, zero, first, positions, band_rows, places, band_start, layout, packed, sums
        )


@njit(**OPTIONS)
def pack_rows_task(task, z, source, band_rows, places, band_start, layout, packed, sums):
    """One task of `pack_rows`."""
    bands = len(band_start) - 1
    chunk, band = divmod(task, bands)
    length = 64 * layout[2, 0]
    start = chunk * length
    count = min(length, z.shape[1] - start)
    codes = np.zeros(length, z.dtype)
    total = np.zeros(length, sums.dtype)
    for i in range(band_start[band], band_start[band + 1]):
        codes[:count] = z[source[band_rows[i]], start : start + count]
        pack_row(codes, layout, packed, chunk, places[i])
        for j in range(length):
            total[j] += codes[j]
    sums[band, start : start + count] = total[:count]


@njit(parallel=True, **OPTIONS)
def pack_rows(z, source, band_rows, places, band_start, layout, packed, sums):
    """Pack rows that are there already: row r is z[source[r]] of z (…, positions); the rest as in `pack_image`."""
    for task in prange(packed.shape[0] * (len(band_start) - 1)):
        pack_rows_task(np.int64(task), z, source, band_rows, places, band_start, layout, packed, sums)


@njit(**OPTIONS)
def holds_ones(packed, chunk, vector, first, last):
    """True if any bit of the places first … last of one vector is set."""
    for bit in range(packed.shape[1]):
        for place in range(first, last + 1):
            for word in packed[chunk, bit, vector, place]:
                if word:
                    return True
    return False


@njit(parallel=True, **OPTIONS)
def find_ones(packed, groups, found):
    """Which row groups have any input bit set: found (chunks, vectors, groups), bool; groups as in `Plan`."""
    for chunk in prange(found.shape[0]):
        for vector in range(found.shape[1]):
            for g in range(len(groups)):
                found[chunk, vector, g] = holds_ones(packed, chunk, vector, groups[g, 0], groups[g, 1])
