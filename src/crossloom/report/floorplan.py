"""The floor plan for the page: tiles → macros → array slots, and each block's cells as a small picture in text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from crossloom.compiled import CompiledChip
from crossloom.mapping import Block, LayerMapping, Mapping, PlacedArray

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""A pixel of a cell map is one character; its index over 63 is the mean level over the highest level."""
MAP_BUDGET = 600_000
"""Characters that all cell maps of one page may take."""
MOST_ARRAYS = 8192
"""Arrays that one page draws; a browser becomes slow beyond."""
MOST_EMPTY = 64
"""Empty slots are drawn for macros and tiles of at most this many places."""


@dataclass(frozen=True)
class Slot:
    """One array on the plan, or an empty place.

    Attributes:
        layer: index of its layer, or −1 for an empty place.
        name: the layer's name.
        block: index of its block in the layer.
        copy: which duplicate.
        index: of the array on the chip.
        width, height: share of the array's columns and rows that the block takes, in percent.
        utilisation: cells that hold weights over all cells of the array.
        label: everything in words.
    """

    layer: int
    name: str = ""
    block: int = 0
    copy: int = 0
    index: int = 0
    width: float = 0.0
    height: float = 0.0
    utilisation: float = 0.0
    label: str = "empty place"


EMPTY = Slot(-1)


@dataclass(frozen=True)
class Plan:
    """The floor plan.

    Attributes:
        tiles: per tile its macros, per macro its slots.
        uses: per tile, cells that hold weights over the cells of all its places, empty ones included.
        macro_columns: slots side by side in a macro.
        tile_columns: macros side by side in a tile.
        size: `large`, `medium` or `small` squares, by how many there are.
        undrawn: arrays left out because the chip is too large for one page.
        layers: names of the woven layers.
        arrays_of: arrays per layer, all copies.
        details: what the page's script needs: the array's size and, per layer, its blocks and their cell maps.
    """

    tiles: list[list[list[Slot]]]
    uses: list[float]
    macro_columns: int
    tile_columns: int
    size: str
    undrawn: int
    layers: list[str]
    arrays_of: list[int]
    details: dict[str, Any]


def plan(chip: CompiledChip) -> Plan:
    """The floor plan of a compiled chip."""
    mapping = chip.mapping
    hierarchy, array = chip.hardware.hierarchy, chip.hardware.array
    names = list(mapping.layers)
    number = {name: i for i, name in enumerate(names)}
    drawn = mapping.arrays[:MOST_ARRAYS]
    tiles: list[list[list[Slot]]] = []
    for placed in drawn:
        while len(tiles) <= placed.tile:
            tiles.append([])
        while len(tiles[placed.tile]) <= placed.macro:
            tiles[placed.tile].append([])
        tiles[placed.tile][placed.macro].append(_slot(mapping, placed, number[placed.layer]))
    places = hierarchy.arrays_per_macro * hierarchy.macros_per_tile
    uses = [math.fsum(slot.utilisation for macro in tile for slot in macro) / places for tile in tiles]
    for tile in tiles:
        for macro in tile:
            macro += [EMPTY] * (hierarchy.arrays_per_macro - len(macro)) * (hierarchy.arrays_per_macro <= MOST_EMPTY)
        if hierarchy.macros_per_tile <= MOST_EMPTY and hierarchy.arrays_per_macro <= MOST_EMPTY:
            tile += [[EMPTY] * hierarchy.arrays_per_macro] * (hierarchy.macros_per_tile - len(tile))
    shown = {name: sorted({placed.block for placed in drawn if placed.layer == name}) for name in names}
    blocks = [[mapping.layers[name].blocks[i] for i in shown[name]] for name in names]
    factor = shrink_factor(
        [
            used(layer, block)
            for layer, of_layer in zip(mapping.layers.values(), blocks, strict=True)
            for block in of_layer
        ]
    )
    details = {
        "rows": array.rows,
        "columns": array.columns,
        "levels": 1 << array.b_cell,
        "shrink": factor,
        "alphabet": ALPHABET,
        "layers": [
            [_detail(layer, block, factor) for block in of_layer]
            for layer, of_layer in zip(mapping.layers.values(), blocks, strict=True)
        ],
    }
    return Plan(
        tiles=tiles,
        uses=uses,
        macro_columns=side(min(hierarchy.arrays_per_macro, MOST_EMPTY)),
        tile_columns=side(min(hierarchy.macros_per_tile, MOST_EMPTY)),
        size="large" if len(drawn) <= 64 else "medium" if len(drawn) <= 512 else "small",
        undrawn=len(mapping.arrays) - len(drawn),
        layers=names,
        arrays_of=[layer.arrays for layer in mapping.layers.values()],
        details=details,
    )


def side(places: int) -> int:
    """How many of `places` to put side by side: the smallest divisor that is no less than the square root."""
    return next(n for n in range(math.isqrt(max(places - 1, 0)) + 1, places + 1) if places % n == 0)


def used(layer: LayerMapping, block: Block) -> tuple[int, int]:
    """(rows, columns) of the array that a block takes."""
    groups = block.groups[1] - block.groups[0]
    rows, columns = block.rows[1] - block.rows[0], block.columns[1] - block.columns[0]
    return groups * rows, groups * columns * layer.code.columns


def _slot(mapping: Mapping, placed: PlacedArray, layer: int) -> Slot:
    mapped, array = mapping.layers[placed.layer], mapping.chip.array
    rows, columns = used(mapped, mapped.blocks[placed.block])
    utilisation = mapping.array_utilisation(placed)
    label = f"{placed.layer}, block {placed.block + 1} of {len(mapped.blocks)}"
    label += f", copy {placed.copy + 1} of {mapped.copies}" if mapped.copies > 1 else ""
    return Slot(
        layer, placed.layer, placed.block, placed.copy, placed.index,
        round(100 * columns / array.columns, 2), round(100 * rows / array.rows, 2), utilisation,
        f"{label}, {100 * utilisation:.0f} % of cells used",
    )  # fmt: skip


def shrink_factor(shapes: list[tuple[int, int]], budget: int = MAP_BUDGET) -> int:
    """The least whole number by which all cell maps must shrink on each side to fit the budget, if one pixel each does.

    Args:
        shapes: (rows, columns) of every map.
        budget: pixels in all.
    """
    factor, largest = 1, max(map(max, shapes), default=1)
    while factor < largest and sum(-(-rows // factor) * -(-columns // factor) for rows, columns in shapes) > budget:
        factor += 1
    return factor


def _detail(layer: LayerMapping, block: Block, factor: int) -> dict[str, Any]:
    cells = layer.cells(block)
    rows, columns = cells.levels.shape
    return {
        "used": [rows, columns],
        "groups": list(block.groups) if layer.layer.groups > 1 else None,
        "rows": list(block.rows),
        "outputs": list(block.columns),
        "flipped": int(cells.flipped.sum()) if layer.array.flip else None,
        "level": round(float(cells.levels.mean()), 4),
        "width": -(-columns // factor),
        "map": picture(cells.levels, (1 << layer.array.b_cell) - 1, factor),
    }


def picture(levels: UInt8[np.ndarray, "rows columns"], top: int, factor: int) -> str:
    """Levels as text, one character of `ALPHABET` per pixel, row by row; a pixel is the mean of factor² cells."""
    rows, columns = levels.shape
    at_rows, at_columns = np.arange(0, rows, factor), np.arange(0, columns, factor)
    sums = np.add.reduceat(np.add.reduceat(levels.astype(np.float64), at_rows, 0), at_columns, 1)
    heights = np.minimum(factor, rows - at_rows)[:, None]
    means = sums / (heights * np.minimum(factor, columns - at_columns))
    letters = np.frombuffer(ALPHABET.encode(), np.uint8)
    pixels: bytes = letters[np.floor(means * 63 / top + 0.5).astype(np.int64)].tobytes()
    return pixels.decode()
