"""Errors of sampled reads: what weights deviate by, and their rounding as one normal number, in the layer's product.

The error is detached from the gradient (CRIMP, step 5), yet costs no product of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crossloom.methods.cell_draws import Normals
from crossloom.nn import Conv2d, Linear


@dataclass(frozen=True)
class SampledError:
    """What the arrays of a run add to its product, in real units.

    Attributes:
        kernels: what the effective weights deviate by, in the shape of the layer's weight.
        shift: what every output gets besides where inputs have a zero point, or None.
        deviation: standard deviation of the rounding of all reads of an output; one has the variance 1/12.
    """

    kernels: Float[Tensor, "outputs inputs ..."]
    shift: Float[Tensor, " outputs"] | None
    deviation: Float[Tensor, " outputs"]

    def rounded(self, y: Tensor, normals: Normals) -> Tensor:
        """y, (B, outputs, H, W) or (…, outputs), with the rounding."""
        worth = self.deviation.view(-1, 1, 1) if y.dim() == 4 else self.deviation
        return torch.addcmul(y, normals(y), worth.to(y.dtype))

    def error(self, layer: Conv2d | Linear, x: Tensor, groups: tuple[int, int], normals: Normals) -> Tensor:
        """The error that an input gives, in real units.

        Args:
            layer: whose arrays they are.
            x: its whole input, (B, C, H, W) or (…, inputs), real units.
            groups: first and one past the last of the run's.
            normals: where the rounding comes from.

        Returns:
            (B, outputs of the run, H', W') or (…, outputs).
        """
        if isinstance(layer, Linear):
            return self.rounded(F.linear(x, self.kernels, self.shift), normals)
        width = layer.in_channels // layer.groups
        part = x[:, groups[0] * width : groups[1] * width] if layer.groups > 1 else x
        added = F.conv2d(part, self.kernels, self.shift, layer.stride, layer.padding, layer.dilation)
        return self.rounded(added, normals)


def deviating(
    layer: Conv2d | Linear, x: Tensor, weight: Tensor, bias: Tensor | None, error: SampledError, normals: Normals
) -> Tensor:
    """x·(weight + kernels) + bias + shift + rounding in one product, with the gradients of x·weight + bias.

    What autograd keeps of the deviating weight for the backward pass is the tensor itself; the weight as it should be
    is written back into it behind the forward pass.

    Args:
        layer: without groups.
        x: its input, (B, C, H, W) or (…, inputs), real units.
        weight: its effective weight, (outputs, inputs, …), real units.
        bias: (outputs,), or None.
        error: of its one run, from the same weight.
        normals: where the rounding comes from.
    """
    held = weight + error.kernels
    if torch.is_autocast_enabled(x.device.type):  # the product's own cast would be another tensor
        held = held.to(torch.get_autocast_dtype(x.device.type))
    if error.shift is not None:
        bias = error.shift if bias is None else bias + error.shift
    y = layer._apply_layer(x, held, bias)
    if held.requires_grad:
        held.data.copy_(weight.detach())
    return error.rounded(y, normals)
