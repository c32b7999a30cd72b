"""Rows and columns of zeros leave a core: P reads the other inputs only, Q scatters the other columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossloom.weave.layer import WovenLayer
from crossloom.weave.program import Program
from crossloom.weave.transform import InputTransform


def compacted_layer(layer: WovenLayer) -> WovenLayer:
    """The same function with no row and no column of zeros in the core, one of each at least; grouped layers as is."""
    groups, rows, columns = layer.core.shape
    if groups != 1 or not layer.transform.is_linear:
        return layer
    used = layer.core[0] != 0
    kept, made = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
    kept, made = (kept if len(kept) else np.array([0])), (made if len(made) else np.array([0]))
    if len(kept) < rows:
        layer = layer.with_rows(InputTransform.select(rows, kept), layer.core[:, kept])
    if len(made) < columns:
        place = np.full(columns + 1, -1, np.int64)
        place[made] = np.arange(len(made))
        before = np.arange(columns) if layer.output.columns is None else layer.output.columns
        output = replace(layer.output, columns=place[before])
        layer = replace(layer, core=np.ascontiguousarray(layer.core[:, :, made]), output=output)
    return layer


def compacted(program: Program) -> Program:
    """A program whose pruned rows and columns take no cells; its answers are the same."""
    return program.replace_layers({layer.name: compacted_layer(layer) for layer in program.layers})
