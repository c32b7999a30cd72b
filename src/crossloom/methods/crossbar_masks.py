"""Crossbar pruning (CRIMP, step 3): one trainable mask value per array-sized block of every convolution and FC layer.

A mask starts at its block's root mean square relative to its layer's (the weights are divided by it: the network
computes the same), is pulled to 0 by zero-and-recover training, and is ranked with all others of the network. A block
whose mask is 0 gets no array; the surviving values are multiplied into the weights. To follow kernel-group pruning.

The blocks are those of the core, so that a woven layer loses arrays and not inputs. Under a quantiser of fixed range
the weights stay as they are and the masks act relative to their start: what divides them would leave the range.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.block_pruning import BlockMask, BlockPruning
from crossloom.methods.cores import cores, fold, grouped, is_grouped, refuse_binary
from crossloom.methods.protocol import Method
from crossloom.nn import woven_layers


class CrossbarMask(nn.Module):
    """Multiplies every array-sized block of a latent weight by a trainable value.

    Args:
        values: one per block, (row blocks, column blocks).
        rows: core rows of an array.
        columns: weight columns of an array.
        unit: what a value is divided by before it multiplies its block; None: nothing.
    """

    unit: Tensor

    def __init__(
        self, values: Float[Tensor, "rows columns"], rows: int, columns: int,
        unit: Float[Tensor, "rows columns"] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.rows, self.columns = rows, columns
        self.values = nn.Parameter(values.clone(memory_format=torch.contiguous_format))
        self.register_buffer("unit", torch.ones_like(values) if unit is None else unit.clone())

    def expanded(self, weight: Tensor) -> Float[Tensor, "outputs rows"]:
        """The mask, weight by weight."""
        rows = torch.arange(weight[0].numel(), device=weight.device) // self.rows
        columns = torch.arange(weight.shape[0], device=weight.device) // self.columns
        return (self.values / self.unit)[rows[None, :], columns[:, None]]

    def forward(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """The masked weight."""
        return (weight.flatten(1) * self.expanded(weight)).view_as(weight)


class CrossbarMasks(Method):
    """Zero-and-recover pruning of whole crossbars.

    Args:
        keep: how many blocks stay: a number of arrays, or a share of those that hold a weight. Every layer keeps one.
        rows: core rows of an array.
        columns: weight columns of an array.
        start: epoch s of Algorithm 1 as a fraction of the phase.
        penalty: λ of the L1 pull on the masks.

    Raises:
        InputError: a share outside (0, 1], fewer than one array, or sizes below 1.
    """

    name: ClassVar[str] = "crossbar-masks"
    prunes: ClassVar[bool] = True

    def __init__(
        self, keep: float | int, rows: int = 128, columns: int = 32, start: float = 0.2, penalty: float = 1e-4
    ) -> None:
        if not (0 < keep <= 1 if isinstance(keep, float) else keep >= 1):
            raise InputError("crossbar-masks.keep", keep, "at least 1 array, or a fraction above 0 and at most 1")
        if rows < 1 or columns < 1:
            raise InputError("crossbar-masks.rows, columns", (rows, columns), "at least 1 each")
        self.keep, self.rows, self.columns, self.start, self.penalty = keep, rows, columns, start, penalty
        self._network: nn.Module | None = None
        self._there = 0

    def masks(self, network: nn.Module) -> dict[str, CrossbarMask]:
        """The masks by layer."""
        return {
            name: mask
            for name, layer in woven_layers(network).items()
            for mask in layer.shaping
            if isinstance(mask, CrossbarMask)
        }

    @torch.no_grad()
    def prepare(self, network: nn.Module) -> None:
        """Put the masks in; a block of zeros gets the value 0, which nothing moves. Grouped layers are left alone.

        Raises:
            InputError: 1-bit weights, which have no zero.
        """
        self._network, self._there = network, 0
        norms = BlockPruning(1.0, self.rows, self.columns).norms
        plain = {name: twins for name, twins in cores(network).items() if not is_grouped(twins[0])}
        for name, twins in plain.items():
            refuse_binary(self.name, name, twins[0])
        for twins in plain.values():
            layer, values = twins[0], norms(twins[0])
            start = torch.where(values > 0, values, 1.0)
            self._there += len(twins) * int((values > 0).sum())
            if layer.weight_quantiser.config.range == "fixed":
                mask = CrossbarMask(values, self.rows, self.columns, start)
            else:
                mask = CrossbarMask(values, self.rows, self.columns)
                scale = CrossbarMask(start, self.rows, self.columns).to(layer.weight.device).expanded(layer.weight)
                layer.weight.copy_((layer.weight.flatten(1) / scale).view_as(layer.weight))
            for twin in twins:
                twin.shaping.append(mask)

    def importances(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """Every mask."""
        return [mask.values for mask in self.masks(network).values()]

    @torch.no_grad()
    def zero(self, network: nn.Module) -> None:
        """The masks under the global threshold to 0; the largest of every layer stays, if it is not 0 already."""
        masks = {name: mask for name, mask in self.masks(network).items() if bool(mask.values.any())}
        count = self.keep if isinstance(self.keep, int) else max(round(self.keep * self._there), 1)
        best = {name: int(m.values.abs().argmax()) for name, m in masks.items()}
        others = [
            (float(v), name, i)
            for name, m in masks.items()
            for i, v in enumerate(m.values.abs().reshape(-1).tolist())
            if i != best[name]
        ]
        others.sort(reverse=True)
        for _, name, i in others[max(count - len(masks), 0) :]:
            masks[name].values.view(-1)[i] = 0.0

    def callbacks(self) -> Sequence[Any]:
        """Algorithm 1 on the masks."""
        from crossloom.methods.zero_recover import ZeroAndRecover

        assert self._network is not None, "prepare first"
        return (ZeroAndRecover(self._network, self, self.start, self.penalty),)

    @torch.no_grad()
    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Zero once more and multiply the masks into the weights; says how many blocks are left of those that held a
        weight before, and which layers were left alone.
        """
        self.zero(network)
        kept = {name: int((m.values != 0).sum()) for name, m in self.masks(network).items()}
        for twins in cores(network).values():
            for mask in [m for m in twins[0].shaping if isinstance(m, CrossbarMask)]:
                fold(twins, mask)
        figures = {"blocks": sum(kept.values()), "blocks_unmasked": self._there}
        return {**figures, "layers": kept, "grouped": grouped(network)}


class KeepZeroBlocks(Method):
    """Blocks of zeros stay zeros while training goes on: what follows crossbar pruning.

    Args:
        rows: core rows of an array.
        columns: weight columns of an array.

    Raises:
        InputError: sizes below 1.
    """

    name: ClassVar[str] = "keep-zero-blocks"

    def __init__(self, rows: int = 128, columns: int = 32) -> None:
        if rows < 1 or columns < 1:
            raise InputError("keep-zero-blocks.rows, columns", (rows, columns), "at least 1 each")
        self.rows, self.columns = rows, columns
        self._masks: list[BlockMask] = []

    def prepare(self, network: nn.Module) -> None:
        """Put fixed masks in. Grouped layers are left alone."""
        norms = BlockPruning(1.0, self.rows, self.columns).norms
        for twins in cores(network).values():
            if not is_grouped(twins[0]):
                self._masks.append(BlockMask(norms(twins[0]) > 0, self.rows, self.columns))
                for layer in twins:
                    layer.shaping.append(self._masks[-1])

    @torch.no_grad()
    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Fold the masks; says how many blocks are left."""
        blocks = 0
        for twins in cores(network).values():
            for mask in [m for m in twins[0].shaping if isinstance(m, BlockMask) and m in self._masks]:
                blocks += len(twins) * int(mask.keep.sum())
                fold(twins, mask)
        return {"blocks": blocks}
