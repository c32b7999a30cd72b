"""Plan search: the knapsack is solved to its optimum, costs are the chip's, every layer is judged alone."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import fx, nn

import crossloom
from crossloom.codesign.aat import PAPER, chip_of
from crossloom.codesign.aat_shapes import largest_reduction, shape_plan, target_of, untrained
from crossloom.codesign.plan_search import (
    arrays,
    crossbar_costs,
    lost_share,
    model_costs,
    nearest,
    search,
    sensitivity,
    settings_of,
)
from crossloom.codesign.plans import Option, Plan, assembled, frontier, smallest_within, solve
from crossloom.codesign.reproduce import Request
from crossloom.cost import estimate
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, lower
from crossloom.hardware import load
from crossloom.methods import Approximation, Setting
from crossloom.methods.polynomials import runs
from crossloom.nn import woven_layers

CHIP = load("crimp-isaac")
NUMBERS = st.integers(0, 60)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, list[Option]]:
    """Up to four layers with up to four options; costs and losses are whole numbers, so that sums are exact."""
    found = {}
    for layer in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 4))
        names = [None, *(Setting(group=3 + i) for i in range(count - 1))]
        found[f"l{layer}"] = [Option(s, draw(NUMBERS), draw(NUMBERS)) for s in names]
    return found


def brute_force(options: dict[str, list[Option]], budget: float | None, target: float | None) -> float | None:
    """The best value by trying every combination."""
    values = []
    for choice in itertools.product(*options.values()):
        cost, loss = sum(o.cost for o in choice), sum(o.loss for o in choice)
        if budget is not None and loss <= budget:
            values.append(cost)
        if target is not None and cost <= target:
            values.append(loss)
    return min(values, default=None)


@given(problems(), st.integers(0, 200), st.booleans(), st.sampled_from([2.0**-40, 1.0, 2.0**20]))
@settings(deadline=None, max_examples=120)
def test_plans_are_optimal(options: dict[str, list[Option]], whole: int, by_loss: bool, unit: float) -> None:
    """In any unit, such as square metres (powers of two, so that sums stay exact)."""
    options = {
        name: [Option(o.setting, unit * o.cost, unit * o.loss) for o in found] for name, found in options.items()
    }
    limit = unit * whole
    budget, target = (limit, None) if by_loss else (None, limit)
    best = brute_force(options, budget, target)
    if best is None:
        with pytest.raises(InputError, match="plan.budget" if by_loss else "plan.target"):
            solve(options, budget=budget, target=target)
        return
    plan = solve(options, budget=budget, target=target)
    assert (plan.cost if by_loss else plan.loss) == best
    assert plan.bound == pytest.approx(best, abs=1e-5 * unit)
    chosen = [next(o for o in found if o.setting == plan.layers[name]) for name, found in options.items()]
    assert (sum(o.cost for o in chosen), sum(o.loss for o in chosen)) == (plan.cost, plan.loss)
    assert plan.dense == sum(found[0].cost for found in options.values())
    assume(plan.dense > 0)
    assert plan.saved == pytest.approx(1 - plan.cost / plan.dense)


@given(problems(), st.integers(0, 200), st.booleans())
@settings(deadline=None, max_examples=40)
def test_leaving_out_what_is_bettered_changes_no_optimum(
    options: dict[str, list[Option]], limit: int, by_loss: bool
) -> None:
    names = {name: [o.setting for o in found] for name, found in options.items()}
    cost = {name: [o.cost for o in found] for name, found in options.items()}
    loss = {name: [o.loss for o in found] for name, found in options.items()}
    fewer = assembled(names, cost, loss)
    budget, target = (limit, None) if by_loss else (None, limit)
    assert brute_force(fewer, budget, target) == brute_force(options, budget, target)
    for name, found in fewer.items():
        assert found[0] == options[name][0]
        assert all(o.cost < found[0].cost or o.loss < found[0].loss for o in found[1:])


def test_a_search_takes_one_limit() -> None:
    options = {"l": [Option(None, 1, 0)]}
    for limits in ({}, {"budget": 1.0, "target": 1.0}):
        with pytest.raises(InputError, match="either a budget"):
            solve(options, **limits)


@given(problems())
@settings(deadline=None, max_examples=30)
def test_the_frontier_goes_down_in_cost_and_up_in_loss(options: dict[str, list[Option]]) -> None:
    plans = frontier(options, 8)
    assert plans[0].cost <= plans[0].dense
    assert plans[-1].cost == sum(min(o.cost for o in found) for found in options.values())
    for larger, smaller in itertools.pairwise(plans):
        assert smaller.cost < larger.cost
        assert smaller.loss >= larger.loss
        assert larger.loss == brute_force(options, None, larger.cost)


@given(st.lists(st.floats(0, 9), min_size=1, max_size=20), st.floats(0, 10))
@settings(deadline=None, max_examples=60)
def test_the_smallest_plan_within_an_accuracy_budget(drops: list[float], allowed: float) -> None:
    drops = [0.0, *sorted(drops)]
    plans = [Plan({}, float(-i), 1.0, 0.0, 0.0) for i in range(len(drops))]
    measured: list[int] = []

    def drop(plan: Plan) -> float:
        measured.append(plans.index(plan))
        return drops[measured[-1]]

    plan, found = smallest_within(plans, drop, allowed)
    assert plans.index(plan) == max(i for i, d in enumerate(drops) if d <= allowed)
    assert found == drops[plans.index(plan)]
    assert len(measured) <= len(plans).bit_length()


def network() -> fx.GraphModule:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 70, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(70, 70, 3, groups=70), nn.ReLU(), nn.Flatten(), nn.Linear(280, 90), nn.ReLU(), nn.Linear(90, 10),
    ).eval()  # fmt: skip
    x = torch.randn(16, 3, 12, 12)
    module = convert(model, x[:2], crossloom.quantisation_for(CHIP))
    calibrate(module, [x])
    return module


def test_crossbars_are_those_of_the_compiled_plan() -> None:
    module = network()
    options = settings_of(module)
    cost = crossbar_costs(module, CHIP, options)
    assert sum(found[0] for found in cost.values()) == crossloom.compile(module, CHIP).crossbars
    plan = solve(assembled(options, cost, lost_share(module, options)), target=14)
    assert any(setting is not None for setting in plan.layers.values())
    Approximation(plan.method_options()).prepare(module)
    assert crossloom.compile(module, CHIP).crossbars == plan.cost <= 14


def test_options_that_do_not_fit_are_left_out() -> None:
    offered = [Setting(group="kernel"), Setting(order=3, group=3), Setting(group=281), Setting(group=90)]
    fitting = settings_of(network(), offered)
    assert fitting["0"] == [None, Setting(group="kernel")]
    assert fitting["9"] == [None, Setting(group=90)]
    assert fitting["6"] == [None, Setting(group="kernel")]


@pytest.mark.parametrize("objective", ["area", "energy", "latency"])
def test_model_costs_add_up_to_the_network(objective: str) -> None:
    module = network()
    program = lower(module)
    options = settings_of(module, [Setting(order=1, group=9)])
    cost = model_costs(module, program, CHIP, options, objective)  # type: ignore[arg-type]
    report = estimate(crossloom.mapping.map_program(program, CHIP))
    whole = {"area": report.area_m2, "energy": report.energy_j, "latency": report.latency_s}[objective]
    assert sum(found[0] for found in cost.values()) == pytest.approx(whole)
    assert cost["9"][1] != cost["9"][0]
    options["0"], cost["0"] = [None], cost["0"][:1]
    plan = solve(assembled(options, cost, lost_share(module, options)), budget=0.8)
    Approximation(plan.method_options()).prepare(module)
    after = estimate(crossloom.mapping.map_program(lower(module), CHIP))
    real = {"area": after.area_m2, "energy": after.energy_j, "latency": after.latency_s}[objective]
    assert plan.cost <= whole
    assert plan.cost == pytest.approx(real, rel=0.05)


def test_sensitivity_is_the_loss_of_one_layer_projected() -> None:
    module = network()
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(32, 3, 12, 12, generator=generator), torch.randint(0, 10, (32,), generator=generator))
        for _ in range(2)
    ]
    options = settings_of(module, [Setting(order=0, group=9), Setting(order=1, group=4)])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    rises = sensitivity(module, batches, options)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed"
    assert all(found[0] == 0 for found in rises.values())

    def loss() -> float:
        # The only batch norm: its layer in training mode, without a momentum, so that it normalises by the batch.
        norm = woven_layers(module)["0"].norm
        assert norm is not None
        module.eval()
        norm.train()
        norm.momentum = 0.0
        with torch.no_grad():
            return sum(float(F.cross_entropy(module(x), y)) for x, y in batches) / 2

    dense = loss()
    layer = woven_layers(module)["9"]
    with torch.no_grad():
        layer.weight.copy_(nearest(layer.weight, runs(280, 9, 0, "orthogonal")))
    assert rises["9"][1] == pytest.approx(max(loss() - dense, 0.0), abs=1e-6)


@given(st.integers(1, 5), st.integers(2, 30), st.integers(0, 2), st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_nearest_is_a_projection(outputs: int, inputs: int, order: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = 2 + seed % (inputs - 1)
    groups = runs(inputs, n, min(order, n - 1), "orthogonal")
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    once = nearest(weight, groups)
    assert torch.allclose(nearest(once, groups), once)
    assert abs(float(((weight - once) * once).sum())) < 1e-9 * float(weight.square().sum())


BASELINES = {"lenet5": (87, 40), "vgg8": (3200, 2208), "alexnet": (14052, 4580), "resnet18-cifar": (2750, 2190)}
"""Arrays of the dense networks for CIFAR-100, and of the plans that reach the paper's reductions."""


UNIFORM = {"lenet5": (1, 9, 50), "vgg8": (1, 9, 77), "alexnet": (2, 9, 66), "resnet18-cifar": (2, 4, 24)}
"""(order, n, per cent saved) where every layer that fits takes it."""


@pytest.mark.parametrize("name", PAPER)
def test_plans_by_shape_reach_the_papers_reductions(name: str) -> None:
    """And one setting everywhere saves what the shapes say, by the mapping's own count."""
    _, chip = chip_of(Request(name))
    module = untrained(name, chip)
    plan = shape_plan(module, chip, PAPER[name].reduction)
    assert (plan.dense, plan.cost) == BASELINES[name]
    assert 100 * plan.saved >= PAPER[name].reduction
    assert plan.loss == pytest.approx(plan.bound)
    order, n, saved = UNIFORM[name]
    layers, fits = woven_layers(module), settings_of(module, [Setting(order=order, group=n)])
    dense = sum(arrays(layer, layers[layer], None, CHIP.array) for layer in layers)
    found = sum(arrays(layer, layers[layer], fits[layer][-1], CHIP.array) for layer in layers)
    assert round(100 * (1 - found / dense)) == saved
    if name == "lenet5":  # thirteen of its 26 arrays of 128 × 128 are one band of rows wide already
        with pytest.raises(InputError, match=r"got 11\.0; expected at least 13"):
            shape_plan(module, CHIP, 54)
        assert shape_plan(module, CHIP, 50).cost == target_of(26, 50) == 13
        assert largest_reduction(module, CHIP) == 50


def test_a_plan_is_a_recipe() -> None:
    plan = Plan({"a": None, "b": Setting(order=2, group=5)}, 1.0, 2.0, 0.1, 0.1)
    assert plan.saved == 0.5
    assert Approximation(plan.method_options()).layers == {"b": Setting(order=2, group=5)}


def test_a_search_from_end_to_end() -> None:
    """Least loss at a target, and least cost under a budget that the former keeps: never more."""
    module = network()
    generator = torch.Generator().manual_seed(2)
    batches = [(torch.randn(16, 3, 12, 12, generator=generator), torch.randint(0, 10, (16,), generator=generator))]
    offered = [Setting(order=1, group=9), Setting(order=2, group=9)]
    least_loss = search(module, batches, CHIP, saved=0.2, offered=offered)
    assert least_loss.saved >= 0.2
    least_cost = search(module, batches, CHIP, budget=least_loss.loss, offered=offered)
    assert least_cost.cost <= least_loss.cost
    cheap = search(module, batches, CHIP, objective="area", saved=0.05, offered=offered)
    assert 0 < cheap.cost <= 0.95 * cheap.dense < 1e-3
