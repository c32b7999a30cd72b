"""The budget mode: sets for every layer, so that a chip's cost meets a target with the least harm to the answers.

Every layer has a ladder of settings, from gentle to harsh: a share of filter shapes kept and a width of the weights.
The harm of a setting is measured, not modelled: the loss on a few batches with that layer alone projected. Then the
gentlest plan is made harsher leap by leap, always by the one that saves most cost for the harm it adds, until the
target is met. What a plan costs is asked of a function (a method knows nothing of chips); `crossloom.codesign.budget`
gives one for any chip and target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.constraints import Columns, Constraint, intersected
from crossloom.methods.levels import FixedPoint, Levels, PowerOfTwo
from crossloom.nn import Prefix, held_weights, hold_again, woven_layers

KEEPS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
"""Shares of filter shapes that are tried."""

FORMATS = ("fixed-point:8", "fixed-point:6", "fixed-point:5", "fixed-point:4", "power-of-two:4")
"""Formats that are tried, `set:bits`."""

AS_IS = "as-is"
"""No level set: the layer's own quantiser stays. For networks that another method has quantised."""


@dataclass(frozen=True)
class Setting:
    """What is asked of one layer.

    Attributes:
        keep: share of its filter shapes.
        format: of its weights, `fixed-point:<bits>`, `power-of-two:<bits>`, or `as-is` for what they have.
    """

    keep: float = 1.0
    format: str = FORMATS[0]

    @property
    def bits(self) -> int:
        """Width of the weights' integer codes; 1 where it is left as it is, the same for every setting then."""
        return next((s.bits for s in self.sets() if isinstance(s, Levels)), 1)

    def sets(self) -> list[Constraint]:
        """The constraint sets.

        Raises:
            InputError: an unknown format.
        """
        kind, _, bits = self.format.partition(":")
        known = {"fixed-point": FixedPoint, "power-of-two": PowerOfTwo}
        if self.format != AS_IS and (kind not in known or not bits.isdigit()):
            raise InputError.choice("budget.format", self.format, (*FORMATS, AS_IS))
        structure: list[Constraint] = [Columns(self.keep)] if self.keep < 1 else []
        return structure if self.format == AS_IS else [*structure, known[kind](int(bits))]


LEAST_HARM = 1e-4
"""Added to every harm, so that of harmless steps the one that saves most comes first."""

Plan = dict[str, Setting]
Cost = Callable[[Mapping[str, list[Constraint]]], float]
"""Sets by layer → what the network then costs on the chip, in the target's unit."""


@dataclass(frozen=True)
class Found:
    """A plan that meets the target.

    Attributes:
        plan: setting of every layer.
        cost: of the plan.
        dense: cost of the gentlest plan.
        harm: sum of the measured losses added by its layers, one at a time.
        steps: how often the plan was made harsher.
    """

    plan: Plan
    cost: float
    dense: float
    harm: float
    steps: int

    @property
    def sets(self) -> dict[str, list[Constraint]]:
        """The constraints for `ADMM`."""
        return {name: setting.sets() for name, setting in self.plan.items()}


@torch.no_grad()
def harms(
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    settings: Sequence[Setting],
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[Setting, float]]:
    """The loss that every setting of every layer adds, all other layers left alone.

    Args:
        network: converted, or any module with woven layers.
        batches: (images, labels).
        settings: to try.
        loss: (logits, labels) → scalar.
        tick: told (done, total) after every setting.
    """
    network.eval()
    prefix = Prefix(network, [x for x, _ in batches])

    def total() -> float:
        logits = zip(prefix.outputs(), batches, strict=True)
        return sum(float(loss(z, y)) * len(y) for z, (_, y) in logits) / sum(len(y) for _, y in batches)

    found, layers = dict[str, dict[Setting, float]](), woven_layers(network)
    with held_weights(network):
        base = total()
        for name, layer in layers.items():
            prefix.move_to(name)
            weight = layer.weight.detach().clone()
            found[name] = {}
            for setting in settings:
                layer.weight.copy_(intersected(setting.sets(), weight))
                hold_again(network, layer)
                found[name][setting] = max(total() - base, 0.0)
                tick(sum(map(len, found.values())), len(layers) * len(settings))
            layer.weight.copy_(weight)
            hold_again(network, layer)
    return found


def ladders(measured: Mapping[str, Mapping[Setting, float]]) -> dict[str, list[tuple[Setting, float]]]:
    """Per layer, the settings by growing harm, none kept that is gentler and no less harmful than another."""

    def size(setting: Setting) -> float:
        return setting.keep * setting.bits

    found: dict[str, list[tuple[Setting, float]]] = {}
    for name, of_layer in measured.items():
        rungs: list[tuple[Setting, float]] = []
        for setting, harm in sorted(of_layer.items(), key=lambda item: (item[1], -size(item[0]))):
            if not rungs or size(setting) < size(rungs[-1][0]):
                rungs.append((setting, harm))
        gentlest = max(of_layer, key=size)
        if rungs[0][0] != gentlest:
            rungs.insert(0, (gentlest, of_layer[gentlest]))
        found[name] = rungs
    return found


def search(rungs: Mapping[str, Sequence[tuple[Setting, float]]], cost: Cost, target: float) -> Found:
    """Make the gentlest plan harsher until it costs at most `target`.

    Args:
        rungs: of `ladders`.
        cost: of sets by layer.
        target: in the cost's unit.

    Raises:
        InputError: a target that is not positive, or below what the harshest plan costs (the nearest is said).
    """
    if not target > 0:
        raise InputError("budget.target", target, "a positive number")
    at = dict.fromkeys(rungs, 0)

    def price(place: Mapping[str, int]) -> float:
        return cost({name: rungs[name][i][0].sets() for name, i in place.items()})

    least = price({name: len(of_layer) - 1 for name, of_layer in rungs.items()})
    if least > target:
        reach = f"{least:.6g}"
        raise InputError("budget.target", target, f"at least {reach}, which the harshest plan costs", reach)
    dense = now = price(at)
    steps = 0

    def leap(name: str) -> tuple[float, int]:
        """The best leap of a layer: cost saved for the harm done, and the rung it ends on.

        A cost that comes in whole arrays may not fall at all from one rung to the next, so farther ones count too.
        """
        here = at[name]
        found = [
            (
                max(now - price(at | {name: there}), 0.0) / (rungs[name][there][1] - rungs[name][here][1] + LEAST_HARM),
                there,
            )
            for there in range(here + 1, len(rungs[name]))
        ]
        return max(found, key=lambda leap: (leap[0], -leap[1]), default=(-1.0, here))

    leaps = {name: leap(name) for name in rungs}
    while now > target:
        best = max(leaps, key=lambda name: leaps[name][0])
        at[best], steps = leaps[best][1], steps + 1
        now = price(at)
        leaps[best] = leap(best)  # the others' stay: costs of layers add up but for what the chip shares
    plan = {name: rungs[name][i][0] for name, i in at.items()}
    return Found(plan, now, dense, sum(rungs[name][i][1] for name, i in at.items()), steps)
