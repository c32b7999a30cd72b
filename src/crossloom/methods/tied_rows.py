"""Rows of a layer that are trained as one, because the chip stores them once (row rename)."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.nn import Conv2d, Linear
from crossloom.nn.layers import Weave
from crossloom.weave import InputTransform


class TiedRows(nn.Module):
    """A weave whose core holds one row for all rows that share it, before whatever weave the layer has already.

    W = (S·M)·P with S the stored rows and M the rename table: 0 and ±1, one entry a column.

    Args:
        table: M of one group, as an input transform from rows to stored rows.
        inner: the layer's weave, or None.
    """

    signs: Tensor
    stored: Tensor

    def __init__(self, table: InputTransform, inner: nn.Module | None) -> None:
        super().__init__()
        matrix = table.matrix().toarray()
        if not ((abs(matrix) <= 1).all() and ((matrix != 0).sum(0) <= 1).all()):
            raise InputError(
                "tied rows", "a row read from several stored rows", "one stored row, or none, for every row"
            )
        self.table, self.inner, self.rows = table, inner, len(matrix)
        self.register_buffer("stored", torch.from_numpy(abs(matrix).argmax(0)), persistent=False)
        self.register_buffer("signs", torch.from_numpy(matrix.sum(0)).float(), persistent=False)

    def spread(self, core: Float[Tensor, "outputs stored"]) -> Float[Tensor, "outputs rows"]:
        """S·M: every row from the row that is stored for it; zero for a row that has none."""
        return core[:, self.stored] * self.signs

    def gathered(self, weight: Float[Tensor, "outputs rows"]) -> Float[Tensor, "outputs stored"]:
        """The mean of the rows that share a stored row, signs taken off."""
        sums = weight.new_zeros(len(weight), self.rows).index_add_(1, self.stored, weight * self.signs)
        members = weight.new_zeros(self.rows).index_add_(0, self.stored, self.signs.abs().to(weight.dtype))
        return sums / members.clamp_min(1)

    def expand(self, core: Float[Tensor, "outputs stored"]) -> Float[Tensor, "outputs inputs"]:
        """W."""
        rows = self.spread(core)
        return rows if self.inner is None else cast(Weave, self.inner).expand(rows)

    def transform(self, groups: int) -> InputTransform:
        """M behind the P that the layer has."""
        table = self.table.repeated(groups)
        return table if self.inner is None else cast(Weave, self.inner).transform(groups).then(table)


def tie_rows(
    layer: Conv2d | Linear, table: InputTransform, stored: Float[Tensor, "outputs stored"] | None = None
) -> None:
    """Give a layer one trained latent row for all rows that share it; they start from their mean.

    Args:
        layer: whose masks, if any, are folded already.
        table: M of one group; the same for every group.
        stored: integer rows that the chip would store; where a mean has another sign, the latent takes this one's, so
            that ±1 weights begin as the chip has them.

    Raises:
        InputError: a table of another height than the layer's core, or a layer with masks.
    """
    weight = layer.weight.detach().flatten(1)
    if table.inputs != weight.shape[1]:
        raise InputError("tied rows", table.inputs, f"{weight.shape[1]} rows, those of the layer's core")
    if len(layer.shaping):
        raise InputError("tied rows", "masks", "a layer whose masks are folded (finish the method that put them in)")
    tied = TiedRows(table, layer.weave).to(weight)
    mean = tied.gathered(weight)
    if stored is not None:
        other = (stored != 0) & (mean.sign() != stored.sign())
        mean = torch.where(other, 0.01 * mean.abs().mean() * stored.sign(), mean)
    layer.weight = nn.Parameter(mean)
    layer.weave = tied
