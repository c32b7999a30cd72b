"""The bit-sliced crossbar: Numba kernels that read 512 positions of one column at a time.

A lane is a position (an input vector), a plane is one bit of 512 lanes. The reads of a column are counted by full
adders: for every row whose cell holds a 1, the plane of that row's input bit is added to a counter that is itself
held as planes. A carry-save network takes about one full adder, two instructions, per row and 512 positions, against
two and a half per *eight* positions and 64 rows for a population count; and rows whose cell holds 0 cost nothing.
The converter and the shift-and-add are ripple adders on planes too, so a read never becomes a number until the
sum over slices, digits and rows is complete.

Layout. Digits are streamed side by side: word i·L + l of a row holds digit i of positions 64·l … 64·l+63, L words
a digit. `packed[chunk, bit of the digit, vector, place, word]`: places are rows
in the order in which they are read together, with a row of zeros, which pads lists of rows, before every `SEGMENT`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, D417

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from crossloom.simulate.converter import call
from crossloom.simulate.gather import fill_row
from crossloom.simulate.lanes import (
    PLANE,
    WORDS,
    add,
    add_bits,
    both,
    differ,
    either,
    fill,
    gather_bits,
    load,
    load_at,
    ripple,
    store,
)

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
ZERO = np.uint64(0)
SEGMENT = 248
"""Most rows of one counting pass: a multiple of 8 whose sum fits eight planes, and whose numbers fit a byte."""


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


@njit(inline="always")
def add_eight(base, k, c0, c1, c2):
    """Add eight rows' planes to the counter planes 1, 2 and 4: the planes and the carry, worth 8."""
    c0, a = add(c0, load_at(base, k), load_at(base, k + 1))
    c0, b = add(c0, load_at(base, k + 2), load_at(base, k + 3))
    c1, d = add(c1, a, b)
    c0, a = add(c0, load_at(base, k + 4), load_at(base, k + 5))
    c0, b = add(c0, load_at(base, k + 6), load_at(base, k + 7))
    c1, e = add(c1, a, b)
    c2, carry = add(c2, d, e)
    return c0, c1, c2, carry


@njit(**OPTIONS)
def count_rows(base, k, stop, out):
    """Σ of the planes whose numbers, from `base`, are the bytes at addresses k … stop, as eight planes at `out`.

    There is a multiple of 8 of them, at most `SEGMENT`.
    """
    c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = fill(ZERO)
    while k + 32 <= stop:
        c0, c1, c2, a = add_eight(base, k, c0, c1, c2)
        c0, c1, c2, b = add_eight(base, k + 8, c0, c1, c2)
        c3, d = add(c3, a, b)
        c0, c1, c2, a = add_eight(base, k + 16, c0, c1, c2)
        c0, c1, c2, b = add_eight(base, k + 24, c0, c1, c2)
        c3, e = add(c3, a, b)
        c4, a = add(c4, d, e)
        b = both(c5, a)
        c5 = differ(c5, a)
        a = both(c6, b)
        c6 = differ(c6, b)
        c7 = differ(c7, a)
        k += 32
    while k < stop:
        c0, c1, c2, a = add_eight(base, k, c0, c1, c2)
        b = both(c3, a)
        c3 = differ(c3, a)
        a = both(c4, b)
        c4 = differ(c4, b)
        b = both(c5, a)
        c5 = differ(c5, a)
        a = both(c6, b)
        c6 = differ(c6, b)
        c7 = differ(c7, a)
        k += 8
    store(out, c0)
    store(out + PLANE, c1)
    store(out + 2 * PLANE, c2)
    store(out + 3 * PLANE, c3)
    store(out + 4 * PLANE, c4)
    store(out + 5 * PLANE, c5)
    store(out + 6 * PLANE, c6)
    store(out + 7 * PLANE, c7)


@njit(**OPTIONS)
def carry_up(target, stop, carry):
    """Ripple a carry through the planes target … stop."""
    while target < stop:
        old = load(target)
        store(target, differ(old, carry))
        carry = both(old, carry)
        target += PLANE


@njit(**OPTIONS)
def add_planes(target, stop, source, count):
    """Planes target … stop += `count` planes from `source`, the carry running up."""
    carry = fill(ZERO)
    middle = min(target + PLANE * count, stop)
    while target < middle:
        total, carry = ripple(load(target), load(source), carry)
        store(target, total)
        target += PLANE
        source += PLANE
    carry_up(target, stop, carry)


@njit(**OPTIONS)
def subtract_planes(target, stop, source, count):
    """Planes target … stop −= `count` planes from `source`, in two's complement."""
    ones = fill(ONES)
    carry = ones
    middle = min(target + PLANE * count, stop)
    while target < middle:
        total, carry = ripple(load(target), differ(load(source), ones), carry)
        store(target, total)
        target += PLANE
        source += PLANE
    while target < stop:
        old = load(target)
        store(target, differ(differ(old, carry), ones))
        carry = either(old, carry)
        target += PLANE


@njit(**OPTIONS)
def shift_add_words(w, target, planes, words, source, count, sign):
    """Planes of `words` words from w[target] ± `count` whole planes, of which `words` words count, from w[source]."""
    flip = ZERO if sign > 0 else ONES
    carry = np.full(words, flip)
    for j in range(planes):
        at, value = target + j * words, flip
        for i in range(words):
            if j < count:
                value = flip ^ w[source + WORDS * j + i]
            old = w[at + i]
            half = old ^ value
            w[at + i] = half ^ carry[i]
            carry[i] = (old & value) | (half & carry[i])


@njit(**OPTIONS)
def to_numbers(w, planes, start, stop, top_negative, words, values):
    """Σ_j 2^(j − start)·plane_j for planes start … stop−1 into int32 `values`; the last one negative if said so."""
    values[:] = 0
    for j in range(start, stop):
        weight = np.int32(1) << np.int32(j - start)
        if top_negative and j == stop - 1:
            weight = -weight
        for i in range(words):
            word = w[planes + j * words + i]
            for quarter in range(4):
                add_bits(values.ctypes.data + 4 * (64 * i + 16 * quarter), word >> np.uint64(16 * quarter), weight)


@njit(**OPTIONS)
def read_columns_task(
    task,
    packed,
    read_start,
    read_slot,
    term_start,
    terms,
    rows,
    slot_start,
    slots,
    digits,
    sizes,
    converter,
    low,
    high,
):
    """One task of `read_columns`."""
    digit_bits, vectors = packed.shape[1], packed.shape[2]
    height = packed.shape[3]
    blocks = len(read_start) - 1
    per_block, words, read_planes, slot_planes, sum_planes = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    outputs, positions = low.shape
    wide = high.shape[0] > 0
    chunk, block = divmod(task, blocks)
    first_slot, slot_count = slot_start[block], slot_start[block + 1] - slot_start[block]
    slot = WORDS * (read_planes + 16)
    total = slot + WORDS * slot_count * slot_planes
    w = aligned(total + per_block * sum_planes * words)
    p = w.ctypes.data
    part, slot_address = p + PLANE * (read_planes + 8), p + 8 * slot
    list_address, packed_address = rows.ctypes.data, packed.ctypes.data
    for v in range(vectors):
        w[slot:total] = ZERO
        for read in range(read_start[block], read_start[block + 1]):
            t, t_stop = term_start[read], term_start[read + 1]
            if t_stop - t == 1 and digit_bits == 1 and terms[t, 3] == 0:
                base = packed_address + PLANE * (height * (chunk * vectors + v) + terms[t, 2])
                count_rows(base, list_address + terms[t, 0], list_address + terms[t, 1], p)
            else:
                w[: WORDS * read_planes] = ZERO
                for bit in range(digit_bits):
                    slab = packed_address + PLANE * height * ((chunk * digit_bits + bit) * vectors + v)
                    for i in range(t, t_stop):
                        base = slab + PLANE * terms[i, 2]
                        count_rows(base, list_address + terms[i, 0], list_address + terms[i, 1], part)
                        add_planes(p + PLANE * (bit + terms[i, 3]), p + PLANE * read_planes, part, 8)
            call(converter, p, slot_address + PLANE * read_slot[read] * slot_planes)
        for s in range(slot_count):
            output, left, sign = slots[first_slot + s, 0], slots[first_slot + s, 1], slots[first_slot + s, 2]
            source, target = slot + WORDS * s * slot_planes, total + output * sum_planes * words
            for d in range(v * WORDS // words, min((v + 1) * WORDS // words, len(digits))):
                shift = left + digits[d, 0]
                at, stop = target + shift * words, target + sum_planes * words
                if words < WORDS:
                    first = source + d * words % WORDS
                    shift_add_words(w, at, sum_planes - shift, words, first, slot_planes, sign * digits[d, 1])
                elif sign * digits[d, 1] > 0:
                    add_planes(p + 8 * at, p + 8 * stop, p + 8 * source, slot_planes)
                else:
                    subtract_planes(p + 8 * at, p + 8 * stop, p + 8 * source, slot_planes)
    values = np.empty(64 * words, np.int32)
    start = chunk * 64 * words
    count = min(64 * words, positions - start)
    for o in range(min(per_block, outputs - block * per_block)):
        target = total + o * sum_planes * words
        n = block * per_block + o
        to_numbers(w, target, 0, min(sum_planes, 30) if wide else sum_planes, not wide, words, values)
        low[n, start : start + count] = values[:count]
        if wide:
            to_numbers(w, target, 30, sum_planes, True, words, values)
            high[n, start : start + count] = values[:count]


@njit(parallel=True, **OPTIONS)
def read_columns(
    packed,
    read_start,
    read_slot,
    term_start,
    terms,
    rows,
    slot_start,
    slots,
    digits,
    sizes,
    converter,
    low,
    high,
):
    """Every read of a layer: counts, converter, shift-and-add, down to the sums of codes.

    Args:
        packed: see the module.
        read_start: reads of each block of outputs.
        read_slot: which accumulator of its block a read adds to.
        term_start, terms: a read's counting passes: int64 (T, 4), first and last place in `rows`, the place
            of number 0, shift of the cell bit.
        rows: uint8, the rows of every pass.
        slot_start, slots: a block's accumulators: int64 (S, 3): output, shift and sign of the column's gain.
        digits: int64 (D, 2): shift and sign of each digit.
        sizes: int64: outputs a block, words a digit, planes of a read, of a column's accumulator, of an output's sum.
        converter: address of the compiled converter (`crossloom.simulate.converter`).
        low: int32 (outputs, positions): Σ gain·weight·code, or its low 30 bits where `high` is not empty.
        high: int32 (outputs, positions) or (0, 0): the bits above.
    """
    for task in prange(packed.shape[0] * (len(read_start) - 1)):
        read_columns_task(
            np.int64(task),
            packed,
            read_start,
            read_slot,
            term_start,
            terms,
            rows,
            slot_start,
            slots,
            digits,
            sizes,
            converter,
            low,
            high,
        )


@njit(**OPTIONS)
def floor_divide(number, divisor, inverse):
    """⌊number / divisor⌋ for |number| < 2^52, divisor > 0: a product corrected by at most one."""
    quotient = np.int64(np.floor(np.float64(number) * inverse))
    rest = number - quotient * divisor
    return quotient - np.int64(rest < 0) + np.int64(rest >= divisor)


@njit(**OPTIONS)
def finish_task(n, low, high, count, step, offset, denominator, sums, gain_start, gain_band, gains, narrow, out):
    """One task of `finish`."""
    inverse = 1.0 / (2.0 * denominator)
    wide = high.shape[0] > 0
    total = np.empty(low.shape[1], np.int64)
    base = offset * count[n]
    for i in range(low.shape[1]):
        total[i] = low[n, i]
    if wide:
        for i in range(low.shape[1]):
            total[i] += np.int64(high[n, i]) << 30
    if denominator == 1:
        for i in range(low.shape[1]):
            total[i] = step * total[i] + base
    elif narrow:
        for i in range(low.shape[1]):
            number = 2 * (step * total[i] + base) + denominator
            total[i] = floor_divide(number, 2 * denominator, inverse)
    else:
        for i in range(low.shape[1]):
            total[i] = (2 * (step * total[i] + base) + denominator) // (2 * denominator)
    for g in range(gain_start[n], gain_start[n + 1]):
        gain, band = gains[g], sums[gain_band[g]]
        for i in range(low.shape[1]):
            total[i] += gain * np.int64(band[i])
    for i in range(low.shape[1]):
        out[n, i] = total[i]


@njit(parallel=True, **OPTIONS)
def finish(low, high, count, step, offset, denominator, sums, gain_start, gain_band, gains, narrow, out):
    """acc = ⌊(step·codes + offset·count)/denominator + ½⌋ + Σ_band gain·Σx.

    Args:
        low, high: the sums of codes (`read_columns`).
        count: int64 (N,): Σ gain·weight of every output's reads.
        step, offset, denominator: the converter's.
        sums: int32 or int64 (bands, P).
        gain_start, gain_band, gains: the bands that correct an output, and by how much.
        narrow: true if 2·(step·codes + offset·count) + denominator stays below 2^52.
        out: int32 or int64 (N, P).
    """
    for n in prange(low.shape[0]):
        finish_task(
            np.int64(n), low, high, count, step, offset, denominator, sums, gain_start, gain_band, gains, narrow, out
        )
