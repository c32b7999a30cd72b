"""What a rename of the final layer saves once the rename table, the adders and the longer digits are paid.

The arrays of the chip are larger than the layer, so the layer is put on an array of its own that is exactly as high
as the layer has rows: the macro a designer would generate for it. Converters, shift-adds and registers stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from crossloom.codesign.single import single_layer
from crossloom.compiled import CompiledChip
from crossloom.cost import activity_of, estimate
from crossloom.mapping import map_program
from crossloom.weave import WovenLayer

TABLE, ADDERS, MULTIPLIERS = "transform_table", "transform_adder", "transform_multiplier"
"""Components of an input transform. Adders that sum the inputs of the ±1 code are there without rename too."""
OWN_LEVELS = ("array", "macro")
"""What belongs to the layer: buffers, buses and routers of tile and chip serve others besides."""


@dataclass(frozen=True)
class Parts:
    """Where a layer's area goes, in m², and what it costs to run."""

    cells: int
    array: float
    adders: float
    table: float
    energy_j: float
    cycles: float


def compare(chip: CompiledChip, vectors: np.ndarray, layers: Mapping[str, WovenLayer]) -> list[list[object]]:
    """Cells, area, energy and cycles of variants of the last layer; the first is what the others are compared with.

    Args:
        chip: the network's chip.
        vectors: input codes of the layer (V, K), for the activity.
        layers: variants by name.

    Returns:
        [case, metric, unit, value] lists.
    """
    rows: list[list[object]] = []
    made = {case: parts(chip, layer, vectors) for case, layer in layers.items()}
    first = next(iter(made.values()))
    for case, part in made.items():
        hardwired, whole = part.array + part.adders, part.array + part.adders + part.table
        before = first.array + first.adders + first.table
        rows += [
            [case, "cells saved", "%", 100 * (1 - part.cells / first.cells)],
            [case, "area, array with drivers, converters and registers", "m²", part.array],
            [case, "area, adders in front of it", "m²", part.adders],
            [case, "area, rename table", "m²", part.table],
            [case, "area saved, table wired into the layout", "%", 100 * (1 - hardwired / before)],
            [case, "area saved, programmable table", "%", 100 * (1 - whole / before)],
            [case, "energy saved", "%", 100 * (1 - part.energy_j / first.energy_j)],
            [case, "array cycles per image", "", part.cycles],
        ]
    return rows


def parts(chip: CompiledChip, layer: WovenLayer, vectors: np.ndarray) -> Parts:
    """One layer on an array of its own height."""
    width = chip.hardware.array.columns_per_adc
    columns = -(-layer.core.shape[2] // width) * width
    fitted = chip.hardware.override({"array.rows": int(layer.core.shape[1]), "array.columns": columns})
    mapping = map_program(single_layer(chip.program, layer), fitted)
    report = estimate(mapping, activity_of(mapping, {layer.name: vectors}))
    cost = next(found for found in report.layers if found.kind == "woven")
    area = cost.area_by_component
    transform = (TABLE, ADDERS, MULTIPLIERS)
    own = sum(a for n, a in area.items() if report.components[n].level in OWN_LEVELS and n not in transform)
    adders = area.get(ADDERS, 0.0) + area.get(MULTIPLIERS, 0.0)
    return Parts(cost.rows * cost.columns, own, adders, area.get(TABLE, 0.0), cost.energy_j, cost.cycles)
