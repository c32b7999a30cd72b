"""Kernel-group pruning (CRIMP, step 2): whole groups of kernels go, as many as fill an array's weight columns.

A kernel's importance is |γ| of its batch norm. A layer without batch norm (LeNet-5) gets a trainable scale per kernel
in its place, started at the kernel's norm relative to its layer's so that the first ranking means something; the
weights are divided by it (or, under a quantiser of fixed range, the scale by its start), and the network computes the
same. Importances are ranked over the whole network; then the
kept number of kernels of each layer is rounded to a multiple of the array's weight columns, never 0. Layers with fewer
kernels than that keep all: their array is needed anyway. Kernels that a skip path ties share one importance, the mean
of theirs (the paper does not say how), and go together.

A kernel with γ = 0 still emits its shift β (or, without batch norm, its bias). Both are zeroed, so the channel is 0
and the next layer's rows go with it, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.channels import Ties, shrink, ties
from crossloom.methods.cores import refuse_binary
from crossloom.methods.protocol import Method
from crossloom.nn import Conv2d, Linear, woven_layers


class KernelScale(nn.Module):
    """γ of a layer without batch norm: multiplies each kernel of the latent weight.

    Args:
        scale: (outputs,), the first values.
        unit: (outputs,), what γ is divided by before it multiplies; None: nothing.
    """

    unit: Tensor

    def __init__(self, scale: Float[Tensor, " outputs"], unit: Float[Tensor, " outputs"] | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.clone())
        self.register_buffer("unit", torch.ones_like(scale) if unit is None else unit.clone())

    def forward(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """γ·W."""
        return weight * (self.scale / self.unit).view(-1, *[1] * (weight.dim() - 1))


def gamma(layer: Conv2d | Linear) -> nn.Parameter | None:
    """What plays γ: the batch norm's weight, else the kernel scale; None without either."""
    if layer.norm is not None and isinstance(layer.norm.weight, nn.Parameter):
        return layer.norm.weight
    return next((m.scale for m in layer.shaping if isinstance(m, KernelScale)), None)


def shift(layer: Conv2d | Linear) -> nn.Parameter | None:
    """What a kernel emits when γ is 0: β of the batch norm, else the layer's bias."""
    if layer.norm is not None and isinstance(layer.norm.weight, nn.Parameter):
        return layer.norm.bias
    return cast(nn.Parameter | None, layer.bias)


def aligned(count: int, kernels: int, columns: int) -> int:
    """`count` of a layer's kernels rounded to a multiple of `columns`: never 0, never more than fit; all if few."""
    if kernels <= columns:
        return kernels
    return min(max(round(count / columns), 1), kernels // columns) * columns


def chosen(found: Ties, scores: dict[int, float], keep: float, columns: int) -> set[int]:
    """The classes of kernels to take out.

    Args:
        found: the network's ties.
        scores: importance of every class that may go.
        keep: share of these classes over the threshold, ranked over the whole network.
        columns: weight columns of an array.
    """
    ranked = sorted(scores, key=lambda c: scores[c], reverse=True)
    above = set(ranked[: max(1, round(keep * len(ranked)))])
    stay, gone = set(found.frozen), set[int]()
    for classes in sorted((set(c) for c in found.outputs.values()), key=len):
        open_ = sorted(classes - stay - gone, key=lambda c: scores[c], reverse=True)
        fixed = classes & stay
        if not open_:
            continue
        target = aligned(len(fixed) + len(above & set(open_)), len(classes), columns)
        while target < len(fixed):
            target += columns
        stay.update(open_[: target - len(fixed)])
        gone.update(open_[target - len(fixed) :])
    return gone


class KernelGroups(Method):
    """Zero-and-recover pruning of kernel groups.

    Args:
        keep: share of the kernels over the global threshold, 0 < keep ≤ 1, before rounding to groups.
        columns: weight columns of an array (32 on the default chip).
        start: epoch s of Algorithm 1 as a fraction of the phase.
        penalty: λ of the L1 pull on γ.

    Raises:
        InputError: a share outside (0, 1], or fewer than one column.
    """

    name: ClassVar[str] = "kernel-groups"

    def __init__(self, keep: float, columns: int = 32, start: float = 0.2, penalty: float = 1e-4) -> None:
        if not 0 < keep <= 1:
            raise InputError("kernel-groups.keep", keep, "a fraction above 0 and at most 1")
        if columns < 1:
            raise InputError("kernel-groups.columns", columns, "at least 1")
        self.keep, self.columns, self.start, self.penalty = keep, columns, start, penalty
        self._network: nn.Module | None = None
        self._ties: Ties | None = None

    @torch.no_grad()
    def prepare(self, network: nn.Module) -> None:
        """Find the ties; give layers without batch norm their scales.

        Raises:
            InputError: 1-bit weights, which have no zero.
        """
        self._network, self._ties = network, ties(network)
        for name, layer in woven_layers(network).items():
            prunable = any(c not in self._ties.frozen for c in self._ties.outputs.get(name, ()))
            if prunable and gamma(layer) is None:
                norms = layer.latent().detach().flatten(1).norm(dim=1)
                scale = (norms / norms.mean().clamp_min(1e-12)).clamp_min(1e-3)
                refuse_binary(self.name, name, layer)
                if layer.weight_quantiser.config.range == "fixed":
                    layer.shaping.append(KernelScale(scale, scale))
                    continue
                layer.weight.div_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
                layer.shaping.append(KernelScale(scale))

    def importances(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """Every γ."""
        return [g for layer in woven_layers(network).values() if (g := gamma(layer)) is not None]

    def gone(self, network: nn.Module) -> set[int]:
        """The classes under their layers' thresholds now."""
        assert self._ties is not None, "prepare first"
        found = {name: gamma(layer) for name, layer in woven_layers(network).items()}
        scales = {name: g.detach().abs().tolist() for name, g in found.items() if g is not None}
        scores = {
            c: sum(scales[name][i] for name, i in members) / len(members) for c, members in self._ties.kernels.items()
        }
        return chosen(self._ties, scores, self.keep, self.columns) if scores else set()

    @torch.no_grad()
    def zero(self, network: nn.Module) -> None:
        """γ and β of the least important kernels to 0."""
        assert self._ties is not None, "prepare first"
        gone, layers = self.gone(network), woven_layers(network)
        for name, classes in self._ties.outputs.items():
            dead = torch.tensor([c in gone for c in classes])
            for value in (gamma(layers[name]), shift(layers[name])):
                if value is not None and bool(dead.any()):
                    value[dead.to(value.device)] = 0.0

    def callbacks(self) -> Sequence[Any]:
        """Algorithm 1 on γ."""
        from crossloom.methods.zero_recover import ZeroAndRecover

        assert self._network is not None, "prepare first"
        return (ZeroAndRecover(self._network, self, self.start, self.penalty),)

    @torch.no_grad()
    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Take the kernels and the next layers' input channels out, fold the scales; says what stays of what."""
        assert self._ties is not None, "prepare first"
        before = {name: m.weight.shape[0] for name, m in woven_layers(network).items()}
        self.zero(network)
        shrink(network, self._ties, self.gone(network))
        for layer in woven_layers(network).values():
            for scale in [m for m in layer.shaping if isinstance(m, KernelScale)]:
                layer.weight.copy_(scale(layer.weight))
                layer.shaping = nn.ModuleList(m for m in layer.shaping if m is not scale)
        return {"kernels": {n: (m.weight.shape[0], before[n]) for n, m in woven_layers(network).items()}}
