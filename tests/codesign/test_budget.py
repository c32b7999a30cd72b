"""The budget mode meets its target on the chip that is named, and says what can be met where it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import crossloom
from crossloom.codesign.admm_points import RECIPES
from crossloom.codesign.budget import TARGETS, budget
from crossloom.cost import estimate
from crossloom.errors import InputError
from crossloom.mapping import map_program
from crossloom.methods import ADMM, Columns, Constraint, FixedPoint
from crossloom.methods.admm_budget import Setting, ladders, search
from crossloom.weave.compaction import compacted

ENGINE = RECIPES["lenet5-caffe"].overrides


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 20), nn.ReLU(),
        nn.Linear(20, 4),
    ).eval()  # fmt: skip


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 4)]


@pytest.mark.parametrize(("of", "share"), [("crossbars", 0.5), ("energy", 0.4), ("area", 0.8), ("latency", 0.99)])
def test_what_is_found_costs_at_most_the_target(of: str, share: float) -> None:
    chip = crossloom.load("sot-mram-and", ENGINE)
    options = {"keeps": (1.0, 0.5, 0.2), "formats": ("fixed-point:8", "fixed-point:4")}
    gentle = budget(network(), batches(), chip, of, 1e9, **options)
    assert gentle.steps == 0 and set(gentle.plan.values()) == {Setting()}
    found = budget(network(), batches(), chip, of, share * gentle.cost, **options)
    assert found.cost <= share * gentle.cost < found.dense
    module = crossloom.convert(network(), batches()[0][0][:2], crossloom.quantisation_for(chip))
    crossloom.calibrate(module, batches())
    admm = ADMM(found.sets)
    admm.prepare(module)
    admm.finish(module)
    program = compacted(crossloom.compile(module, chip).program)
    assert TARGETS[of](estimate(map_program(program, chip))) == pytest.approx(found.cost)
    with pytest.raises(InputError, match="harshest") as error:
        budget(network(), batches(), chip, of, found.cost * 1e-6, **options)
    assert float(error.value.nearest or 0) > 0


def test_the_step_that_saves_most_for_its_harm_comes_first() -> None:
    rungs = {
        "cheap": [(Setting(1.0), 0.0), (Setting(0.5), 0.01), (Setting(0.1), 2.0)],
        "dear": [(Setting(1.0), 0.0), (Setting(0.5), 1.0)],
    }

    def cost(sets: dict[str, list[Constraint]]) -> float:
        weight = {"cheap": 60.0, "dear": 40.0}
        return sum(weight[n] * next((s.keep for s in of if isinstance(s, Columns)), 1.0) for n, of in sets.items())

    first = search(rungs, cost, 75.0)
    assert (first.plan["cheap"].keep, first.plan["dear"].keep, first.cost) == (0.5, 1.0, 70.0)
    second = search(rungs, cost, 50.0)
    assert (second.plan["cheap"].keep, second.plan["dear"].keep, second.steps) == (0.5, 0.5, 2)
    assert second.harm == pytest.approx(1.01)


def test_ladders_start_gentle_and_grow_harsher() -> None:
    measured = {"a": {Setting(k, f"fixed-point:{b}"): (1 - k) + (8 - b) / 10 for k in (1.0, 0.5, 0.1) for b in (8, 4)}}
    rungs = ladders(measured)["a"]
    sizes = [s.keep * s.bits for s, _ in rungs]
    assert sizes == sorted(sizes, reverse=True) and rungs[0][0] == Setting()
    assert [harm for _, harm in rungs] == sorted(harm for _, harm in rungs)
    assert isinstance(Setting(0.5, "power-of-two:3").sets()[0], Columns)
    assert [type(s) for s in Setting().sets()] == [FixedPoint]


@pytest.mark.parametrize(
    ("of", "chip", "field"), [("enrgy", "sot-mram-and", "budget.of"), ("energy", "sot-mram-or", "hardware")]
)
def test_bad_input_is_named(of: str, chip: str, field: str) -> None:
    with pytest.raises(InputError) as error:
        budget(network(), batches(), chip, of, 1.0)
    assert error.value.field == field and error.value.nearest
