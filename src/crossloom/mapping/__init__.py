"""Program → placed arrays: slicing, encoding, tiling, duplication and the floor plan."""

from crossloom.mapping.blocks import Block, Cells, LayerMapping, cut
from crossloom.mapping.fragments import packed
from crossloom.mapping.placement import CellAddress, Mapping, PlacedArray, balanced_duplication, map_program

__all__ = [
    "Block", "CellAddress", "Cells", "LayerMapping", "Mapping", "PlacedArray", "balanced_duplication", "cut",
    "map_program", "packed",
]  # fmt: skip
