"""Drop-in `Conv2d` and `Linear` whose weight is woven.

    latent weight → shaping (masks, constraints) → batch-norm scale → quantiser → Pᵀ → convolution

In training and in float the layer runs as one ordinary convolution with W_eff = Pᵀ·fakequant(C); on the chip it
runs as Cᵀ(P x). Co-design methods hang on three hooks and nothing else: `shaping`, `weave` and `disturbance`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crossloom.nn.quantisers import Quantiser, QuantiserConfig, WeightQuantiser, round_half_up
from crossloom.weave import InputTransform


class Weave(Protocol):
    """How a core stands for a weight: the training face of an input transform P.

    An implementation is an `nn.Module`; the approximation methods are the model.
    """

    def expand(self, core: Float[Tensor, "outputs rows"]) -> Float[Tensor, "outputs inputs"]:
        """W = C·P for one group's P (rows × inputs), differentiable."""
        ...

    def transform(self, groups: int) -> InputTransform:
        """P over the whole input vector of a layer with `groups` groups."""
        ...


@runtime_checkable
class Reads(Protocol):
    """A disturbance of the product rather than of the weight: it knows the layer's input.

    An implementation is an `nn.Module` that leaves the weight as it is; the runtime simulator is the model.
    """

    def product(
        self, layer: WovenMixin, x: Float[Tensor, "B ..."], weight: Float[Tensor, "outputs ..."], bias: Tensor | None,
        divisor: Float[Tensor, " outputs"] | None,
    ) -> Tensor:  # fmt: skip
        """The product of the layer's input x and effective weight, plus bias, as the arrays return it.

        Args:
            layer: whose effective weight was computed last with this disturbance in it.
            x: its input.
            weight: its effective weight over the divisor.
            bias: added to the product, or None.
            divisor: of every output, that what the arrays add is divided by as well; None: 1.
        """
        ...


class WovenMixin(nn.Module):
    """What `Conv2d` and `Linear` share.

    Attributes:
        weight: the latent core. Its shape is that of the torch layer until a method weaves it; then (N, R).
        shaping: modules applied in order to the latent weight (masks, crossbar masks).
        weave: P's training face, or None for the identity.
        disturbance: a module applied to the quantised weight in the forward pass (noise), or None; one that also
            follows `Reads` acts on the product.
        norm: a batch norm that follows the layer and is folded into it, or None.
        weight_quantiser: fake quantisation of the core.
        input_quantiser: the quantiser that makes this layer's input; gives the bias its grid.
    """

    weight_quantiser: WeightQuantiser

    def _init_woven(self, config: QuantiserConfig) -> None:
        self.weight_quantiser = WeightQuantiser(config)
        self.shaping = nn.ModuleList()
        self.weave: nn.Module | None = None
        self.disturbance: nn.Module | None = None
        self.norm: nn.modules.batchnorm._BatchNorm | None = None
        # A reference, not a child: the quantiser belongs to the network.
        object.__setattr__(self, "input_quantiser", None)

    def latent(self) -> Float[Tensor, "outputs ..."]:
        """The latent weight after shaping."""
        weight = cast(Tensor, self.weight)
        for shape in self.shaping:
            weight = shape(weight)
        return weight

    def norm_scale(self) -> Float[Tensor, " outputs"] | None:
        """γ/√(σ² + ε) of the folded batch norm, kept away from 0; None without one."""
        if self.norm is None:
            return None
        norm = self.norm
        assert norm.running_var is not None
        deviation = torch.sqrt(norm.running_var + norm.eps)
        gamma = norm.weight if norm.weight is not None else torch.ones_like(deviation)
        scale = gamma / deviation
        return torch.where(scale.abs() < 1e-8, torch.full_like(scale, 1e-8), scale)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """(core, bias) with the batch norm folded in by its running statistics."""
        core, bias, scale = self.latent(), cast(Tensor | None, self.bias), self.norm_scale()
        if scale is None or self.norm is None:
            return core, bias
        assert self.norm.running_mean is not None
        core = core * scale.view(-1, *[1] * (core.dim() - 1))
        shift = -self.norm.running_mean if bias is None else bias - self.norm.running_mean
        beta = self.norm.bias if self.norm.bias is not None else torch.zeros_like(scale)
        return core, beta + shift * scale

    def expand(self, core: Tensor) -> Tensor:
        """W_eff of a core, in the torch layer's weight shape."""
        if self.weave is None:
            return core
        return cast(Weave, self.weave).expand(core.flatten(1)).view(self.weight_shape)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of W_eff."""
        raise AttributeError("weight_shape belongs to Conv2d and Linear")

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """(W_eff, bias) as the forward pass uses them: folded, quantised, disturbed, woven."""
        core, bias = self.folded()
        grid = self.weight_quantiser.step(core) if self.weight_quantiser.enabled else None
        quantised = self.weight_quantiser(core, grid)
        bias = self._quantise_bias(bias, grid)
        if self.disturbance is not None:
            quantised = self.disturbance(quantised)
        return self.expand(quantised), bias

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None, divisor: Tensor | None = None) -> Tensor:
        """The layer's product, as a disturbance that knows the input (`Reads`) returns it."""
        if isinstance(self.disturbance, Reads):
            return self.disturbance.product(self, x, weight, bias, divisor)
        return self._apply_layer(x, weight, bias)

    def _quantise_bias(self, bias: Tensor | None, grid: tuple[Tensor, Tensor] | None) -> Tensor | None:
        """The bias on the accumulator's grid s_x·s_w, as the program holds it; `grid` is that of the weights."""
        source = cast(Quantiser | None, self.__dict__.get("input_quantiser"))
        if bias is None or grid is None or source is None or source.observing:
            return bias
        step = (grid[0].detach().reshape(-1) * source.step().detach()).to(bias.dtype)
        return round_half_up(bias / step) * step

    def _apply_layer(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise AttributeError("_apply_layer belongs to Conv2d and Linear")

    def forward(self, x: Tensor) -> Tensor:
        """The layer, with its batch norm if it has one.

        While training with a batch norm, the convolution runs with the folded, quantised weight; it is divided by
        the folded scale again and normalised with the batch's own statistics (Krishnamoorthi, arXiv 1806.08342,
        section 3.2.2): one convolution, and evaluation equals the folded integer layer. It is the weight that is
        divided, which is small, and not the product.
        """
        weight, bias = self.__dict__.get("held") or self.effective()
        if self.norm is None or not self.norm.training:
            return self._product(x, weight, bias)
        scale = self.norm_scale()
        assert scale is not None
        divided = weight / scale.view(-1, *[1] * (weight.dim() - 1))
        y = self._product(x, divided, cast(Tensor | None, self.bias), scale)
        normalised: Tensor = self.norm(y)
        return normalised


class Conv2d(WovenMixin, nn.Conv2d):
    """`torch.nn.Conv2d` with a woven weight.

    Args:
        args: as for `torch.nn.Conv2d` (zero padding only).
        weights: the weight quantiser's configuration.
        kwargs: as for `torch.nn.Conv2d`.
    """

    def __init__(self, *args: Any, weights: QuantiserConfig | None = None, **kwargs: Any) -> None:
        nn.Conv2d.__init__(self, *args, **kwargs)
        self._init_woven(weights or QuantiserConfig(per_channel=True))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(C_out, C_in/groups, k_h, k_w)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def _apply_layer(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class Linear(WovenMixin, nn.Linear):
    """`torch.nn.Linear` with a woven weight.

    Args:
        args: as for `torch.nn.Linear`.
        weights: the weight quantiser's configuration.
        kwargs: as for `torch.nn.Linear`.
    """

    def __init__(self, *args: Any, weights: QuantiserConfig | None = None, **kwargs: Any) -> None:
        nn.Linear.__init__(self, *args, **kwargs)
        self._init_woven(weights or QuantiserConfig(per_channel=True))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(out_features, in_features)."""
        return (self.out_features, self.in_features)

    def _apply_layer(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


@contextmanager
def held_weights(module: nn.Module) -> Iterator[None]:
    """Inside the block every woven layer computes its effective weight once: for many passes with fixed weights."""
    layers = woven_layers(module).values()
    try:
        for layer in layers:
            layer.__dict__["held"] = layer.effective()
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("held", None)


def hold_again(module: nn.Module, layer: Conv2d | Linear) -> None:
    """Inside `held_weights`: a layer's weight has changed, so compute what it and layers that share it hold anew."""
    for other in woven_layers(module).values():
        if other.weight is layer.weight:
            other.__dict__["held"] = other.effective()


class MatrixWeave(nn.Module):
    """A weave with a fixed integer matrix P, the same for every group.

    Args:
        transform: P of one group, linear (no rounding stage).
    """

    matrix: Tensor

    def __init__(self, transform: InputTransform) -> None:
        super().__init__()
        if not transform.is_linear:
            raise ValueError("weave: a transform with rounding stages has no exact training face")
        self.one = transform
        self.register_buffer("matrix", torch.from_numpy(transform.matrix().toarray()).float(), persistent=False)

    def expand(self, core: Float[Tensor, "outputs rows"]) -> Float[Tensor, "outputs inputs"]:
        """C·P."""
        return core @ self.matrix

    def transform(self, groups: int) -> InputTransform:
        """P repeated for every group."""
        return self.one.repeated(groups)


def woven_layers(module: nn.Module) -> dict[str, Conv2d | Linear]:
    """The woven layers of a network by name, in registration order."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, (Conv2d, Linear))}
