"""Row rename in training: rows of a layer that the chip stores once are trained as one (IRR, lossy rename)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, fx, nn

from crossloom.errors import InputError
from crossloom.frontend import lower
from crossloom.hardware import Chip
from crossloom.mapping import map_program, rename
from crossloom.methods import Method
from crossloom.methods.patterns import by_pattern
from crossloom.methods.tied_rows import tie_rows
from crossloom.nn import woven_layers
from crossloom.simulate.observe import input_vectors

VECTORS = 4096
"""Input vectors of a layer from which the rows' activation masses are taken."""


class RenameRows(Method):
    """Tie the rows of layers to fewer stored rows, and train on.

    Args:
        tables: per layer, `stored` (the stored row of every row, -1 for none), `sign` (±1 each) and `core` (the
            stored rows as integers, rows × outputs), as `tables` finds them. In a recipe, `rows` in their place:
            `rename-rows: {rows: {"@last": 46}}`.

    Raises:
        InputError: a layer that there is not.
    """

    name: ClassVar[str] = "rename-rows"
    recores: ClassVar[bool] = True
    keeps_zeros: ClassVar[bool] = True

    def __init__(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        self.tables = tables

    def prepare(self, network: nn.Module) -> None:
        """Tie the rows; they start from their means, ±1 weights from the stored signs."""
        layers = woven_layers(network)
        for name, table in self.tables.items():
            if name not in layers:
                raise InputError.choice("rename-rows", name, layers)
            core = np.asarray(table["core"])
            assignment = rename.Assignment(
                np.asarray(table["stored"])[None], np.asarray(table["sign"], np.int8)[None], len(core)
            )
            stored = torch.from_numpy(np.ascontiguousarray(core.T)).float()
            tie_rows(layers[name], assignment.group(0), stored)

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Stored rows of how many, by layer."""
        return {name: {"rows": len(t["core"]), "of": len(t["stored"])} for name, t in self.tables.items()}


def tables(
    network: fx.GraphModule, chip: Chip, batches: Sequence[tuple[Tensor, Tensor]], rows: Mapping[str, float],
    complement: bool = False,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Which rows share a stored row, from the weights as they are and the inputs of a calibration batch.

    Args:
        network: converted and calibrated.
        chip: the hardware.
        batches: calibration images with labels.
        rows: stored rows by layer name or pattern, as a count (1 or more) or a share of the rows there are (below 1).
        complement: a row may be stored as another one's negative.

    Raises:
        InputError: no such layer, a grouped one, or a count that it does not have.
    """
    program = lower(network)
    layers = {layer.name: layer for layer in program.layers}
    vectors = input_vectors(map_program(program, chip), torch.cat([x for x, _ in batches]), VECTORS)
    found: dict[str, dict[str, Any]] = {}
    for name, wanted in by_pattern("rename-rows.rows", rows, layers).items():
        layer = layers[name]
        if layer.groups > 1:
            raise InputError(f"rename-rows.rows.{name}", f"{layer.groups} groups", "a layer of one group")
        count = max(round(wanted * layer.core.shape[1]), 1) if wanted < 1 else int(wanted)
        made = rename.lossy(layer, count, rename.row_activity(layer, vectors[name]), complement)
        found[name] = {
            "stored": made.assignment.stored[0].tolist(), "sign": made.assignment.sign[0].tolist(),
            "core": made.layer.core[0].tolist(),
        }  # fmt: skip
    return found
