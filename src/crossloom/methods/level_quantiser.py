"""The weight quantiser of a layer whose latent weight lies on a level set: it knows the scale, and fits none."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from crossloom.errors import InputError
from crossloom.methods.levels import Levels
from crossloom.nn import Conv2d, Linear, Quantised, QuantiserConfig, WeightQuantiser


class LevelQuantiser(WeightQuantiser):
    """Codes of a weight scale·code, a batch norm folded in: the codes stay, the step takes the norm's factor.

    Args:
        levels: the level set.
        layer: whose latent weight lies on it.
    """

    level_scale: Tensor
    layer: Conv2d | Linear

    def __init__(self, levels: Levels, layer: Conv2d | Linear) -> None:
        super().__init__(QuantiserConfig(bits=levels.bits, per_channel=levels.per_channel))
        self.__dict__["layer"] = layer  # a reference, not a child: the layer holds this quantiser
        self.levels = levels
        shape = (layer.weight.shape[0], *[1] * (layer.weight.dim() - 1)) if levels.per_channel else ()
        self.register_buffer("level_scale", torch.full(shape, levels.scale or 1.0, dtype=torch.float64))

    def set(self, scale: Float[Tensor, "..."]) -> None:
        """Take a scale from the level set's `fit`; from now on the layer counts as quantised."""
        self.level_scale.copy_(scale)
        self.enabled = True

    def step(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(scale times the size of the folded batch norm's factor, 0); broadcasts against w."""
        factor = self.layer.norm_scale()
        step = self.level_scale.to(w.dtype)
        if factor is not None:
            step = step * factor.detach().abs().to(w.dtype).view(-1, *[1] * (w.dim() - 1))
        return step, torch.zeros((), dtype=w.dtype, device=w.device)

    def forward(
        self, w: Float[Tensor, "outputs ..."], grid: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "outputs ..."]:
        """The weight itself: it lies on the levels already."""
        return w

    def quantise(self, w: Float[Tensor, "outputs ..."]) -> Quantised:
        """The codes.

        Raises:
            InputError: the weight is not on the levels.
        """
        step, _ = self.step(w)
        x = w.detach().double() / step.double()
        codes = torch.round(x)
        if bool(((x - codes).abs() > 1e-3).any()) or not bool(torch.isin(codes.abs(), self.levels.codes.abs()).all()):
            raise InputError("admm", "weights off their levels", "ADMM.finish(network) to have run before lowering")
        return Quantised(codes.long(), step.detach().double().reshape(-1), 0, self.bits)
