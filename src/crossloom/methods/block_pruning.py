"""Pruning of array-sized blocks by magnitude: the plain baseline of crossbar pruning.

The blocks of the whole network with the smallest Frobenius norm relative to their layer's are set to zero and kept
there by a mask while training goes on. A block of zeros gets no array.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.cores import cores, fold, grouped, is_grouped, refuse_binary
from crossloom.methods.protocol import Method
from crossloom.nn import Conv2d, Linear


class BlockMask(nn.Module):
    """Multiplies array-sized blocks of a latent weight by 0 or 1.

    Args:
        keep: one flag per block, (row blocks, column blocks).
        rows: core rows of an array.
        columns: weight columns of an array.
    """

    keep: Tensor

    def __init__(self, keep: Bool[Tensor, "rows columns"], rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.register_buffer("keep", keep)

    def forward(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """The weight with its absent blocks at zero."""
        flat = weight.flatten(1)
        rows = torch.arange(flat.shape[1], device=weight.device) // self.rows
        columns = torch.arange(flat.shape[0], device=weight.device) // self.columns
        return (flat * self.keep[rows[None, :], columns[:, None]]).view_as(weight)


class BlockPruning(Method):
    """Keep a fraction of a network's array-sized blocks.

    Args:
        keep: fraction of the blocks that stay, of those that hold a weight, 0 < keep ≤ 1. Every layer keeps at least
            one.
        rows: core rows of an array (128 on the default chip).
        columns: weight columns of an array (32 on the default chip: 128 columns, four cells a weight).

    Raises:
        InputError: a fraction outside (0, 1], or a shape below 1.
    """

    name: ClassVar[str] = "block-pruning"
    prunes: ClassVar[bool] = True

    def __init__(self, keep: float, rows: int = 128, columns: int = 32) -> None:
        if not 0 < keep <= 1:
            raise InputError("block-pruning.keep", keep, "a fraction above 0 and at most 1")
        if rows < 1 or columns < 1:
            raise InputError("block-pruning.rows, columns", (rows, columns), "at least 1 each")
        self.keep, self.rows, self.columns = keep, rows, columns

    def norms(self, layer: Conv2d | Linear) -> Float[Tensor, "rows columns"]:
        """Root mean square of every block of a layer, relative to the whole layer's."""
        flat = layer.latent().detach().flatten(1).square()
        high, wide = math.ceil(flat.shape[1] / self.rows), math.ceil(flat.shape[0] / self.columns)
        padded = flat.new_zeros(wide * self.columns, high * self.rows)
        padded[: flat.shape[0], : flat.shape[1]] = flat
        counted = torch.zeros_like(padded)
        counted[: flat.shape[0], : flat.shape[1]] = 1
        sums, counts = (t.view(wide, self.columns, high, self.rows).sum((1, 3)).T for t in (padded, counted))
        return (sums / counts / flat.mean().clamp_min(1e-30)).sqrt()

    def prepare(self, network: nn.Module) -> None:
        """Choose among the blocks that hold a weight, and put the masks in. Grouped layers are left alone.

        Raises:
            InputError: 1-bit weights, which have no zero.
        """
        plain = {name: twins for name, twins in cores(network).items() if not is_grouped(twins[0])}
        for name, twins in plain.items():
            refuse_binary(self.name, name, twins[0])
        norms = {name: self.norms(twins[0]) for name, twins in plain.items()}
        ranked = torch.cat([n[n > 0] for n in norms.values()] or [torch.zeros(0)]).sort(descending=True).values
        threshold = ranked[max(1, round(self.keep * len(ranked))) - 1] if len(ranked) else 0.0
        for name, twins in plain.items():
            keep = (norms[name] >= threshold) & (norms[name] > 0)
            if not bool(keep.any()):
                keep = (norms[name] == norms[name].max()) & (norms[name] > 0)
            mask = BlockMask(keep, self.rows, self.columns)
            for layer in twins:
                layer.shaping.append(mask)

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Fold the masks into the weights and take them out; says how many blocks are left of how many, and which
        layers were left alone.
        """
        kept = total = 0
        for twins in cores(network).values():
            for mask in [m for m in twins[0].shaping if isinstance(m, BlockMask)]:
                kept, total = kept + len(twins) * int(mask.keep.sum()), total + len(twins) * mask.keep.numel()
                fold(twins, mask)
        return {"blocks": kept, "blocks_dense": total, "grouped": grouped(network)}
