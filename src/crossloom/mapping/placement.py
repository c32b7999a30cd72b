"""From blocks to a floor plan: arrays in macros, macros in tiles, and the way back to every weight."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crossloom.errors import InputError
from crossloom.hardware import Chip
from crossloom.mapping.blocks import Block, LayerMapping, cut
from crossloom.mapping.fragments import packed_program
from crossloom.weave import Program


@dataclass(frozen=True)
class PlacedArray:
    """One physical array and what it holds.

    Attributes:
        index: of the array on the chip, counting only allocated ones.
        tile, macro, slot: where it lies; `macro` counts within the tile, `slot` within the macro.
        layer: name of the woven layer.
        copy: which duplicate of the layer.
        block: the part of the layer's core, an index into the layer's blocks.
    """

    index: int
    tile: int
    macro: int
    slot: int
    layer: str
    copy: int
    block: int


@dataclass(frozen=True)
class CellAddress:
    """Where one weight sits: the array, its row, and the columns of its slices."""

    array: PlacedArray
    row: int
    columns: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Mapping:
    """A program placed on a chip: all that simulation, cost and export read.

    Attributes:
        program: the integer program.
        chip: the hardware.
        layers: per woven layer name, its blocks.
    """

    program: Program
    chip: Chip
    layers: dict[str, LayerMapping]

    @cached_property
    def arrays(self) -> tuple[PlacedArray, ...]:
        """All allocated arrays in floor-plan order.

        A macro's arrays share one input register, so a macro holds blocks of one copy of one layer; a tile may
        hold several layers.
        """
        per_macro, per_tile = self.chip.hierarchy.arrays_per_macro, self.chip.hierarchy.macros_per_tile
        placed: list[PlacedArray] = []
        macro = 0
        for name, layer in self.layers.items():
            for copy in range(layer.copies):
                for index in range(len(layer.blocks)):
                    tile, within = divmod(macro + index // per_macro, per_tile)
                    placed.append(PlacedArray(len(placed), tile, within, index % per_macro, name, copy, index))
                macro += math.ceil(len(layer.blocks) / per_macro)
        return tuple(placed)

    @property
    def crossbars(self) -> int:
        """Arrays allocated."""
        return sum(layer.arrays for layer in self.layers.values())

    @property
    def macros(self) -> int:
        """Macros with at least one array."""
        per_macro = self.chip.hierarchy.arrays_per_macro
        return sum(layer.copies * math.ceil(len(layer.blocks) / per_macro) for layer in self.layers.values())

    @property
    def tiles(self) -> int:
        """Tiles with at least one macro."""
        return math.ceil(self.macros / self.chip.hierarchy.macros_per_tile)

    @property
    def utilisation(self) -> float:
        """Cells that hold weights over cells of all allocated arrays."""
        cells = self.crossbars * self.chip.array.rows * self.chip.array.columns
        return sum(m.used_cells * m.copies for m in self.layers.values()) / cells if cells else 0.0

    def array_utilisation(self, placed: PlacedArray) -> float:
        """Cells of one array that hold weights, as a fraction."""
        layer = self.layers[placed.layer]
        block = layer.blocks[placed.block]
        used = math.prod(stop - start for start, stop in (block.groups, block.rows, block.columns))
        return used * layer.code.columns / (self.chip.array.rows * self.chip.array.columns)

    def find(self, layer: str, group: int, row: int, column: int) -> tuple[CellAddress, ...]:
        """Every place where core weight (group, row, column) of a layer is programmed, one per copy.

        An empty answer means that the weight lies in a block of zeros, for which no array exists.

        Raises:
            InputError: no such layer or weight.
        """
        if layer not in self.layers:
            raise InputError.choice("layer", layer, self.layers)
        mapped = self.layers[layer]
        if not all(0 <= i < n for i, n in zip((group, row, column), mapped.layer.core.shape, strict=True)):
            raise InputError("weight", (group, row, column), f"an index below {mapped.layer.core.shape}")
        found = []
        for placed in self.arrays:
            block: Block = mapped.blocks[placed.block] if placed.layer == layer else Block((0, 0), (0, 0), (0, 0))
            (g0, g1), (r0, r1), (n0, n1) = block.groups, block.rows, block.columns
            if g0 <= group < g1 and r0 <= row < r1 and n0 <= column < n1:
                at_row = (group - g0) * (r1 - r0) + row - r0
                first = ((group - g0) * (n1 - n0) + column - n0) * mapped.code.columns
                found.append(CellAddress(placed, at_row, tuple(range(first, first + mapped.code.columns))))
        return tuple(found)

    def read_back(self) -> dict[str, np.ndarray]:
        """The core of every layer, rebuilt from the programmed cells alone."""
        return {name: layer.core_from_arrays() for name, layer in self.layers.items()}


def map_program(program: Program, chip: Chip, duplication: Dictionary[str, int] | None = None) -> Mapping:
    """Place a program on a chip.

    Args:
        program: the integer program.
        chip: the hardware; on arrays of polarised cells the mapping's program has its rows in runs of one sign.
        duplication: copies per layer name; layers not named get one.

    Raises:
        InputError: a layer that the array cannot hold, an unknown layer name, fewer than one copy, or a chip with
            fewer tiles than needed.
    """
    duplication = dict(duplication or {})
    names = [layer.name for layer in program.layers]
    for name, copies in duplication.items():
        if name not in names:
            raise InputError.choice("duplication", name, names)
        if copies < 1:
            raise InputError(f"duplication.{name}", copies, "at least 1 copy")
    program = packed_program(program, chip.array.fragment)
    layers = {layer.name: cut(layer, chip.array, duplication.get(layer.name, 1)) for layer in program.layers}
    mapping = Mapping(program, chip, layers)
    limit = chip.hierarchy.tiles
    if limit is not None and mapping.tiles > limit:
        raise InputError("hierarchy.tiles", limit, f"at least {mapping.tiles} tiles for {program.name!r} on this chip")
    return mapping


def balanced_duplication(program: Program, chip: Chip, crossbars: int) -> dict[str, int]:
    """Copies per layer that minimise the slowest layer's reads per image within a budget of arrays.

    Giving the slowest layer one more copy, again and again, is optimal for a minimum of the maximum: no other
    choice can lower the bottleneck.

    Args:
        program: the program.
        chip: the hardware.
        crossbars: arrays that may be used in all.

    Raises:
        InputError: the budget does not hold one copy of every layer.
    """
    mapping = map_program(program, chip)
    spent = mapping.crossbars
    if spent > crossbars:
        raise InputError("duplication budget", crossbars, f"at least {spent} arrays, one copy of every layer")
    work = {node.layer.name: program.positions(node) for node in program.woven()}
    reads = {
        name: work[name] * len(m.digits) * max((m.row_groups(b) for b in m.blocks), default=0)
        for name, m in mapping.layers.items()
    }
    copies = dict.fromkeys(mapping.layers, 1)
    queue: list[tuple[float, str]] = [(-reads[name], name) for name in copies if reads[name]]
    heapq.heapify(queue)
    while queue:
        _, name = queue[0]
        cost = len(mapping.layers[name].blocks)
        if spent + cost > crossbars or copies[name] >= work[name]:
            break
        spent += cost
        copies[name] += 1
        heapq.heapreplace(queue, (-reads[name] / copies[name], name))
    return copies
