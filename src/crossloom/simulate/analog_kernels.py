"""Numba kernels of the analog rung: subset-sum tables looked up by input bits, the converter and the shift-and-add.

Four rows with one input bit each can add up in sixteen ways. Per four rows and 32 columns the sixteen sums are
tabulated once (1 KiB, so a 128-row array's 32 KiB of tables stay in the first-level cache), and every bit of every
position looks its sum up: one load and one add stand for 128 multiply-accumulates in 16 bits. Nothing is written
back between the read and the shift-and-add.

Layout. A word is eight bytes, one per input bit; byte b holds 8·(bits b of four rows, lowest row lowest).
`words[bits / 8, position, lookup]`. A part is 32 columns of one array; a strip is the parts, one under the other,
whose columns belong to the same accumulators.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from crossloom.simulate.analog_lanes import (
    COLUMNS,
    add_ints,
    add_saturated,
    add_shorts,
    first_reciprocal_root,
    high_product,
    load_count,
    load_ints,
    load_shorts,
    load_word,
    lookup,
    max_shorts,
    min_shorts,
    mul_reals,
    rounded_product,
    shift_ints,
    shift_left,
    shift_right,
    spread_int,
    spread_real,
    spread_short,
    store_ints,
    store_shorts,
    sub_ints,
    sub_reals,
    sub_shorts,
    to_reals,
    to_shorts,
    widen,
    xor_ints,
)
from crossloom.simulate.analog_noise import LOUDEST, MIX_3, POOL

__all__ = ["BITS", "COLUMNS", "ROWS", "finish", "pack", "read"]

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
ROWS = 4
"""Rows of one lookup."""
VECTOR = 2 * COLUMNS
"""Bytes of 32 shorts."""
TABLE = VECTOR << ROWS
"""Bytes of one lookup's table."""
BITS = 8
"""Input bits of one word."""
THREE, ZERO = np.float32(3), np.uint64(0)
PAIRS, NIBBLES = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
BYTES = np.uint64(0x00FF00FF00FF00FF)
SPREAD, DIAGONAL = np.uint64(0x0101010101010101), np.uint64(0x8040201008040201)
FILL, ONES = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x0101010101010101)
BLOCK = 32
"""Lookups whose words are made at once before they are written position by position."""
HASH, MASK, HALF = np.uint64(MIX_3), np.uint64(POOL - 1), np.uint64(32)


@njit(parallel=True, **OPTIONS)
def pack(z, order, band_start, group_start, words, bands, active):
    """Turn rows of codes into lookup words.

    Args:
        z: codes (R, P), two's complement.
        order: int64 (4·lookups,), the row behind each, or −1 for none.
        band_start: int64 (bands + 1,), first lookup of each band, a list of rows that some arrays share.
        group_start: int64 (row groups + 1,), first lookup of each row group.
        words: uint64 (W, P, lookups), written.
        bands: int64 (bands, P), written: Σ x over the rows of each band.
        active: uint16 (P, row groups, 8·W), written if not empty: how many rows of the group have each bit set.
    """
    positions = words.shape[1]
    tile = 64
    for task in prange((positions + tile - 1) // tile):
        first, stop = task * tile, min((task + 1) * tile, positions)
        length = stop - first
        made = np.empty((BLOCK, tile), np.uint64)
        for band in range(len(band_start) - 1):
            total = bands[band, first:stop]
            total[:] = 0
            for r in range(ROWS * band_start[band], ROWS * band_start[band + 1]):
                if order[r] >= 0:
                    row = z[order[r], first:stop]
                    for p in range(length):
                        total[p] += row[p]
        for w in range(words.shape[0]):
            for start in range(0, words.shape[2], BLOCK):
                end = min(start + BLOCK, words.shape[2])
                for j in range(start, end):
                    word = made[j - start]
                    word[:] = 0
                    for r in range(ROWS):
                        if order[ROWS * j + r] >= 0:
                            row, by = z[order[ROWS * j + r], first:stop], np.uint64(3 + r)
                            for p in range(length):
                                bits = (np.uint64((row[p] >> (BITS * w)) & 255) * SPREAD) & DIAGONAL
                                word[p] |= (((bits + FILL) >> np.uint64(7)) & ONES) << by
                for p in range(length):
                    for j in range(start, end):
                        words[w, first + p, j] = made[j - start, p]
        if active.shape[0] == 0:
            continue
        for w in range(words.shape[0]):
            for p in range(first, stop):
                for g in range(len(group_start) - 1):
                    even, odd = np.uint64(0), np.uint64(0)
                    for j in range(group_start[g], group_start[g + 1]):
                        word = words[w, p, j] >> np.uint64(3)
                        word = (word & PAIRS) + ((word >> np.uint64(1)) & PAIRS)
                        word = (word & NIBBLES) + ((word >> np.uint64(2)) & NIBBLES)
                        even += word & BYTES
                        odd += (word >> np.uint64(8)) & BYTES
                    for bit in range(0, BITS, 2):
                        active[p, g, BITS * w + bit] = (even >> np.uint64(8 * bit)) & np.uint64(0xFFFF)
                        active[p, g, BITS * w + bit + 1] = (odd >> np.uint64(8 * bit)) & np.uint64(0xFFFF)


@njit(**OPTIONS)
def tabulate(cells, first, lookups, table):
    """The tables of `lookups` lookups from shorts at row `first` of cells (rows, 32)."""
    source, target = cells.ctypes.data + VECTOR * first, table
    for _ in range(lookups):
        store_shorts(target, spread_short(0))
        for r in range(ROWS):
            row = load_shorts(source + VECTOR * r)
            for e in range(1 << r):
                store_shorts(target + VECTOR * ((1 << r) + e), add_shorts(load_shorts(target + VECTOR * e), row))
        source += VECTOR * ROWS
        target += TABLE


@njit(**OPTIONS)
def sum_bits(table, words, stop, bits, out):
    """For each of the first `bits` bytes of the words at addresses words … stop, the sum of its lookups.

    Shorts at `out`, one bit after the other.
    """
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = spread_short(0)
    if bits > 4:
        while words < stop:
            a0 = add_shorts(a0, lookup(table, words))
            a1 = add_shorts(a1, lookup(table, words + 1))
            a2 = add_shorts(a2, lookup(table, words + 2))
            a3 = add_shorts(a3, lookup(table, words + 3))
            a4 = add_shorts(a4, lookup(table, words + 4))
            a5 = add_shorts(a5, lookup(table, words + 5))
            a6 = add_shorts(a6, lookup(table, words + 6))
            a7 = add_shorts(a7, lookup(table, words + 7))
            table += TABLE
            words += 8
        store_shorts(out + 4 * VECTOR, a4)
        store_shorts(out + 5 * VECTOR, a5)
        store_shorts(out + 6 * VECTOR, a6)
        store_shorts(out + 7 * VECTOR, a7)
    elif bits > 2:
        while words < stop:
            a0 = add_shorts(a0, lookup(table, words))
            a1 = add_shorts(a1, lookup(table, words + 1))
            a2 = add_shorts(a2, lookup(table, words + 2))
            a3 = add_shorts(a3, lookup(table, words + 3))
            table += TABLE
            words += 8
    else:
        while words < stop:
            a0 = add_shorts(a0, lookup(table, words))
            a1 = add_shorts(a1, lookup(table, words + 1))
            table += TABLE
            words += 8
    store_shorts(out, a0)
    store_shorts(out + VECTOR, a1)
    store_shorts(out + 2 * VECTOR, a2)
    store_shorts(out + 3 * VECTOR, a3)


@njit(**OPTIONS)
def amplitude(v):
    """`analog_noise.amplitudes` of 32 variances, shorts."""
    wide = to_reals(v)
    y = first_reciprocal_root(wide)
    w = mul_reals(wide, y)
    return to_shorts(mul_reals(w, sub_reals(spread_real(THREE), mul_reals(w, y))))


@njit(**OPTIONS)
def gaussian(key, first_pool, second_pool):
    """`analog_noise.normals` of one read of 32 columns, shorts."""
    h = (key ^ (key >> HALF)) * HASH
    h = h ^ (h >> HALF)
    first, second = first_pool + 2 * np.intp(h & MASK), second_pool + 2 * np.intp((h >> HALF) & MASK)
    return add_shorts(load_shorts(first), load_shorts(second))


@njit(inline="always")
def convert(segments, pieces, sums, squares, noise, counts, keys, name, first_pool, second_pool, converter):
    """Noise, converter and shift-and-add of all digits of one read group: int32 lanes.

    Args:
        segments: of `read`.
        pieces: of `read`.
        sums: address of `sum_bits` results.
        squares: the same for variances.
        noise: constant, factor of a², factors of a and n, σ factor, shift of n, and whether squares are added; or None.
        counts: address of the active rows by bit.
        keys: address of the places' keys by digit.
        name: key of the input vector.
        first_pool: address of the first table of normals.
        second_pool: of the second.
        converter: multiplier, constant, k, 2^b − 1, the digits' width, B and B/2.
    """
    multiplier, constant, right, highest, width, bias, middle = converter
    zero, one = spread_short(0), spread_short(1)
    summed = spread_int(0)
    for s in range(len(segments)):
        code_sum = zero
        for d in range(segments[s, 1] - 1, segments[s, 0] - 1, -1):
            plane = pieces[d, 0]
            a = load_shorts(sums + VECTOR * plane)
            for b in range(1, pieces[d, 1]):
                a = add_shorts(a, shift_left(load_shorts(sums + VECTOR * (plane + b)), spread_short(b)))
            a = sub_shorts(a, bias)
            if noise is not None:
                offset, quadratic, linear, slope, factor, up, exact = noise
                half = add_shorts(shift_right(a, one), middle)
                v = add_shorts(offset, rounded_product(linear, half))
                v = add_shorts(v, rounded_product(slope, spread_short(load_count(counts + 2 * plane) << up)))
                if quadratic:
                    v = add_shorts(v, rounded_product(rounded_product(half, half), spread_short(quadratic)))
                if exact:
                    v = add_shorts(v, load_shorts(squares + VECTOR * plane))
                sigma = amplitude(min_shorts(max_shorts(v, zero), spread_short(LOUDEST)))
                z = gaussian(load_word(keys + 8 * d) ^ name, first_pool, second_pool)
                a = add_saturated(a, rounded_product(high_product(z, sigma), factor))
            code = shift_right(add_saturated(high_product(a, multiplier), constant), right)
            code_sum = add_shorts(shift_left(code_sum, width), min_shorts(max_shorts(code, zero), highest))
        wide = shift_ints(widen(code_sum), spread_int(segments[s, 2]))
        summed = add_ints(summed, wide) if segments[s, 3] > 0 else sub_ints(summed, wide)
    return summed


@njit(**OPTIONS)
def read_task(
    task, words, active, names, cells, squares, strip_start, parts, group_size, lanes, sign_lanes, noise_lanes,
    noise_values, place_keys, segments, pieces, sizes, pools, tile, out,
):  # fmt: skip
    """One task of `read`."""
    strips = len(strip_start) - 1
    number, strip = divmod(task, strips)
    first, stop = number * tile, min((number + 1) * tile, words.shape[1])
    bits, noisy, squared, longest = sizes[0], sizes[3], sizes[4], sizes[5]
    planes = words.shape[0] * BITS
    raw = np.empty(longest * TABLE * (1 + squared) + 2 * planes * VECTOR + 64, np.uint8)
    table = (raw.ctypes.data + 63) & ~63
    square_table = table + longest * TABLE
    sums = square_table + squared * longest * TABLE
    square_sums = sums + planes * VECTOR
    first_pool, second_pool = pools[0].ctypes.data, pools[1].ctypes.data
    word_base, word_row, word_plane = words.ctypes.data, 8 * words.shape[2], 8 * words.shape[2] * words.shape[1]
    sign_base = sign_lanes.ctypes.data
    noise_base, out_base = noise_lanes.ctypes.data, out.ctypes.data + 4 * COLUMNS * strip * out.shape[1]
    count_base, count_row, key_base = active.ctypes.data, active.shape[1], place_keys.ctypes.data
    right, highest, width = spread_short(sizes[1]), spread_short(sizes[2]), spread_short(sizes[7])
    bias, middle = spread_short(sizes[8]), spread_short(sizes[8] >> 1)
    for part in range(strip_start[strip], strip_start[strip + 1]):
        base, row, group, groups = parts[part, 0], parts[part, 1], parts[part, 2], parts[part, 3]
        exact = parts[part, 5]
        lane = lanes.ctypes.data + 2 * VECTOR * part
        converter = (load_shorts(lane), load_shorts(lane + VECTOR), right, highest, width, bias, middle)
        total = 0
        for g in range(group, group + groups):
            total += group_size[g]
        tabulate(cells, row, total, table)
        if exact:
            tabulate(squares, row, total, square_table)
        for p in range(first, stop):
            summed = spread_int(0)
            word, here, here_squares = word_base + word_row * p + 8 * base, table, square_table
            for g in range(groups):
                size = group_size[group + g]
                for w in range(words.shape[0]):
                    start, left = word + word_plane * w, bits - BITS * w
                    sum_bits(here, start, start + 8 * size, left, sums + w * BITS * VECTOR)
                    if exact:
                        sum_bits(here_squares, start, start + 8 * size, left, square_sums + w * BITS * VECTOR)
                word, here, here_squares = word + 8 * size, here + TABLE * size, here_squares + TABLE * size
                place = parts[part, 4] + g
                sign = load_ints(sign_base + 2 * VECTOR * place)
                if noisy:
                    lane = noise_base + 2 * VECTOR * place
                    noise = (
                        spread_short(noise_values[place, 0]), noise_values[place, 1], load_shorts(lane),
                        load_shorts(lane + VECTOR), spread_short(sizes[6]), noise_values[place, 2], exact,
                    )  # fmt: skip
                    counts = count_base + 2 * planes * (p * count_row + group + g)
                    keys = key_base + 8 * len(pieces) * place
                    codes = convert(
                        segments, pieces, sums, square_sums, noise, counts, keys, names[p], first_pool, second_pool,
                        converter,
                    )  # fmt: skip
                else:
                    codes = convert(
                        segments, pieces, sums, square_sums, None, 0, 0, ZERO, first_pool, second_pool, converter
                    )
                summed = add_ints(summed, sub_ints(xor_ints(codes, sign), sign))
            target = out_base + 4 * COLUMNS * p
            store_ints(target, summed if part == strip_start[strip] else add_ints(load_ints(target), summed))


@njit(parallel=True, **OPTIONS)
def read(
    words, active, names, cells, squares, strip_start, parts, group_size, lanes, sign_lanes, noise_lanes,
    noise_values, place_keys, segments, pieces, sizes, pools, tile, out,
):  # fmt: skip
    """All reads of some positions.

    Args:
        words: of `pack`.
        active: of `pack`; read only where there is noise.
        names: uint64 (P,), `analog_noise.vector_keys`.
        cells: int16 (rows, 32), the parts' rows one part after the other, each row group padded to 4 rows.
        squares: the same for variances, or empty.
        strip_start: int64 (strips + 1,), first part of each strip.
        parts: int64 (parts, 6): first lookup, first row in `cells`, first row group, row groups, first place (row
            groups of all parts are counted), and whether `squares` are in use.
        group_size: int64 (row groups,), lookups.
        lanes: int16 (parts, 2, 32): multiplier, constant.
        sign_lanes: int32 (places, 32): −1 where reads are subtracted.
        noise_lanes: int16 (places, 2, 32): factors of a and of the active rows (`GroupNoise.factors`).
        noise_values: int64 (places, 3): constant, factor of a², shift of the active rows.
        place_keys: uint64 (places, digits).
        segments: int64 (segments, 4): digits from, to, whose codes add up in 16 bits; left shift then, and sign.
        pieces: int64 (digits, 2): first bit and bits of each digit.
        sizes: int64 (9,): input bits, k, 2^b − 1, noisy, squares in use at all, most lookups of an array,
            `Plan.noise_factor`, width of a digit.
        pools: `analog_noise.pools`.
        tile: positions of one task.
        out: int32 (strips, P, 32), written.
    """
    tiles = (words.shape[1] + tile - 1) // tile
    for task in prange(tiles * (len(strip_start) - 1)):
        read_task(
            np.int64(task), words, active, names, cells, squares, strip_start, parts, group_size, lanes, sign_lanes,
            noise_lanes, noise_values, place_keys, segments, pieces, sizes, pools, tile, out,
        )  # fmt: skip


@njit(**OPTIONS)
def finish_task(
    first, stop, sums, layout, outputs, gains, count, step, low, denominator, bands, entry_start, entries, out
):
    """One tile of `finish`."""
    at = 0
    for i in range(len(layout)):
        strip, width = layout[i, 0], layout[i, 1]
        made = np.zeros((width, stop - first), np.float64)
        codes = np.empty(width, gains.dtype)
        for p in range(first, stop):
            codes[:] = 0
            for s in range(len(gains)):
                gain, n = gains[s], 0
                while n < width:
                    part, lane = divmod(s * width + n, COLUMNS)
                    run = min(COLUMNS - lane, width - n)
                    row = sums[strip + part, p]
                    for k in range(run):
                        codes[n + k] += gain * row[lane + k]
                    n += run
            for n in range(width):
                made[n, p - first] = codes[n]
        for n in range(width):
            total, target = made[n], out[outputs[at], first:stop]
            offset, divisor = np.float64(count[outputs[at]] * low), np.float64(2 * denominator)
            if denominator == 1:
                for p in range(stop - first):
                    target[p] = np.int64(total[p] * step + offset)
            else:
                for p in range(stop - first):
                    target[p] = np.int64(np.floor((2.0 * (total[p] * step + offset) + denominator) / divisor))
            for e in range(entry_start[at], entry_start[at + 1]):
                band, factor = bands[entries[e, 0], first:stop], entries[e, 1]
                for p in range(stop - first):
                    target[p] += factor * band[p]
            at += 1


@njit(parallel=True, **OPTIONS)
def finish(sums, layout, outputs, gains, count, step, low, denominator, bands, entry_start, entries, out):
    """Slices, converter scale and digital corrections: accumulators (N, P).

    Quotients are taken in float64, exact while twice every numerator is below 2^52.

    Args:
        sums: int32 (strips, P, 32) from `read`, columns in the order of `analog_noise.lane_of`.
        layout: int64 (sets, 2): first strip and number of outputs of each set of columns.
        outputs: int64 (outputs,), the accumulators of all sets, one set after the other.
        gains: int32 or int64 (slices,): what their sums fit.
        count: of `Adc.total`.
        step: Δ of the converter, over `denominator`.
        low: p_min, over `denominator`.
        denominator: of both.
        bands: int64 (bands, P) from `pack`.
        entry_start: int64 (outputs + 1,), the entries of each output.
        entries: int64 (entries, 2): a band and the factor of its sum.
        out: int64 (N, P), written for every accumulator named.
    """
    positions, tile = sums.shape[1], 64
    for task in prange((positions + tile - 1) // tile):
        finish_task(
            task * tile, min((task + 1) * tile, positions), sums, layout, outputs, gains, count, step, low, denominator,
            bands, entry_start, entries, out,
        )  # fmt: skip
