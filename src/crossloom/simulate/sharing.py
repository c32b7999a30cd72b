"""In which steps the columns of a group of rows are counted, so that rows shared by two columns count once.

Two half-full columns have a quarter of all rows in common. Those are counted first, and each column continues that
counter with its own remaining rows: three rows out of four are left to count. Columns are paired greedily, the pair
with the most rows in common first.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from crossloom.simulate.counters import CONTINUED, FROM_ZERO, HELD, PIECES

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
SEGMENT = 248
"""Most rows whose numbers fit a byte and whose sum fits a counter."""
SHARED = 12
"""Rows that have to be saved to make a counter of their own worth while."""
FIELDS = 8
"""Numbers of a step, see `columns.read_columns`."""
_FIRST, _MOST, _LEAST = max(FROM_ZERO), max(CONTINUED), min(HELD)
_NUMBER = np.zeros((max(HELD) + 1, _FIRST + 1), np.int64)
for _i, (_held, _rows) in enumerate(PIECES):
    _NUMBER[_held, _rows] = _i


@njit(**OPTIONS)
def bits_of(word):
    """Number of ones of a uint64."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(**OPTIONS)
def weight(mask):
    """Number of ones of a few words."""
    total = 0
    for word in mask:
        total += bits_of(word)
    return total


@njit(**OPTIONS)
def padded(rows, phase):
    """The least number of rows from `rows` on that pieces come in: 8·i + phase."""
    return rows + (phase - rows) % 8


@njit(**OPTIONS)
def common_of(first, second, out):
    """The rows to share: those of both masks, but for up to seven where fewer rows then have to be padded.

    Returns:
        How many; 0 where a counter of their own is not worth it.
    """
    a, b, common = weight(first), weight(second), 0
    for i in range(len(out)):
        out[i] = first[i] & second[i]
        common += bits_of(out[i])
    best, kept = padded(a, 7) + padded(b, 7) - SHARED, 0
    for share in range(max(common - 7, 1), common + 1):
        cost = padded(share, 7) + padded(a - share, 0) + padded(b - share, 0)
        if cost <= best:
            best, kept = cost, share
    word = 0
    for _ in range(common - kept):
        while out[word] == 0:
            word += 1
        out[word] &= out[word] - np.uint64(1)
    return kept


@njit(**OPTIONS)
def masks_of(levels, columns, b_cell):
    """Set rows of every column by segment and cell bit: uint64 (columns, segments·b_cell, 4)."""
    segments = (levels.shape[0] + SEGMENT - 1) // SEGMENT
    masks = np.zeros((len(columns), segments * b_cell, 4), np.uint64)
    for r in range(levels.shape[0]):
        segment, row = divmod(r, SEGMENT)
        for i in range(len(columns)):
            level = levels[r, columns[i]]
            for bit in range(b_cell):
                masks[i, segment * b_cell + bit, row >> 6] |= np.uint64((level >> bit) & 1) << np.uint64(row & 63)
    return masks


@njit(**OPTIONS)
def pairs_of(masks):
    """Partner of every column, −1 for none: the pair that shares most first."""
    columns = len(masks)
    overlap = np.zeros((columns, columns), np.int64)
    for a in range(columns):
        for b in range(a):
            for m in range(masks.shape[1]):
                overlap[a, b] += weight(masks[a, m] & masks[b, m])
    partner = np.full(columns, -1)
    for _ in range(columns // 2):
        best, first, second = 0, -1, -1
        for a in range(columns):
            for b in range(a):
                if partner[a] < 0 and partner[b] < 0 and overlap[a, b] > best:
                    best, first, second = overlap[a, b], a, b
        if first >= 0:
            partner[first], partner[second] = second, first
    return partner


@njit(**OPTIONS)
def emit(mask, zero, source, held, target, steps, at, rows, end):
    """Steps that count the rows of a mask on top of counter `source` (−1: from zero) of value up to `held`.

    Returns:
        How many steps and row numbers there are now.
    """
    left, word, rest = weight(mask), 0, mask[0]
    first = True
    while first or left > 0:
        if source < 0 and first:
            room = min(padded(left, 7), _FIRST) if left else 0
            piece = _NUMBER[0, room]
        else:
            planes = _LEAST
            while held >> planes:
                planes += 1
            room = min(padded(max(left, 1), 0), _MOST)
            piece = _NUMBER[planes, room]
        steps[at, 0], steps[at, 1], steps[at, 2] = piece, end, zero
        steps[at, 3], steps[at, 4] = (max(source, 0) if first else target), target
        steps[at, 5], steps[at, 6], steps[at, 7] = -1, 0, -1
        for i in range(room):
            rows[end + i] = 0
            if i < left:
                while rest == 0:
                    word += 1
                    rest = mask[word]
                low = rest & (~rest + np.uint64(1))
                rows[end + i] = 64 * word + bits_of(low - np.uint64(1)) + 1
                rest ^= low
        held += min(room, left)
        left -= min(room, left)
        end += room
        at += 1
        first = False
    return at, end


@njit(**OPTIONS)
def schedule(levels, column_block, zeros, b_cell, direct, first_read):
    """The units of one group of rows of one array.

    Args:
        levels: uint8 (rows, columns).
        column_block: int64 (columns,): block of outputs of each column, rising.
        zeros: place of row number 0 of each segment.
        b_cell: bits of a level.
        direct: true if one counter is one read.
        first_read: number of the first column's read.

    Returns:
        units: int64 (U, 2): block and number of steps of each pair of columns.
        steps: see `columns.read_columns`, with reads in place of accumulators.
        rows: uint8.
    """
    columns = levels.shape[1]
    terms = len(zeros) * b_cell
    most = columns * terms * (2 * (SEGMENT // _MOST) + 4)
    steps, units = np.empty((most, FIELDS), np.int64), np.empty((columns, 2), np.int64)
    rows = np.empty(levels.size * b_cell + 4 * most, np.uint8)
    at = end = unit = start = 0
    while start < columns:
        stop = start
        while stop < columns and column_block[stop] == column_block[start]:
            stop += 1
        masks = masks_of(levels, np.arange(start, stop), b_cell)
        partner = pairs_of(masks)
        length = stop - start
        shared, common = np.zeros((length, terms), np.int64), np.zeros((length, terms, 4), np.uint64)
        for c in range(length):
            for m in range(terms):
                if partner[c] > c:
                    shared[c, m] = common_of(masks[c, m], masks[partner[c], m], common[c, m])
                    shared[partner[c], m], common[partner[c], m] = shared[c, m], common[c, m]
        for c in range(length):
            other = partner[c]
            if 0 <= other < c:
                continue
            begin = at
            for m in range(terms):
                zero, held = zeros[m // b_cell], shared[c, m]
                if held:
                    at, end = emit(common[c, m], zero, -1, 0, 1, steps, at, rows, end)
                for number in range(1 if other < 0 else 2):
                    mine = c if number == 0 else other
                    rest = masks[mine, m] & ~common[c, m]
                    at, end = emit(rest, zero, 1 if held else -1, held, 0, steps, at, rows, end)
                    steps[at - 1, 5], steps[at - 1, 6] = -1 if direct else number, m % b_cell
                    steps[at - 1, 7] = first_read + start + mine if m == terms - 1 else -1
            units[unit, 0], units[unit, 1] = column_block[start], at - begin
            unit += 1
        start = stop
    return units[:unit].copy(), steps[:at].copy(), rows[:end].copy()
