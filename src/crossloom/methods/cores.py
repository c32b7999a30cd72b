"""The cores of a network as pruning sees them: who shares one, which can hold a zero, and how a mask is folded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.moments import ChangeOfBasis
from crossloom.nn import Conv2d, Linear, woven_layers

STRAY = 1e-3
"""Share of exact zeros in a core up to which they are chance and not the work of a pruning method."""


def cores(network: nn.Module) -> dict[str, list[Conv2d | Linear]]:
    """The layers of a network by the latent weight that they share, under the name of the first."""
    found: dict[int, str] = {}
    shared: dict[str, list[Conv2d | Linear]] = {}
    for name, layer in woven_layers(network).items():
        shared.setdefault(found.setdefault(id(layer.weight), name), []).append(layer)
    return shared


def is_grouped(layer: Conv2d | Linear) -> bool:
    """Whether a layer is a grouped convolution, whose groups are cores of their own."""
    return isinstance(layer, Conv2d) and layer.groups > 1


def grouped(network: nn.Module) -> list[str]:
    """The names of grouped convolutions, which pruning of whole blocks leaves alone."""
    return [name for name, layer in woven_layers(network).items() if is_grouped(layer)]


def zeros(layer: Conv2d | Linear) -> Bool[Tensor, "outputs ..."]:
    """Which weights of a core are exactly 0."""
    return layer.latent().detach() == 0


def pruned(layer: Conv2d | Linear) -> bool:
    """Whether a method has left zeros in a core: more than `STRAY` of it."""
    return float(zeros(layer).float().mean()) > STRAY


def refuse_binary(method: str, name: str, layer: Conv2d | Linear) -> None:
    """Refuse to keep zeros in a core that cannot hold one.

    Raises:
        InputError: ±1 weights, a latent 0 of which is +1 on the chip.
    """
    if layer.weight_quantiser.bits == 1:
        raise InputError(
            f"{method}.{name}", "1-bit weights", "weights of 2 bits or more: ±1 has no zero, so nothing can be pruned"
        )


@torch.no_grad()
def fold(layers: Sequence[Conv2d | Linear], mask: nn.Module) -> None:
    """Multiply an elementwise mask into the latent weight that `layers` share, and take it out of their shaping.

    Raises:
        InputError: a shaping before it that mixes weights (an approximation's change of basis) and is not folded yet.
    """
    before = list(layers[0].shaping)[: list(layers[0].shaping).index(mask)]
    if any(isinstance(shape, ChangeOfBasis) and shape.mixes for shape in before):
        raise InputError("masks", "coefficients before their change of basis", "Approximation.finish to come first")
    layers[0].weight.copy_(mask(layers[0].weight))
    for layer in layers:
        layer.shaping = nn.ModuleList(shape for shape in layer.shaping if shape is not mask)


@torch.no_grad()
def clip(layer: Conv2d | Linear) -> None:
    """Bring a core under a fixed step s and b bits into ±s·2^(b−1), what its codes can hold; others are left alone.

    Under an approximation that is not folded yet the core is clipped and not its coefficients in the orthonormal basis.
    """
    config = layer.weight_quantiser.config
    if config.fixed_step is None:
        return
    bound = config.fixed_step * 2.0 ** (config.bits - 1)
    change = next(iter(layer.shaping), None)
    if not isinstance(change, ChangeOfBasis):
        layer.weight.clamp_(-bound, bound)
        return
    core = change(layer.weight)
    outside = core.abs() > bound
    if bool(outside.any()):
        layer.weight.add_(change.inverse(core.clamp(-bound, bound) - core))
