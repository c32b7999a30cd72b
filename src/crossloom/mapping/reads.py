"""What the reads of a mapped layer are made of: rows in windows, their cells, and the digits that drive them.

A read of one column sums the rows of one window, p = Σ_h x_h·level_h. Anything that depends on the order of rows, and
only through reads, is a sum over reads of a function of p: that is all that reordering needs to know.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8
from numba import njit, prange

from crossloom.errors import InputError
from crossloom.mapping.blocks import Block, LayerMapping
from crossloom.weave import pieces

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True, eq=False)
class Reads:
    """The reads of rows that may change places with one another.

    Attributes:
        rows: index into the rows of P x of every row here, window by window.
        window: of every row, 0 … windows − 1.
        label: rows of one label may change places; others belong to other groups, or would fill blocks of zeros.
        levels: cell levels of every row in the columns it is read from; 0 where no array is.
        digits: input digits per vector and digit position.
        digit_weight, column_weight: weight of a read in the objective is their product.
    """

    rows: Integer[np.ndarray, " rows"]
    window: Integer[np.ndarray, " rows"]
    label: Integer[np.ndarray, " rows"]
    levels: UInt8[np.ndarray, "rows columns"]
    digits: UInt8[np.ndarray, "digits vectors rows"]
    digit_weight: Float[np.ndarray, " digits"]
    column_weight: Float[np.ndarray, " columns"]

    @property
    def windows(self) -> int:
        """How many windows the rows are read in."""
        return int(self.window.max(initial=-1)) + 1

    @property
    def size(self) -> int:
        """Rows of the largest window."""
        return int(np.bincount(self.window).max(initial=0))

    @property
    def weight(self) -> float:
        """Σ of the weights of all reads."""
        return float(self.windows * self.digits.shape[1] * self.digit_weight.sum() * self.column_weight.sum())

    @property
    def top(self) -> int:
        """No read is larger."""
        return self.size * int(self.levels.max(initial=0)) * int(self.digits.max(initial=0))

    def total(self, table: Float[np.ndarray, " reads"], order: Integer[np.ndarray, " rows"] | None = None) -> float:
        """Σ over all reads of weight × table[p], with row order[i] in place i."""
        order = np.arange(len(self.rows)) if order is None else order
        start = np.searchsorted(self.window, np.arange(self.windows + 1))
        return float(
            _total(
                np.ascontiguousarray(self.levels[order]), np.ascontiguousarray(self.digits[:, :, order]), start,
                self.digit_weight, self.column_weight, np.ascontiguousarray(table, np.float64),
                np.empty(0, np.uint16 if self.top < 1 << 16 else np.uint32),
            ).sum()
        )  # fmt: skip

    def sample(self, limit: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(contributions x·level (rows, samples), weights) of at most `limit` triples (digit, vector, column).

        All of them if there are no more; else so many drawn evenly, with replacement.
        """
        digits, vectors, _ = self.digits.shape
        columns = self.levels.shape[1]
        count = digits * vectors * columns
        chosen = np.arange(count) if count <= limit else np.sort(rng.integers(0, count, limit))
        d, rest = np.divmod(chosen, vectors * columns)
        v, j = np.divmod(rest, columns)
        made = self.digits[d, v].T.astype(np.uint8 if self.top < 256 else np.int32) * self.levels[:, j]
        weight = self.digit_weight[d] * self.column_weight[j] * (count / len(chosen))
        live = made.any(0) & (weight > 0)
        return np.ascontiguousarray(made[:, live]), weight[live]


@njit(parallel=True, **OPTIONS)
def _total(levels, digits, start, digit_weight, column_weight, table, like):
    windows = len(start) - 1
    sums = np.zeros(windows)
    columns = levels.shape[1]
    for w in prange(windows):
        p = np.empty(columns, like.dtype)
        for d in range(digits.shape[0]):
            for v in range(digits.shape[1]):
                p[:] = 0
                for h in range(start[w], start[w + 1]):
                    x = digits[d, v, h]
                    if x == 1:
                        for j in range(columns):
                            p[j] += levels[h, j]
                    elif x:
                        for j in range(columns):
                            p[j] += x * levels[h, j]
                part = 0.0
                for j in range(columns):
                    part += column_weight[j] * table[p[j]]
                sums[w] += digit_weight[d] * part
    return sums


def reads_of(
    mapped: LayerMapping,
    inputs: Integer[np.ndarray, "vectors inputs"],
    significant: bool,
    columns: int,
    rng: np.random.Generator,
) -> list[Reads]:
    """The reads of a mapped layer, in parts that exchange no rows.

    Args:
        mapped: the layer on its arrays.
        inputs: input codes of a calibration batch.
        significant: weigh a read by (gain of its slice × weight of its digit)², what its variance is worth in the
            accumulator; otherwise all reads count the same.
        columns: at most so many physical columns of each part are looked at, drawn without replacement.
        rng: for the draw.

    Raises:
        InputError: a calibration batch of another shape or beyond the input format.
    """
    layer, form = mapped.layer, mapped.layer.input_format
    inputs = np.asarray(inputs)
    if inputs.ndim != 2 or not len(inputs) or inputs.shape[1] != layer.inputs:
        raise InputError(f"calibration of {layer.name}", inputs.shape, f"(vectors, {layer.inputs}), at least one")
    if not np.issubdtype(inputs.dtype, np.integer) or inputs.min() < form.low or inputs.max() > form.high:
        raise InputError(
            f"calibration of {layer.name}", inputs.dtype.name, f"integer codes from {form.low} to {form.high}"
        )
    z = layer.transform.apply(inputs)
    digits = np.stack(pieces(z, mapped.digits)).astype(np.uint8)
    digit_weight = np.array([float(f.weight) ** 2 if significant else 1.0 for f in mapped.digits])
    gains = np.array([float(s.gain) ** 2 if significant else 1.0 for s in mapped.code.slices])
    runs: dict[tuple[int, int], list[Block]] = {}
    for block in mapped.blocks:
        runs.setdefault(block.groups, []).append(block)
    return [_part(mapped, blocks, digits, digit_weight, gains, columns, rng) for blocks in runs.values()]


def _part(
    mapped: LayerMapping,
    blocks: list[Block],
    digits: np.ndarray,
    digit_weight: np.ndarray,
    gains: np.ndarray,
    limit: int,
    rng: np.random.Generator,
) -> Reads:
    """The reads of one run of groups."""
    stripes = sorted({block.columns for block in blocks})
    groups = blocks[0].groups[1] - blocks[0].groups[0]
    widths = [(stop - start) * groups * mapped.code.columns for start, stop in stripes]
    first = dict(zip(stripes, np.cumsum([0, *widths[:-1]]).tolist(), strict=True))
    chosen = np.arange(sum(widths))
    if len(chosen) > limit:
        chosen = np.sort(rng.permutation(len(chosen))[:limit])
    bands: dict[tuple[int, int], list[Block]] = {}
    for block in sorted(blocks, key=lambda b: (b.rows, b.columns)):
        bands.setdefault(block.rows, []).append(block)
    rows: list[np.ndarray] = []
    window: list[np.ndarray] = []
    label: list[np.ndarray] = []
    levels: list[np.ndarray] = []
    kinds: dict[tuple[int, tuple[tuple[int, int], ...]], int] = {}
    for held in bands.values():
        mine = mapped.core_rows(held[0])
        done = window[-1][-1] + 1 if window else 0
        part = np.zeros((len(mine), len(chosen)), np.uint8)
        for block in held:
            low = first[block.columns]
            inside = np.flatnonzero((chosen >= low) & (chosen < low + widths[stripes.index(block.columns)]))
            part[:, inside] = mapped.cells(block).levels[:, chosen[inside] - low]
        present = tuple(block.columns for block in held)
        height = mapped.layer.core.shape[1]
        rows.append(mine)
        window.append(done + np.arange(len(mine)) // mapped.array.active_rows)
        label.append(np.array([kinds.setdefault((int(r) // height, present), len(kinds)) for r in mine]))
        levels.append(part)
    every = np.concatenate(rows)
    return Reads(
        every, np.concatenate(window), np.concatenate(label), np.concatenate(levels), digits[:, :, every],
        digit_weight, np.tile(gains, sum(widths) // len(gains))[chosen],
    )  # fmt: skip


def drives(reads: Reads) -> Reads:
    """Whether anything is driven, in place of what is read: one column of ones, digits cut to 0 and 1."""
    return Reads(
        reads.rows, reads.window, reads.label, np.ones((len(reads.rows), 1), np.uint8),
        (reads.digits != 0).astype(np.uint8), np.ones(len(reads.digit_weight)), np.ones(1),
    )  # fmt: skip
