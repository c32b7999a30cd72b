"""ADMM: pruning and quantisation as constraints that training is pulled into, then met exactly.

    minimise f(W) subject to W ∈ S for every set S of the layer (structures P and levels Q)

    W ← argmin f + Σ_S ρ/2‖W − Y_S + U_S‖²     some epochs of any optimiser
    Y_S ← Π_S(W + U_S),  U_S ← U_S + W − Y_S   an update

then masked mapping: the structures are projected on, their zeros frozen, and the rest is trained with the levels in
the forward pass (straight-through: the optimiser moves a latent weight, the network sees its projection). The result
lies in every set to the bit.

Sources: Boyd et al., Foundations and Trends in ML 3(1), 2011 (the method, residuals, ρ); Yuan et al., arXiv 1908.11691
(for networks). This file knows torch modules only; `crossloom.methods.admm_callback` hangs it into Lightning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, fx, nn

from crossloom.errors import InputError
from crossloom.methods.admm_state import Residuals, Rho, Target, rho_from
from crossloom.methods.constraints import Constraint, constraint, intersected
from crossloom.methods.level_quantiser import LevelQuantiser
from crossloom.methods.levels import Levels
from crossloom.methods.moments import ChangeOfBasis
from crossloom.methods.patterns import by_pattern
from crossloom.methods.protocol import Method
from crossloom.methods.purification import Flow
from crossloom.nn import Conv2d, Linear

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

Spec = Constraint | Mapping[str, Any]
"""A set, or what a recipe says of one (`crossloom.methods.constraints.constraint`)."""


class ADMM(Method):
    """Pruning and quantisation by the alternating direction method of multipliers.

    In a Lightning loop of your own:

        admm = ADMM({"*": [Columns(keep=0.25), FixedPoint(bits=8)]})
        Trainer(max_epochs=12, callbacks=admm.callbacks()).fit(module, loader)
        admm.finish(module)

    Args:
        constraints: sets of every layer whose name matches a pattern (`conv*`, `*`); the first pattern that matches
            counts. A set is an object, or a mapping such as `{"set": "columns", "keep": 0.25}`.
        rho: the penalty's schedule.
        every: epochs, or a fraction of one, between updates, and between refits of the scales while retraining.
        retrain: share of the epochs that are masked retraining.
        restart: let the learning rate fall to zero by half a cosine in every period, then start again; else the
            loop's own schedule is left alone.
        flow: which layers make and read which channels: what others' zeros make useless is out of the choice at every
            update and goes when hardened. None: that of the network if `crossloom.convert` made it, else no such thing.
        purify: (few, weak) of `Flow.purify`, done when hardened; None: no channel goes but useless ones.
        teacher: distil from this network (Hinton et al., arXiv 1503.02531).
        distillation: share of the loss that the teacher has.
        temperature: of both networks' answers.

    Raises:
        InputError: no constraints, an unknown set, or a value out of range.
    """

    name: ClassVar[str] = "admm"
    prunes: ClassVar[bool] = True

    def __init__(
        self,
        constraints: Mapping[str, Sequence[Spec]],
        rho: Rho | Mapping[str, Any] | None = None,
        every: float = 1.0,
        retrain: float = 0.5,
        restart: bool = False,
        flow: Flow | None = None,
        purify: tuple[float, float] | None = None,
        teacher: nn.Module | None = None,
        distillation: float = 0.5,
        temperature: float = 4.0,
    ) -> None:
        if not constraints:
            raise InputError("admm.constraints", {}, "a pattern of layer names and its sets, at least one", "{'*': …}")
        self.constraints = {pattern: tuple(constraint(s) for s in sets) for pattern, sets in constraints.items()}
        if not every > 0:
            raise InputError("admm.every", every, "a positive number of epochs", "1.0")
        for name, share in (("retrain", retrain), ("distillation", distillation)):
            if not 0 <= share <= 1:
                raise InputError(f"admm.{name}", share, "a share from 0 to 1", str(min(max(share, 0.0), 1.0)))
        self.rho_schedule = rho if isinstance(rho, Rho) else rho_from(rho or {})
        self.rho = self.rho_schedule.start
        self.every, self.retrain, self.restart, self.flow = every, retrain, restart, flow
        self.teacher, self.distillation, self.temperature = teacher, distillation, temperature
        self.purify = purify
        self.still: list[tuple[Tensor, Tensor]] = []
        self.targets: list[Target] = []
        self.history: list[Residuals] = []
        self.updates = 0
        self._pull: list[Tensor] | None = None

    # -- Method -----------------------------------------------------------------------------------------------------

    def prepare(self, network: nn.Module) -> None:
        """Find the layers; woven ones get quantisers that keep the level sets' scales.

        Raises:
            InputError: a pattern without a layer, sets that do not go together, or an approximation that is not folded.
        """
        layers = {n: m for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
        constrained = by_pattern("admm.constraints", self.constraints, layers)
        if self.flow is None and isinstance(network, fx.GraphModule) and "example_shape" in network.meta:
            self.flow = Flow(network)
        if self.purify is not None and self.flow is None:
            raise InputError("admm.purify", self.purify, "none, or a converted network, whose graph is known", "None")
        self.targets = []
        for name, module in layers.items():
            found = [one.of(module.weight) for one in constrained.get(name, ())]
            levels = [s for s in found if isinstance(s, Levels)]
            if len(levels) > 1:
                raise InputError(f"admm.constraints.{name}", levels, "one level set a layer")
            target = Target(
                name, module, tuple(s for s in found if not isinstance(s, Levels)), levels[0] if levels else None
            )
            if target.levels is not None and isinstance(module, (Conv2d, Linear)):
                module.weight_quantiser = LevelQuantiser(target.levels, module)
                module.weight_quantiser.enabled = False
            if found and any(isinstance(s, ChangeOfBasis) and s.mixes for s in getattr(module, "shaping", ())):
                expected = "approximation in an earlier step: zeros of its coefficients are not zeros of the core yet"
                raise InputError(f"admm.constraints.{name}", "coefficients before their change of basis", expected)
            if found:
                self.targets.append(target)

    def callbacks(self) -> Sequence[Callback]:
        """The Lightning callback that runs the schedule."""
        from crossloom.methods.admm_callback import ADMMCallback

        return [ADMMCallback(self)]

    def extra_loss(self) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] | None:
        """Distillation, if there is a teacher."""
        if self.teacher is None or self.distillation == 0:
            return None
        from crossloom.methods.distillation import Distillation

        return Distillation(self.teacher, self.distillation, self.temperature)

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Put the projected weights in for good; says how many weights are left, and every set's residuals."""
        if not self.targets:
            self.prepare(network)
        if any(target.mask is None for target in self.targets):
            self.harden()
        with torch.no_grad():
            for target in self.targets:
                target.weight.copy_(target.mapped())
        kept = {t.name: int((t.weight != 0).sum()) for t in self.targets}
        dense = {t.name: t.weight.numel() for t in self.targets}
        residuals = [dict(vars(record)) for record in self.history]
        return {"kept": kept, "dense": dense, "updates": self.updates, "residuals": residuals}

    # -- the method -------------------------------------------------------------------------------------------------

    def pull(self) -> None:
        """Add the penalty's gradient Σ_S ρ(W − Y_S + U_S) to the weights' gradients, in place.

        Between updates Σ_S ρ(Y_S − U_S) does not change: two fused passes over the weights, whatever the sets.
        """
        if not self.targets[0].points:
            self._start()
        if self._pull is None:
            self._pull = [
                torch.stack([y - u for y, u in zip(t.points, t.duals, strict=True)]).sum(0).mul_(self.rho)
                for t in self.targets
            ]
        live = [
            (t.weight.detach(), t.weight.grad, p, len(t.sets))
            for t, p in zip(self.targets, self._pull, strict=True)
            if t.weight.grad is not None
        ]
        for count in {sets for *_, sets in live}:
            some = [(w, g, p) for w, g, p, sets in live if sets == count]
            weights, gradients, pulls = ([parts[i] for parts in some] for i in range(3))
            torch._foreach_add_(gradients, weights, alpha=self.rho * count)
            torch._foreach_sub_(gradients, pulls)

    @torch.no_grad()
    def _start(self) -> None:
        """Y = Π(W) and U = 0."""
        for target in self.targets:
            target.points = [s.project(target.weight) for s in target.sets]
            target.duals = [torch.zeros_like(target.weight) for _ in target.sets]

    @torch.no_grad()
    def update(self) -> list[Residuals]:
        """Move every Y and U, then ρ; the residuals of all sets."""
        if not self.targets[0].points:
            self._start()
        before = [t.points for t in self.targets]
        for target in self.targets:
            moved = [target.weight + u for u in target.duals]
            target.points = [s.project(w) for s, w in zip(target.sets, moved, strict=True)]
        if self.flow is not None:
            self._tied()
        found = []
        for target, old in zip(self.targets, before, strict=True):
            size = max(float(target.weight.norm()), 1e-30)
            for i, one in enumerate(target.sets):
                target.duals[i] += target.weight - target.points[i]
                primal = float((target.weight - target.points[i]).norm()) / size
                dual = self.rho * float((target.points[i] - old[i]).norm()) / size
                found.append(Residuals(self.updates, target.name, one.name, self.rho, primal, dual))
        self.history += found
        self.updates += 1
        mean = [sum(getattr(r, k) for r in found) / len(found) for k in ("primal", "dual")]
        rho = self.rho_schedule.after(self.rho, mean[0], mean[1])
        for target in self.targets:  # U is the multiplier over ρ, and the multiplier stays (Boyd et al., section 3.4.1)
            torch._foreach_mul_(target.duals, self.rho / rho)
        self.rho, self._pull = rho, None
        return found

    def _tied(self) -> None:
        """Project again, layer by layer, with the groups out of the choice that the other layers make useless."""
        assert self.flow is not None
        supports = {t.name: self._support(t) for t in self.targets}
        for target in self.targets:
            reach = self._reach(target, supports)
            for i, one in enumerate(target.structures):
                target.points[i] = one.project((target.weight + target.duals[i]) * reach)
            supports[target.name] = self._support(target)

    @staticmethod
    def _support(target: Target) -> Tensor:
        """1 where all structures have a weight, by their Y."""
        support = torch.ones_like(target.weight)
        for _, point in zip(target.structures, target.points, strict=False):
            support = support * (point != 0)
        return support

    def _reach(self, target: Target, supports: Mapping[str, Tensor]) -> Tensor:
        """1 where a weight of a layer has an input and a use, by the supports of the other layers."""
        assert self.flow is not None
        ones = {name: w.clone() for name, w in supports.items()}
        ones[target.name] = torch.ones_like(ones[target.name])
        self.flow.tie(ones)
        return ones[target.name]

    @torch.no_grad()
    def harden(self) -> None:
        """Masked mapping: project on the structures and freeze the zeros; fit the levels' scales.

        What is projected is W, whatever the duals have come to: where ρ is too small for W to follow them, Y = Π(W + U)
        is nowhere near W, and its zeros are not those that W can spare.
        """
        self._start()
        if self.flow is not None:
            self._tied()
        for target in self.targets:
            target.weight.copy_(intersected(target.structures, target.weight * self._support(target)))
        weights = {t.name: t.weight.data for t in self.targets}
        if self.flow is not None:
            if self.purify is not None:
                self.flow.purify(weights, *self.purify)
            self.flow.tie(weights)
        for target in self.targets:
            target.harden()
            target.points, target.duals = [], []
        self._pull = None
        self._silence()
        self.refit()

    def _silence(self) -> None:
        """Find what must stay 0 besides weights, and make it so."""
        self.still = []
        if self.flow is not None:
            self.still = self.flow.still({t.name: t.weight * t.mask for t in self.targets if t.mask is not None})
        self.freeze()

    @torch.no_grad()
    def freeze(self) -> None:
        """Keep the biases of removed filters at 0; after every step of the optimiser."""
        if self.still:
            torch._foreach_mul_([t for t, _ in self.still], [factor for _, factor in self.still])

    @torch.no_grad()
    def refit(self) -> None:
        """Fit the scales of the levels to the weights that are left."""
        for target in self.targets:
            if target.levels is None or target.mask is None:
                continue
            target.scale = target.levels.fit(target.left())
            self._tell(target)

    def _tell(self, target: Target) -> None:
        """Give a woven layer's quantiser its scale."""
        quantiser = getattr(target.module, "weight_quantiser", None)
        if isinstance(quantiser, LevelQuantiser) and target.scale is not None:
            quantiser.set(target.scale)

    @property
    def hardened(self) -> bool:
        """Whether masked retraining has begun."""
        return bool(self.targets) and self.targets[0].mask is not None

    @torch.no_grad()
    def show(self) -> None:
        """Let the network see the projected weights; the latent ones are put away. Again has no effect."""
        for target in self.targets:
            if target.latent is None:
                target.latent = target.weight.detach().clone()
                target.weight.copy_(target.mapped())

    @torch.no_grad()
    def hide(self) -> None:
        """Put the latent weights back; frozen zeros get no gradient."""
        for target in self.targets:
            if target.latent is not None:
                target.weight.copy_(target.latent)
                target.latent = None
                if target.weight.grad is not None and target.mask is not None:
                    target.weight.grad.mul_(target.mask)

    # -- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is not in the network, as plain containers and tensors."""
        kept = ("points", "duals", "mask", "bounds", "scale")
        layers = {t.name: {name: getattr(t, name) for name in kept} for t in self.targets}
        return {"layers": layers, "rho": self.rho, "updates": self.updates, "history": [vars(r) for r in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for target in self.targets:
            saved = state["layers"][target.name]
            place = target.weight.device
            target.points = [y.to(place) for y in saved["points"]]
            target.duals = [u.to(place) for u in saved["duals"]]
            target.mask, target.scale = (None if saved[k] is None else saved[k].to(place) for k in ("mask", "scale"))
            bounds = saved.get("bounds")
            target.bounds = None if bounds is None else (bounds[0].to(place), bounds[1].to(place))
            self._tell(target)
        if self.hardened:
            self._silence()
        self.rho, self.updates, self._pull = state["rho"], state["updates"], None
        self.history = [Residuals(**record) for record in state["history"]]
