"""Plans: one option for every layer, the best ones under a limit, and the smallest one that keeps an accuracy.

With costs and losses that add up over layers, choosing one option a layer is a multiple-choice knapsack problem, which
HiGHS solves to its optimum: no plan of these options has a lower predicted value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from crossloom.errors import InputError
from crossloom.methods import Setting


@dataclass(frozen=True)
class Option:
    """One way to hold one layer.

    Attributes:
        setting: of the approximation; None for dense.
        cost: in units of the objective, as part of the network's.
        loss: predicted rise of the loss.
    """

    setting: Setting | None
    cost: float
    loss: float


@dataclass(frozen=True)
class Plan:
    """A choice of one option a layer.

    Attributes:
        layers: setting by layer name, None for dense.
        cost: predicted, in units of the objective, sum of the layers.
        dense: the same with every layer dense.
        loss: predicted rise of the loss.
        bound: no choice of these options has a lower minimised quantity (cost under a budget, loss at a target).
    """

    layers: dict[str, Setting | None]
    cost: float
    dense: float
    loss: float
    bound: float

    @property
    def saved(self) -> float:
        """Fraction of the dense cost saved."""
        return 1 - self.cost / self.dense

    def method_options(self) -> dict[str, dict[str, Any]]:
        """The `layers` option of the method `approximation`."""
        return {name: s.model_dump() for name, s in self.layers.items() if s is not None}


def solve(options: Mapping[str, Sequence[Option]], *, budget: float | None = None, target: float | None = None) -> Plan:
    """The best choice of one option a layer: least cost with loss ≤ `budget`, or least loss with cost ≤ `target`.

    Solved to optimality by branch and bound (HiGHS through `scipy.optimize.milp`, relative gap 0). A layer's first
    option is its dense one.

    Raises:
        InputError: not exactly one of budget and target; or no choice that meets it (the message says what would).
    """
    if (budget is None) == (target is None):
        raise InputError("plan", (budget, target), "either a budget of the loss or a target of the cost")
    flat = [(name, option) for name, found in options.items() for option in found]
    cost, loss = np.array([o.cost for _, o in flat]), np.array([o.loss for _, o in flat])
    names = list(options)
    one = np.array([[float(owner == name) for owner, _ in flat] for name in names])
    minimised, limited, limit = (cost, loss, budget) if target is None else (loss, cost, target)
    assert limit is not None
    # The solver's tolerances are absolute: in units of the largest option's cost and loss they are relative.
    unit, size = (float(np.abs(values).max()) or 1.0 for values in (minimised, limited))
    least = sum(min(o.loss if target is None else o.cost for o in found) for found in options.values())
    if least > limit + 1e-9 * size:
        field, what = ("budget", "loss") if target is None else ("target", "cost")
        raise InputError(f"plan.{field}", limit, f"at least {least:.6g}, the least {what} of these options")
    solved = milp(
        minimised / unit,
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one, 1, 1),
            LinearConstraint(limited[None, :] / size, -np.inf, limit / size + 1e-9),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None or solved.mip_dual_bound is None:
        raise InputError("plan", limit, f"a problem that the solver can solve ({solved.message})")
    chosen = {name: option for (name, option), taken in zip(flat, solved.x, strict=True) if taken > 0.5}
    return Plan(
        layers={name: chosen[name].setting for name in names},
        cost=sum(chosen[name].cost for name in names),
        dense=sum(found[0].cost for found in options.values()),
        loss=sum(chosen[name].loss for name in names),
        bound=unit * float(solved.mip_dual_bound),
    )


def assembled(
    options: Mapping[str, Sequence[Setting | None]], cost: Mapping[str, list[float]], loss: Mapping[str, list[float]]
) -> dict[str, list[Option]]:
    """Options with their costs and losses, for `solve`.

    Left out is what an earlier or smaller option of the layer betters in both, so that a layer stays dense where
    approximating it saves nothing; the optimum is the same without it.
    """
    result = {}
    for name, settings in options.items():
        found = [Option(s, c, rise) for s, c, rise in zip(settings, cost[name], loss[name], strict=True)]
        kept = found[:1]
        for option in sorted(found[1:], key=lambda o: (o.cost, o.loss)):
            if not any(other.cost <= option.cost and other.loss <= option.loss for other in kept):
                kept.append(option)
        result[name] = kept
    return result


def frontier(options: Mapping[str, Sequence[Option]], steps: int = 40) -> list[Plan]:
    """Least-loss plans at so many equally spaced costs, from all dense to the smallest there is; doubles left out."""
    dense = sum(found[0].cost for found in options.values())
    least = sum(min(o.cost for o in found) for found in options.values())
    plans: list[Plan] = []
    for target in np.linspace(dense, least, steps):
        plan = solve(options, target=float(target))
        if not plans or plan.cost < plans[-1].cost:
            plans.append(plan)
    return plans


def smallest_within(plans: Sequence[Plan], drop: Callable[[Plan], float], allowed: float) -> tuple[Plan, float]:
    """The smallest of some plans whose measured drop of accuracy is allowed, found by bisection.

    A smaller plan is taken to drop no less than a larger one, so that log₂ of the plans are trained and measured.

    Args:
        plans: from the largest to the smallest, as `frontier` gives them; the first, dense, is not measured.
        drop: trains and measures a plan: the dense network's accuracy minus the plan's.
        allowed: the accuracy budget, in the unit of `drop`.

    Returns:
        The plan and its measured drop; the dense plan and 0 if no other keeps the budget.
    """
    good, bad, found = 0, len(plans), 0.0
    while bad - good > 1:
        middle = (good + bad) // 2
        measured = drop(plans[middle])
        if measured <= allowed:
            good, found = middle, measured
        else:
            bad = middle
    return plans[good], found
