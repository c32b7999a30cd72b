"""Reads of crossbar columns on bit planes, down to a layer's accumulators.

The rows of a column are counted by full adders (`counters`), for every row whose cell holds a 1. The converter
(`converter`) and the shift-and-add are ripple adders on planes too, so a read never becomes a number until the sum over
slices, digits and rows is complete. Layout of the planes: `planes`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, D417

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from crossloom.simulate.converter import call
from crossloom.simulate.counters import PLANES, count
from crossloom.simulate.lanes import PLANE, WORDS, add_bits, both, differ, either, fill, load, ripple, store
from crossloom.simulate.planes import aligned

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
ZERO = np.uint64(0)
COUNTERS = 2
"""Counters of a unit: one for the rows that its columns share, one for the column at hand."""


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
def read_unit(steps, first, stop, slab, next_bit, digit_bits, rows, converter, p, states, slots, sizes):
    """The counting steps of one unit: its counters, its reads, their codes.

    Args:
        steps, first, stop: as in `read_columns`, and which of them.
        slab: address of the planes of the digit's lowest bit.
        next_bit: bytes to those of the next bit.
        p: address of two reads of several counts.
        states: address of the counters.
        slots: address of the block's accumulators.
    """
    read_planes, slot_planes = sizes[2], sizes[3]
    room = PLANE * (read_planes + PLANES)
    if stop > first and steps[stop - 1, 5] >= 0:
        for plane in range(2 * (read_planes + PLANES)):
            store(p + PLANE * plane, fill(ZERO))
    for bit in range(digit_bits):
        for i in range(first, stop):
            source, target = states + PLANE * PLANES * steps[i, 3], states + PLANE * PLANES * steps[i, 4]
            count(steps[i, 0], slab + PLANE * steps[i, 2], rows + steps[i, 1], source, target)
            number, shift, slot = steps[i, 5], steps[i, 6], steps[i, 7]
            if number >= 0:
                read = p + room * number
                add_planes(read + PLANE * (bit + shift), read + PLANE * read_planes, target, PLANES)
                target = read
            if slot >= 0 and bit == digit_bits - 1:
                call(converter, target, slots + PLANE * slot_planes * slot)
        slab += next_bit


@njit(**OPTIONS)
def finish(values, high, scale, offset, denominator, narrow, added, out):
    """out = ⌊(step·codes + offset)/denominator + ½⌋ + added for one output; see `read_columns`."""
    length = len(out)
    if narrow:
        double, half = 2.0 * np.float64(scale), np.float64(2 * offset + denominator)
        divisor, high_scale = 2.0 * np.float64(denominator), np.float64(1 << 30) if len(high) else 0.0
        if denominator == 1:
            half -= 1.0
        for i in range(length):
            real = np.float64(values[i])
            if len(high):
                real += high_scale * np.float64(high[i])
            out[i] = np.int64(np.floor((double * real + half) / divisor)) + added[i]
    else:
        for i in range(length):
            total = np.int64(values[i])
            if len(high):
                total += np.int64(high[i]) << 30
            total = scale * total + offset
            if denominator > 1:
                total = (2 * total + denominator) // (2 * denominator)
            out[i] = total + added[i]


@njit(**OPTIONS)
def read_columns_task(
    task, packed, driven, unit_start, unit_group, step_start, steps, rows, slot_start, slots, digits, sizes,
    converter, count, adc, added, pattern, out,
):  # fmt: skip
    """One task of `read_columns`."""
    digit_bits, vectors, height = packed.shape[1], packed.shape[2], packed.shape[3]
    blocks = len(unit_start) - 1
    per_block, words, read_planes, slot_planes, sum_planes = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    outputs, positions = out.shape
    wide = sum_planes > 31
    chunk, block = divmod(task, blocks)
    first_slot, slot_count = slot_start[block], slot_start[block + 1] - slot_start[block]
    counters = 2 * WORDS * (read_planes + PLANES)
    slot = counters + WORDS * PLANES * COUNTERS
    total = slot + WORDS * slot_count * slot_planes
    w = aligned(total + per_block * sum_planes * words)
    p = w.ctypes.data
    rows_address, packed_address = rows.ctypes.data, packed.ctypes.data
    next_bit = PLANE * height * vectors
    for v in range(vectors):
        w[slot:total] = ZERO
        slab = packed_address + PLANE * height * (chunk * digit_bits * vectors + v)
        for unit in range(unit_start[block], unit_start[block + 1]):
            if not driven[chunk, v, unit_group[unit]]:
                continue
            read_unit(
                steps, step_start[unit], step_start[unit + 1], slab, next_bit, digit_bits, rows_address, converter,
                p, p + 8 * counters, p + 8 * slot, sizes,
            )  # fmt: skip
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
    values, high = np.empty(64 * words, np.int32), np.empty(64 * words if wide else 0, np.int32)
    start = chunk * 64 * words
    length = min(64 * words, positions - start)
    for o in range(min(per_block, outputs - block * per_block)):
        target = total + o * sum_planes * words
        n = block * per_block + o
        to_numbers(w, target, 0, min(sum_planes, 30) if wide else sum_planes, not wide, words, values)
        if wide:
            to_numbers(w, target, 30, sum_planes, True, words, high)
        finish(
            values, high, adc[0], adc[1] * count[n], adc[2], adc[3], added[pattern[n], start : start + length],
            out[n, start : start + length],
        )  # fmt: skip


@njit(parallel=True, **OPTIONS)
def read_columns(
    packed, driven, unit_start, unit_group, step_start, steps, rows, slot_start, slots, digits, sizes,
    converter, count, adc, added, pattern, out,
):  # fmt: skip
    """Every read of a layer: counts, converter, shift-and-add, digital corrections.

    acc = ⌊(step·codes + low·count)/denominator + ½⌋ + added, codes = Σ gain·weight·code.

    Args:
        packed: see `planes`.
        driven: bool (chunks, vectors, row groups): false where every read's code is 0.
        unit_group: the row group that each unit reads.
        unit_start: units of each block of outputs; a unit's steps share counters.
        step_start, steps: int64 (S, 8): piece of `counters`, first of its rows in `rows`, place of row number 0,
            counter to continue, counter to write, which of the unit's two reads to add the count to or −1 if the
            count is the read, shift of the cell bit there, and the accumulator that the read's code is added to or −1
            if the read is not complete.
        rows: uint8, the rows of every step.
        slot_start, slots: a block's accumulators: int64 (A, 3): output, shift and sign of the column's gain.
        digits: int64 (D, 2): shift and sign of each digit.
        sizes: int64: outputs a block, words a digit, planes of a read, of a column's accumulator, of an output's sum.
        converter: address of the compiled converter (`crossloom.simulate.converter`).
        count: int64 (N,): Σ gain·weight of every output's reads.
        adc: int64: step, low and denominator of the converter, and 1 if twice every numerator stays below 2^52.
        added: int32 or int64 (patterns, P): the different corrections.
        pattern: which of them each output takes.
        out: int32 or int64 (N, P).
    """
    for task in prange(packed.shape[0] * (len(unit_start) - 1)):
        read_columns_task(
            np.int64(task), packed, driven, unit_start, unit_group, step_start, steps, rows, slot_start, slots, digits,
            sizes, converter, count, adc, added, pattern, out,
        )  # fmt: skip


@njit(parallel=True, **OPTIONS)
def correct(sums, start, band, gains, added):
    """Σ_band gain·Σx for every pattern of corrections.

    Args:
        sums: (bands, P), Σ x over the rows of each band.
        start, band, gains: the terms of each pattern.
        added: (patterns, P), written.
    """
    for n in prange(added.shape[0]):
        row = added[n]
        row[:] = 0
        for g in range(start[n], start[n + 1]):
            gain, source = gains[g], sums[band[g]]
            for i in range(len(row)):
                row[i] += gain * source[i]
