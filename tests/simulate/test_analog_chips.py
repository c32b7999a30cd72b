"""Several chips in one run: the bits of each alone, through the facade too; and what a perfect chip leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import crossloom
from crossloom.compiled import CompiledChip
from crossloom.errors import InputError
from crossloom.hardware import load
from crossloom.mapping import map_program
from crossloom.simulate import Conditions, Executor
from crossloom.simulate.analog_chips import ChipSet, adds_nothing, chip_accuracy

IMPERFECT: dict[str, Any] = {
    "array.rows": 16, "array.active_rows": 16, "array.columns": 64, "array.columns_per_adc": 64, "array.b_adc": 5,
    "array.wire_resistance": 2.0, "array.adc_errors": {"noise_sigma": 0.2},
    "device.variation": {"model": "lognormal", "sigma": 0.2}, "device.read_noise": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def chip() -> CompiledChip:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 4)
    ).eval()
    return crossloom.compile(model, calibration=torch.rand(32, 1, 8, 8), overrides=IMPERFECT)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSLOOM_CACHE", str(tmp_path))


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rung", ["analog", "parasitic"])
@pytest.mark.parametrize("conditions", [None, Conditions(time=1e4, reference="cells")])
def test_chips_side_by_side_have_the_bits_of_each_alone(chip: CompiledChip, rung: str, conditions: Any) -> None:
    x = images(30)
    together = ChipSet(chip.mapping, range(2, 7), 3, conditions, rung=rung).run(x)
    for made, index in zip(together, range(2, 7), strict=True):
        alone = Executor(chip.mapping, rung, seed=3, chip_index=index, conditions=conditions)
        assert torch.equal(made, alone.run(x))
    assert len({made.numpy().tobytes() for made in together}) == 5
    small = ChipSet(chip.mapping, range(2, 7), 3, conditions, rung=rung, memory_budget=1 << 17)
    assert torch.equal(together[:, 11:], small.run(x[11:], first_image=11))


@pytest.mark.parametrize("rung", ["analog", "parasitic"])
def test_the_facade_gives_every_chip_the_accuracy_it_has_alone(chip: CompiledChip, rung: Any) -> None:
    x = images(50)
    target = chip.logits(x, "integer").argmax(1)
    seen: list[int] = []
    made = chip.accuracy([(x[:20], target[:20]), (x[20:], target[20:])], rung, chips=3, seed=4, tick=seen.append)
    for index, value in enumerate(made.chips):
        alone = chip.executor(rung, seed=4, chip=index).logits(x).argmax(1)
        assert value == float((alone == target).sum()) / 50
    assert (made.images, seen) == (50, [60, 150])
    assert made.value == pytest.approx(sum(made.chips) / 3)
    for batches in ([(x, target)], iter([(x[k : k + 7], target[k : k + 7]) for k in range(0, 50, 7)])):
        assert chip.accuracy(batches, rung, chips=3, seed=4).chips == made.chips, "batches do not matter"


def test_chips_that_do_not_fit_together_run_in_groups(chip: CompiledChip) -> None:
    x = images(20)
    batches = [(x[:15], torch.zeros(15)), (x[15:], torch.zeros(5))]
    whole = chip_accuracy(chip.mapping, batches, 3)
    for given in (batches, iter(batches)):
        seen: list[int] = []
        made = chip_accuracy(chip.mapping, given, 3, weight_budget=1, tick=seen.append)
        assert made == whole
        assert seen == [15, 20, 35, 40, 55, 60]


def test_one_accuracy_for_a_rung_where_chips_do_not_differ(chip: CompiledChip) -> None:
    x = images(20)
    target = chip.logits(x, "crossbar").argmax(1)
    made = chip.accuracy([(x, target)], "crossbar", limit=7)
    assert (made.value, made.images, made.chips) == (1.0, 7, ())
    for field, values in (("chips", {"chips": 0}), ("batches", {"limit": 0})):
        for rung in ("crossbar", "analog"):
            with pytest.raises(InputError, match=field):
                chip.accuracy([(x, target)], rung, **values)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rung"):
        ChipSet(chip.mapping, range(2), rung="crossbar")


@pytest.mark.parametrize("name", ["rram-binary", "sram-cim", "pcm"])
def test_where_nothing_is_added_the_rungs_give_the_crossbars_bits(chip: CompiledChip, name: str) -> None:
    """And where the description says otherwise, they do not."""
    small = {k: v for k, v in IMPERFECT.items() if k in ("array.rows", "array.active_rows", "array.b_adc")}
    array = {**small, "array.adc_range": "full", "array.flip": False, "hierarchy.tiles": None}
    hardware = load(name, overrides=array)
    mapping, x = map_program(chip.program, hardware), images(10)
    exact = Executor(mapping, "crossbar").run(x)
    for rung in ("analog", "parasitic"):
        same = torch.equal(Executor(mapping, rung).run(x), exact)
        if adds_nothing(hardware, rung):
            assert same
        noisy = hardware.override({"device.read_noise": 0.3})
        assert not adds_nothing(noisy, rung)
        assert not torch.equal(Executor(map_program(chip.program, noisy), rung).run(x), exact)


@pytest.mark.parametrize(
    "change",
    [
        {"device.variation": {"model": "gaussian", "sigma": 0.1}}, {"device.stuck_hrs": 0.01},
        {"device.stuck_lrs": 0.01}, {"array.adc_errors": {"inl": 0.5}}, {"array.adc_errors": {"noise_sigma": 0.5}},
        {"array.adc_errors": {"gain_sigma": 0.1}}, {"array.adc_errors": {"offset_sigma": 0.5}},
        {"node.temperature": 350.0, "device.tcr_on": 1e-3},
    ],
)  # fmt: skip
def test_any_imperfection_counts(change: dict[str, Any]) -> None:
    assert adds_nothing(load("rram-binary"))
    assert not adds_nothing(load("rram-binary", overrides=change))


def test_wires_count_on_the_parasitic_rung_alone() -> None:
    wired = load("rram-binary", overrides={"array.sense_resistance": 100.0})
    assert adds_nothing(wired, "analog")
    assert not adds_nothing(wired, "parasitic")
