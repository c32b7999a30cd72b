"""Cutting one woven layer into array-sized blocks, and blocks into cells.

A block is what one array holds: a run of core rows times a run of core columns. Several small groups of a
grouped or depthwise convolution share an array along its diagonal. A block of zeros gets no array at all, so
crossbar pruning needs no mask of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int8, Integer, UInt8

from crossloom.errors import InputError
from crossloom.hardware import Array
from crossloom.weave import Field, Format, InputTransform, WeightCode, WovenLayer, fields, weight_code


@dataclass(frozen=True)
class Block:
    """The part of a core that one array holds. Runs are (start, stop).

    With more than one group, `rows` and `columns` are the whole group's and the groups lie along the diagonal.
    """

    groups: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Cells:
    """A block as programmed.

    Attributes:
        levels: uint8 (array rows used, array columns used), 0 … 2^b_cell − 1.
        flipped: bool per array column: the column holds 2^b_cell − 1 − level (ISAAC's flipped encoding), so that
            p = (2^b_cell − 1)·Σx − p_read.
        signs: of every group of rows that is driven at once and every array column: −1 where its reads are subtracted,
            in flipped columns and in fragments of negative weights.
    """

    levels: UInt8[np.ndarray, "rows columns"]
    flipped: Bool[np.ndarray, " columns"]
    signs: Int8[np.ndarray, "groups columns"]


@dataclass(frozen=True, eq=False)
class LayerMapping:
    """One woven layer on arrays.

    Attributes:
        layer: the woven layer.
        array: the array's description.
        code: how weights become cells.
        blocks: the allocated blocks, row bands first.
        row_capacity, column_capacity: core rows and core columns that an array holds.
        copies: how many times the layer is programmed (duplication).
    """

    layer: WovenLayer
    array: Array
    code: WeightCode
    blocks: tuple[Block, ...]
    row_capacity: int
    column_capacity: int
    copies: int = 1

    @cached_property
    def digits(self) -> tuple[Field, ...]:
        """The fields in which P x is streamed, one cycle each."""
        form = self.layer.row_format
        return fields(form.bits, self.array.b_dac, form.signed)

    @cached_property
    def streams(self) -> tuple[InputTransform, ...]:
        """What the rows are driven with, one after another; more than one where rename is `serial`."""
        return self.layer.transform.streams()

    @cached_property
    def stream_format(self) -> Format:
        """Narrowest format of what one stream drives the rows with: that of P x, if there is one stream."""
        forms = [stream.row_format(self.layer.input_format) for stream in self.streams]
        return Format.covering(min(form.low for form in forms), max(form.high for form in forms))

    @cached_property
    def stream_digits(self) -> tuple[Field, ...]:
        """The fields in which one stream is driven, one cycle each."""
        return fields(self.stream_format.bits, self.array.b_dac, self.stream_format.signed)

    @property
    def drives(self) -> tuple[Field, ...]:
        """The fields of all streams, in the order in which they are driven."""
        return self.stream_digits * len(self.streams)

    @property
    def arrays(self) -> int:
        """Arrays allocated, all copies."""
        return len(self.blocks) * self.copies

    def core_rows(self, block: Block) -> Integer[np.ndarray, " rows"]:
        """Index into the G·R rows of P x for every array row of the block."""
        rows = self.layer.core.shape[1]
        groups = np.arange(*block.groups)[:, None] * rows
        return np.asarray((groups + np.arange(*block.rows)).reshape(-1))

    def core_columns(self, block: Block) -> Integer[np.ndarray, " outputs"]:
        """Index into the G·N' accumulators for every weight column of the block."""
        columns = self.layer.core.shape[2]
        groups = np.arange(*block.groups)[:, None] * columns
        return np.asarray((groups + np.arange(*block.columns)).reshape(-1))

    def weights(self, block: Block) -> Integer[np.ndarray, "rows outputs"]:
        """The block of the core, int64; the off-diagonal of packed groups is 0."""
        part = self.layer.core[slice(*block.groups), slice(*block.rows), slice(*block.columns)].astype(np.int64)
        groups, rows, columns = part.shape
        if groups == 1:
            return np.asarray(part[0])
        packed = np.zeros((groups, rows, groups, columns), np.int64)
        packed[np.arange(groups), :, np.arange(groups), :] = part
        return packed.reshape(groups * rows, groups * columns)

    def cells(self, block: Block) -> Cells:
        """The levels to program for a block."""
        weights = self.weights(block)
        levels = self.code.encode(weights)
        top = (1 << self.array.b_cell) - 1
        flipped = np.zeros(levels.shape[1], bool)
        if self.array.flip:
            flipped = levels.sum(0, dtype=np.int64) * 2 > top * levels.shape[0]
            levels = np.where(flipped, top - levels, levels).astype(np.uint8)
        signs = np.repeat(np.where(flipped, np.int8(-1), np.int8(1))[None], self.row_groups(block), 0)
        if self.code.encoding == "polarised":
            negative = np.minimum.reduceat(weights, np.arange(0, len(weights), self.array.active_rows)) < 0
            signs = np.repeat(np.where(negative, np.int8(-1), np.int8(1)), self.code.columns, 1)
        return Cells(levels, flipped, signs)

    def weights_of(self, cells: Cells) -> Integer[np.ndarray, "rows outputs"]:
        """The weights that programmed cells stand for: the inverse of `cells`."""
        top = (1 << self.array.b_cell) - 1
        weights = self.code.decode(np.where(cells.flipped, top - cells.levels, cells.levels).astype(np.uint8))
        if self.code.encoding != "polarised":
            return weights
        signs = np.repeat(cells.signs[:, :: self.code.columns], self.array.active_rows, 0)
        return np.asarray(weights * signs[: len(weights)])

    def row_groups(self, block: Block) -> int:
        """How many reads it takes to drive all rows of the block, at most `active_rows` at once."""
        groups = block.groups[1] - block.groups[0]
        return math.ceil(groups * (block.rows[1] - block.rows[0]) / self.array.active_rows)

    def core_from_arrays(self) -> Integer[np.ndarray, "groups rows columns"]:
        """The core read back from the programmed cells of all blocks."""
        core = np.zeros_like(self.layer.core)
        for block in self.blocks:
            weights = self.weights_of(self.cells(block))
            (g0, g1), (r0, r1), (n0, n1) = block.groups, block.rows, block.columns
            height, width = r1 - r0, n1 - n0
            for i, g in enumerate(range(g0, g1)):
                part = weights[i * height : (i + 1) * height, i * width : (i + 1) * width]
                core[g, r0:r1, n0:n1] = part
        return core

    @property
    def used_cells(self) -> int:
        """Cells that hold weights, one copy (the off-diagonal of packed groups is not counted)."""
        spans = ((b.groups, b.rows, b.columns) for b in self.blocks)
        return self.code.columns * sum(math.prod(stop - start for start, stop in runs) for runs in spans)


def cut(layer: WovenLayer, array: Array, copies: int = 1) -> LayerMapping:
    """Cut a layer for an array.

    Raises:
        InputError: one weight needs more columns than the array has, the encoding cannot hold the layer, or its array
            keeps one sign for weights of both.
    """
    encoding = array.encoding if layer.weight_bits > 1 or array.encoding == "differential" else "binary"
    code = weight_code(encoding, layer.weight_bits, array.b_cell, layer.weight_zero)
    row_capacity, column_capacity = array.rows, array.columns // code.columns
    if column_capacity == 0:
        raise InputError(
            "array.columns",
            array.columns,
            f"at least {code.columns} columns for one {layer.weight_bits}-bit weight of {layer.name!r}",
        )
    low, high = int(layer.core.min(initial=0)), int(layer.core.max(initial=0))
    if layer.core.size and not (code.low <= low and high <= code.high):
        raise InputError(
            "array.encoding",
            array.encoding,
            f"a code for weights {low} … {high} of layer {layer.name!r}; this one holds {code.low} … {code.high}",
        )
    groups, rows, columns = layer.core.shape
    blocks: list[Block] = []
    packed = min(row_capacity // max(rows, 1), column_capacity // max(columns, 1), groups)
    if packed > 1 and code.encoding != "binary":
        for g in range(0, groups, packed):
            run = (g, min(g + packed, groups))
            if layer.core[slice(*run)].any():
                blocks.append(Block(run, (0, rows), (0, columns)))
    else:
        for g in range(groups):
            for r in range(0, rows, row_capacity):
                for n in range(0, columns, column_capacity):
                    block = Block((g, g + 1), (r, min(r + row_capacity, rows)), (n, min(n + column_capacity, columns)))
                    if layer.core[g, slice(*block.rows), slice(*block.columns)].any():
                        blocks.append(block)
    mapping = LayerMapping(layer, array, code, tuple(blocks), row_capacity, column_capacity, copies)
    if code.encoding == "polarised":
        _check_fragments(mapping)
    return mapping


def _check_fragments(mapping: LayerMapping) -> None:
    """Refuse weights of both signs in rows that are driven at once."""
    active = mapping.array.active_rows
    for block in mapping.blocks:
        weights = mapping.weights(block)
        starts = np.arange(0, len(weights), active)
        mixed = (np.minimum.reduceat(weights, starts) < 0) & (np.maximum.reduceat(weights, starts) > 0)
        if mixed.any():
            group, n = np.argwhere(mixed)[0]
            rows = mapping.core_rows(block)[starts[group] : starts[group] + active]
            raise InputError(
                "array.encoding", "polarised",
                f"weights of one sign in every {active} rows of {mapping.layer.name!r} that are driven at once; rows "
                f"{rows[0]} to {rows[-1]} of output {mapping.core_columns(block)[n]} have both (`packed` mends that)",
                "differential",
            )  # fmt: skip
