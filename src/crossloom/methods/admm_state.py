"""What ADMM keeps of a layer and of its progress: the penalty's schedule, residuals, points, duals and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.constraints import Constraint
from crossloom.methods.levels import Levels


@dataclass(frozen=True)
class Rho:
    """The penalty's weight: multiplied at every update, up to a limit.

    Attributes:
        start: of the first period, 1/(units of W² per unit of loss). Typical: 1e-4 to 1e-3.
        factor: at every update. Typical: 1.2 to 2.
        limit: never above. Typical: 0.9.
        balance: only grow while the primal residual is more than this many times the dual one (Boyd et al., section
            3.4.1, take 10); None: always.
    """

    start: float = 1e-3
    factor: float = 1.6
    limit: float = 0.9
    balance: float | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: not 0 < start ≤ limit, a factor below 1, or a balance that is not positive.
        """
        if not 0 < self.start <= self.limit:
            raise InputError("admm.rho.start", self.start, f"above 0 and at most the limit {self.limit}", "0.001")
        if self.factor < 1:
            raise InputError("admm.rho.factor", self.factor, "at least 1", "1.6")
        if self.balance is not None and self.balance <= 0:
            raise InputError("admm.rho.balance", self.balance, "a positive number, or none", "10.0")

    def after(self, rho: float, primal: float, dual: float) -> float:
        """ρ after an update with these residuals."""
        grows = self.balance is None or primal > self.balance * dual
        return min(rho * self.factor, self.limit) if grows else rho


@dataclass(frozen=True)
class Residuals:
    """Of one set of one layer after one update, relative to ‖W‖.

    Attributes:
        update: number of the update, from 0.
        layer: name.
        constraint: the set's name.
        rho: of the period that ended.
        primal: ‖W − Y‖/‖W‖, how far the weight is from the set.
        dual: ρ‖Y − Y_before‖/‖W‖, how far the point of the set moved.
    """

    update: int
    layer: str
    constraint: str
    rho: float
    primal: float
    dual: float


@dataclass(eq=False)
class Target:
    """A constrained layer.

    Attributes:
        name: of the module.
        module: anything with a `weight`.
        structures, levels: its sets, structures first.
        points: Y of every set.
        duals: U of every set, scaled.
        mask: what the structures left, from `harden` on.
        bounds: lowest and highest values that keep what is left in the structures, from `harden` on; None: any do.
        scale: of the levels, from `harden` on.
        latent: the optimiser's weight while the network sees the projected one.
    """

    name: str
    module: nn.Module
    structures: tuple[Constraint, ...]
    levels: Levels | None
    points: list[Tensor] = field(default_factory=list)
    duals: list[Tensor] = field(default_factory=list)
    mask: Tensor | None = None
    bounds: tuple[Tensor, Tensor] | None = None
    scale: Tensor | None = None
    latent: Tensor | None = None

    @property
    def sets(self) -> tuple[Constraint, ...]:
        """All sets, the levels last."""
        return self.structures + (() if self.levels is None else (self.levels,))

    @property
    def weight(self) -> nn.Parameter:
        """The layer's weight."""
        found = self.module.weight
        assert isinstance(found, nn.Parameter)
        return found

    def harden(self) -> None:
        """Take mask and bounds from the weight as it is."""
        self.mask = self.weight.detach() != 0
        found = [pair for one in self.structures if (pair := one.bounds(self.weight.detach())) is not None]
        self.bounds = None
        if found:
            lows, highs = zip(*found, strict=True)
            self.bounds = reduce(torch.maximum, lows), reduce(torch.minimum, highs)

    def mapped(self) -> Tensor:
        """The weight with its mask, within its bounds, on its levels."""
        weight = self.left()
        return weight if self.levels is None or self.scale is None else self.levels.at(weight, self.scale)

    def left(self) -> Tensor:
        """The weight with its mask, within its bounds."""
        assert self.mask is not None
        weight = self.weight.detach() * self.mask
        return weight if self.bounds is None else weight.clamp(*self.bounds)


def rho_from(given: Mapping[str, Any]) -> Rho:
    """A schedule from what a recipe says.

    Raises:
        InputError: an unknown field.
    """
    for name in given:
        if name not in Rho.__dataclass_fields__:
            raise InputError.choice("admm.rho", name, Rho.__dataclass_fields__)
    return Rho(**given)
