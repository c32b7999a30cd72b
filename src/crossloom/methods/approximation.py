"""Approximation-aware training: train the coefficients of polynomials, not the weights.

V. Nehete et al., "Approximation-Aware Training for Efficient Neural Network Inference on MRAM Based CiM
Architecture", IEEE Open Journal of Nanotechnology 6, 2025. The inputs of a layer are cut into groups; within a group
every column's weights are a polynomial of the index, w_t = Σ_k c_k·p_k(t), so the crossbar holds the coefficients c_k
and the periphery feeds it the moments Σ_t p_k(t)·x_t. The approximated weights are never rebuilt.

    latent A (orthonormal basis) → change of basis → C → quantiser → C·P = W → convolution        (training)
    x → P x (moments) → Cᵀ(P x)                                                                    (chip)

Gradients of A have one size for every order, as A ↦ W keeps lengths. What is quantised is C, what the chip stores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.moments import ChangeOfBasis, Moments, projected, randomised
from crossloom.methods.patterns import by_pattern, record
from crossloom.methods.polynomials import Basis, Run, exact_growth, runs
from crossloom.methods.protocol import Method
from crossloom.nn import Conv2d, Linear, woven_layers

MAX_GROWTH = 16
"""Bits that exact moments may have beyond the inputs': 8-bit inputs make 24-bit moments."""

MAX_ROUNDED = 40
"""Bits by which the sums behind rounded moments may grow, so that they stay in int64 with inputs of 16 bits."""


class Setting(BaseModel):
    """How one layer's weights are approximated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    order: int = Field(default=1, ge=0)
    """Degree of the polynomial: 1 linear, 2 quadratic; order + 1 coefficients stand for a group."""

    group: int | Literal["kernel", "kernel-row"] = "kernel"
    """Inputs of a group: one channel's kernel, a row of it, or so many consecutive inputs (the last group of a layer
    may be shorter). Inputs are in the order of the unrolled weight: channel, kernel row, kernel column."""

    basis: Basis = "orthogonal"
    """Integer rows on the chip: `orthogonal` (discrete Chebyshev polynomials: least quantisation error and fewest
    bits), `index` (powers t^k, the paper's; the same span) or `cosine` (rounded cosines)."""

    growth: int | None = Field(default=None, ge=0, le=MAX_GROWTH)
    """Bits of the moments beyond those of the inputs; none: exact. Fewer than exact moments need: they are rounded."""

    def inputs(self, name: str, layer: Conv2d | Linear) -> int:
        """n for a layer.

        Raises:
            InputError: groups that the layer does not have, or an order that they cannot carry; says what would fit.
        """
        count = math.prod(layer.weight_shape[1:])
        field = f"approximation.{name}.group"
        if count < 2:
            raise InputError(field, self.group, f"no approximation: {name!r} has one input to a column")
        fits = f"consecutive inputs, 2 to {count}"
        if isinstance(self.group, int):
            n = self.group
            expected = f"{fits}, for {name!r}"
        elif isinstance(layer, Conv2d):
            height, width = layer.kernel_size
            n = height * width if self.group == "kernel" else width
            expected = f"{fits}: the kernel of {name!r} is {height}×{width}"
        else:
            n, expected = 0, f"{fits}: {name!r} is a linear layer, which has no kernel"
        if not 2 <= n <= count:
            raise InputError(field, self.group, expected)
        if self.order >= n:
            raise InputError(f"approximation.{name}.order", self.order, f"0 to {n - 1}, for groups of {n} inputs")
        return n

    def runs(self, name: str, layer: Conv2d | Linear) -> tuple[Run, ...]:
        """The groups of a layer.

        Raises:
            InputError: as in `inputs`; or sums that grow beyond `MAX_GROWTH` (exact) or `MAX_ROUNDED` bits.
        """
        n = self.inputs(name, layer)
        count = math.prod(layer.weight_shape[1:])
        most = MAX_GROWTH if self.growth is None else MAX_ROUNDED
        grown = [exact_growth(count, n, order, self.basis) for order in range(self.order + 1)]
        if grown[-1] > most:
            why = f"sums may grow by {most} bits, not by {grown[-1]}"
            fitting = [order for order, bits in enumerate(grown) if bits <= most]
            if not fitting:
                raise InputError(f"approximation.{name}.group", self.group, f"at most {1 << most} inputs: {why}")
            expected = f"at most {fitting[-1]} with groups of {n} inputs: {why}"
            raise InputError(f"approximation.{name}.order", self.order, expected)
        return runs(count, n, self.order, self.basis, self.growth)


class Approximation(Method):
    """Weave layers as polynomials over groups of their inputs.

    Args:
        layers: layer-name pattern → setting (or its fields); the first pattern that matches a layer decides, None
            leaves it dense, and so does no match.
        initialisation: `least-squares` from the present weights, or `random` with their mean square.
        seed: of random coefficients.

    Raises:
        InputError: an unknown field, or a value out of range.
    """

    name: ClassVar[str] = "approximation"
    recores: ClassVar[bool] = True

    def __init__(
        self,
        layers: Mapping[str, Setting | Mapping[str, Any] | None],
        initialisation: Literal["least-squares", "random"] = "least-squares",
        seed: int = 0,
    ) -> None:
        if initialisation not in ("least-squares", "random"):
            raise InputError.choice("approximation.initialisation", initialisation, ("least-squares", "random"))
        self.layers = {
            pattern: None if given is None else record(Setting, f"approximation.{pattern}", given)
            for pattern, given in layers.items()
        }
        self.initialisation, self.seed = initialisation, seed

    def settings(self, network: nn.Module) -> dict[str, Setting]:
        """The layers of a network that are to be woven, and how.

        Raises:
            InputError: a pattern that is no layer's name.
        """
        found = by_pattern("approximation.layers", self.layers, woven_layers(network))
        return {name: setting for name, setting in found.items() if setting is not None}

    def prepare(self, network: nn.Module) -> None:
        """Weave the layers; nothing is changed if one of them cannot be.

        Raises:
            InputError: groups, order or moments that a layer cannot carry (named, with what would fit); a layer that
                another method holds already.
        """
        layers = woven_layers(network)
        plans = {name: (setting, setting.runs(name, layers[name])) for name, setting in self.settings(network).items()}
        for name in plans:
            if layers[name].weave is not None or len(layers[name].shaping):
                expected = "a layer that no other method shapes yet: approximation comes first in a recipe"
                raise InputError(f"approximation.{name}", "woven or masked already", expected)
        twins = shared(layers)
        for name, (setting, _) in plans.items():
            if any(plans.get(twin, (None,))[0] != setting for twin in twins[name]):
                raise InputError(f"approximation.{name}", setting, f"one setting for {twins[name]}: they share weights")
        for name, (_, groups) in plans.items():
            if name == twins[name][0]:
                weight = nn.Parameter(self._coefficients(name, layers[name].weight.detach().flatten(1), groups))
                for twin in twins[name]:
                    weave(layers[twin], weight, groups)

    def _coefficients(self, name: str, weight: Tensor, groups: tuple[Run, ...]) -> Tensor:
        if self.initialisation == "least-squares":
            return projected(weight, groups)
        words = np.frombuffer(f"{self.seed}/{name}".encode(), np.uint8)
        seed = int(np.random.SeedSequence(words.tolist()).generate_state(1)[0])
        return randomised(weight, groups, torch.Generator().manual_seed(seed))

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Fold the change of basis into the weights; says how many rows each woven layer has and had."""
        rows: dict[str, list[int]] = {}
        layers = woven_layers(network)
        for twins in {tuple(names) for names in shared(layers).values()}:
            changes = [m for m in layers[twins[0]].shaping if isinstance(m, ChangeOfBasis)]
            for change in changes:
                with torch.no_grad():
                    layers[twins[0]].weight.copy_(change(layers[twins[0]].weight))
            for name in twins if changes else ():
                layer = layers[name]
                layer.shaping = nn.ModuleList(m for m in layer.shaping if not isinstance(m, ChangeOfBasis))
                rows[name] = [layer.weight.shape[1], math.prod(layer.weight_shape[1:])]
        return {"rows": rows}


def weave(layer: Conv2d | Linear, weight: nn.Parameter, groups: tuple[Run, ...]) -> None:
    """Put coefficients (orthonormal basis), change of basis and moments into a layer."""
    layer.weight = weight
    layer.shaping.append(ChangeOfBasis(groups).to(weight))
    layer.weave = Moments(groups).to(weight)


def shared(layers: Mapping[str, Conv2d | Linear]) -> dict[str, list[str]]:
    """For every layer the names of those that have its weights, itself among them, in order."""
    return {name: [other for other, m in layers.items() if m.weight is layer.weight] for name, layer in layers.items()}
