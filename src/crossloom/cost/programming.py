"""What it costs to write a network into its cells once."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary

import numpy as np

from crossloom.cost.report import Programming
from crossloom.hardware import Action, Component
from crossloom.mapping import Block, LayerMapping, Mapping


def programming(mapping: Mapping, parts: Dictionary[str, Component]) -> Programming:
    """Energy, time and endurance of writing all cells of all blocks once.

    Energy: every cell takes `write_pulses` pulses of `write_energy`, each with the write circuit's own, and its
    bits come over the chip's edge. Time: an array writes one row at a time, all its columns at once, and its slowest
    cell decides, taken as the mean number of pulses; the arrays of a tile follow each other and tiles work side by
    side.
    """
    device, array = mapping.chip.device, mapping.chip.array
    cells = 0
    rows_of_tile: dict[int, int] = {}
    shapes = {name: [_shape(layer, block) for block in layer.blocks] for name, layer in mapping.layers.items()}
    for placed in mapping.arrays:
        rows, columns = shapes[placed.layer][placed.block]
        cells += rows * columns
        rows_of_tile[placed.tile] = rows_of_tile.get(placed.tile, 0) + rows
    pulses = cells * device.write_pulses

    def energy(action: Action) -> float:
        return float(np.sum([part.energy for part in parts.values() if action in part.actions]))

    bits = cells * array.b_cell
    return Programming(
        cells=cells,
        pulses=pulses,
        energy_j=pulses * (device.write_energy + energy(Action.CELL_WRITE)) + bits * energy(Action.DRAM),
        time_s=max(rows_of_tile.values(), default=0) * device.write_pulses * device.write_pulse,
        dram_bits=bits,
        endurance_used=device.write_pulses / device.endurance,
    )


def _shape(layer: LayerMapping, block: Block) -> tuple[int, int]:
    """Array rows and physical columns that a block takes."""
    groups, rows, columns = (stop - start for start, stop in (block.groups, block.rows, block.columns))
    return groups * rows, groups * columns * layer.code.columns
