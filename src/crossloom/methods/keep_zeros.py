"""Zeros stay zeros: what an earlier step pruned stays pruned while later steps train on.

Every weight of every core that is exactly 0 when the step begins is multiplied by 0 until it ends. Zeros of any shape
are kept: single weights, rows, columns, blocks. A core is what the cells hold, so that of an approximated or tied layer
it is coefficients and stored rows that stay zero.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossloom.methods.cores import cores, fold, pruned, refuse_binary, zeros
from crossloom.methods.protocol import Method


class WeightMask(nn.Module):
    """Multiplies every weight by 0 or 1.

    Args:
        keep: one flag per weight, in the latent weight's shape.
    """

    keep: Tensor

    def __init__(self, keep: Bool[Tensor, "outputs ..."]) -> None:
        super().__init__()
        self.register_buffer("keep", keep)

    def forward(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """The weight with its zeros."""
        return weight * self.keep


class KeepZeros(Method):
    """Weights that are exactly 0 stay 0 while training goes on. Cores without a zero are left alone."""

    name: ClassVar[str] = "keep-zeros"

    def prepare(self, network: nn.Module) -> None:
        """Put fixed masks in.

        Raises:
            InputError: pruned 1-bit weights: the chip's ±1 has no zero.
        """
        for name, twins in cores(network).items():
            if twins[0].weight_quantiser.bits == 1:
                if pruned(twins[0]):
                    refuse_binary(self.name, name, twins[0])
                continue
            gone = zeros(twins[0])
            if bool(gone.any()):
                mask = WeightMask(~gone)
                for layer in twins:
                    layer.shaping.append(mask)

    @torch.no_grad()
    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Fold the masks and take them out; says how many weights are not 0, of how many, by core and in all."""
        layers = {}
        for name, twins in cores(network).items():
            for mask in [m for m in twins[0].shaping if isinstance(m, WeightMask)]:
                fold(twins, mask)
            layers[name] = [int((twins[0].weight != 0).sum()), twins[0].weight.numel()]
        kept, weights = (sum(counts[i] for counts in layers.values()) for i in range(2))
        return {"kept": kept, "weights": weights, "layers": layers}
