"""Which reads a layer needs, worked out once: counting steps, accumulators, gains and digital corrections."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate.sharing import FIELDS, SEGMENT, schedule

SLOTS = 16
"""Column accumulators that a task works on between two rows' worth of inputs: they share the first-level cache."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The reads of one layer in the form that `columns.read_columns` takes; most names are its.

    Attributes:
        slot_reads, slot_output: of every accumulator, how many reads it sums up and which output it is part of.
        band_rows, places, band_start: rows of every band (a list of rows that some arrays share), and where they go.
        pattern: of every output, its digital corrections; `correction_start`, `correction_band` and `corrections`
            say what those are, as in `columns.correct`.
        largest_read: the largest read there can be.
        groups, unit_group: int64 (G, 2), first and last place of the rows that are driven at once; which of them a
            unit reads.
    """

    unit_start: np.ndarray
    step_start: np.ndarray
    steps: np.ndarray
    rows: np.ndarray
    slot_start: np.ndarray
    slots: np.ndarray
    slot_reads: np.ndarray
    slot_output: np.ndarray
    band_rows: np.ndarray
    places: np.ndarray
    band_start: np.ndarray
    pattern: np.ndarray
    correction_start: np.ndarray
    correction_band: np.ndarray
    corrections: np.ndarray
    count: np.ndarray
    per_block: int
    outputs: int
    largest_read: int
    groups: np.ndarray
    unit_group: np.ndarray


def plan(mapping: LayerMapping) -> Plan:
    """Work out every read: its rows, its accumulator, its gain and the digital corrections.

    Raises:
        InputError: a weight code whose gains are not powers of two.
    """
    layer, array, slices = mapping.layer, mapping.array, mapping.code.slices
    outputs, per_block = layer.core.shape[0] * layer.core.shape[2], max(SLOTS // len(slices), 1)
    gains = np.array([s.gain for s in slices], np.int64)
    if np.any(np.abs(gains) & (np.abs(gains) - 1)):
        raise InputError("array.encoding", mapping.code.encoding, "a code whose gains are powers of two")
    top = (1 << array.b_cell) - 1
    largest_digit = max((1 << d.width) - 1 for d in mapping.digits)
    direct = array.b_cell == 1 and largest_digit == 1 and array.active_rows <= SEGMENT
    bands: dict[tuple[int, ...], np.ndarray] = {}
    numbers: dict[tuple[int, ...], int] = {}
    reads, corrections = [np.zeros((0, 4), np.int64)], [np.zeros((0, 3), np.int64)]
    groups: dict[tuple[int, int], int] = {}
    units, steps, rows = [np.zeros((0, 3), np.int64)], [np.zeros((0, FIELDS), np.int64)], [np.zeros(0, np.uint8)]
    largest = number = at = height = 0
    for block in mapping.blocks:
        cells, core_rows, columns = mapping.cells(block), mapping.core_rows(block), mapping.core_columns(block)
        key = tuple(core_rows.tolist())
        if key not in bands:
            bands[key] = height + _places(len(core_rows), array.active_rows)
            height = int(bands[key][-1]) + 1
        band, places = numbers.setdefault(key, len(numbers)), bands[key]
        order = np.argsort(np.repeat(columns // per_block, len(slices)), kind="stable")
        output, which = np.repeat(columns, len(slices))[order], np.tile(np.arange(len(slices)), len(columns))[order]
        flips = np.where(cells.flipped, np.tile(gains, len(columns)) * top, 0).reshape(len(columns), -1).sum(1)
        corrections.append(np.stack([columns, np.full_like(columns, band), flips + mapping.code.input_gain], 1))
        for first, signs in zip(range(0, len(core_rows), array.active_rows), cells.signs, strict=True):
            sign = np.sign(gains[which]) * signs[order]
            levels = np.ascontiguousarray(cells.levels[first : first + array.active_rows][:, order])
            largest = max(largest, int(levels.sum(0, dtype=np.int64).max(initial=0)) * largest_digit)
            zeros = places[first : first + len(levels) : SEGMENT] - 1
            made = schedule(levels, output // per_block, zeros, array.b_cell, direct, number)
            made[1][:, 1] += at
            driven = int(places[first]), int(places[first + len(levels) - 1])
            units.append(np.insert(made[0], 2, groups.setdefault(driven, len(groups)), 1))
            steps.append(made[1])
            rows.append(made[2])
            at += len(made[2])
            number += len(output)
            reads.append(np.stack([output // per_block, output, which, sign], 1))
    weight = sum(d.weight for d in mapping.digits)
    shift = np.array([abs(s.gain).bit_length() - 1 for s in slices], np.int64)
    read = np.concatenate(reads)
    count = np.zeros(outputs, np.int64)
    np.add.at(count, read[:, 1], (read[:, 3] << shift[read[:, 2]]) * weight)
    names, slot = np.unique(read, axis=0, return_inverse=True)
    slot_start = np.searchsorted(names[:, 0], np.arange(math.ceil(outputs / per_block) + 1))
    unit_start, unit_group, step_start, step = _by_block(
        np.concatenate(units), np.concatenate(steps), len(slot_start) - 1
    )
    done = step[:, 7] >= 0
    step[done, 7] = (slot.reshape(-1) - slot_start[read[:, 0]])[step[done, 7]]
    pattern, *terms = _patterns(np.concatenate(corrections), outputs)
    return Plan(
        unit_start=unit_start,
        step_start=step_start,
        steps=step,
        rows=np.concatenate(rows),
        slot_start=slot_start,
        slots=np.stack([names[:, 1] % per_block, shift[names[:, 2]], names[:, 3]], 1),
        slot_reads=np.bincount(slot.reshape(-1), minlength=len(names)),
        slot_output=names[:, 1],
        band_rows=np.array([r for band in bands for r in band], np.int64),
        places=np.concatenate([np.zeros(0, np.int64), *bands.values()]),
        band_start=np.cumsum([0, *(len(band) for band in bands)]),
        pattern=pattern,
        correction_start=terms[0],
        correction_band=terms[1],
        corrections=terms[2],
        count=count,
        per_block=per_block,
        outputs=outputs,
        largest_read=largest,
        groups=np.array(list(groups), np.int64).reshape(-1, 2),
        unit_group=unit_group,
    )


def _places(rows: int, active: int) -> np.ndarray:
    """Where the rows of a band go: before every group of rows, and every `SEGMENT` rows of it, lies a row of zeros."""
    row = np.arange(rows)
    return np.asarray(row + 1 + row // active * -(-active // SEGMENT) + row % active // SEGMENT)


def _by_block(
    units: np.ndarray, steps: np.ndarray, blocks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Block after block: bounds of a block's units, the units' groups, bounds of their steps, steps."""
    order = np.argsort(units[:, 0], kind="stable")
    lengths = units[order, 1]
    first = (np.cumsum(units[:, 1]) - units[:, 1])[order]
    step_start = np.concatenate([[0], np.cumsum(lengths)])
    index = np.arange(step_start[-1]) + np.repeat(first - step_start[:-1], lengths)
    unit_start = np.searchsorted(units[order, 0], np.arange(blocks + 1))
    return unit_start, units[order, 2], step_start, np.ascontiguousarray(steps[index])


def _patterns(corrections: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Outputs with the same (band, gain) corrections share them: pattern of each output, and the patterns' terms."""
    corrections = corrections[corrections[:, 2] != 0]
    corrections = corrections[np.lexsort((corrections[:, 1], corrections[:, 0]))]
    bounds = np.searchsorted(corrections[:, 0], np.arange(outputs + 1))
    found: dict[bytes, int] = {}
    pattern = np.zeros(outputs, np.int64)
    lists: list[np.ndarray] = []
    for n in range(outputs):
        terms = np.ascontiguousarray(corrections[bounds[n] : bounds[n + 1], 1:])
        pattern[n] = found.setdefault(terms.tobytes(), len(found))
        if pattern[n] == len(lists):
            lists.append(terms)
    merged = np.concatenate([np.zeros((0, 2), np.int64), *lists])
    start = np.cumsum([0, *(len(terms) for terms in lists)])
    return pattern, start, merged[:, 0].copy(), merged[:, 1].copy()
