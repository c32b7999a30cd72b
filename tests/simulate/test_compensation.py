"""Compensation brings a programmed chip nearer to what it should be, and leaves a perfect one alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crossloom.errors import InputError
from crossloom.frontend import lower
from crossloom.mapping import cut, map_program
from crossloom.mapping.fault_placement import damage, place
from crossloom.simulate import Conditions, Executor
from crossloom.simulate.analog_chip import AnalogChip
from crossloom.simulate.compensation import compensate, residuals, spare_rows, stuck_cells
from tests.methods.crimp_cases import images, integers, lenet
from tests.simulate.analog_cases import array_of, chip_of, layer_of, random_core

NOISE = {
    "device__variation": {"model": "lognormal", "sigma": 0.3}, "device__stuck_hrs": 0.09, "device__stuck_lrs": 0.02,
}  # fmt: skip
READ = {"array__b_adc": 12, "array__adc_range": "unit"}


def mapped(**fields):
    x = images((1, 10, 10), 32)
    program = lower(integers(lenet(), x))
    mapping = map_program(program, chip_of(**READ, **fields))
    return mapping, x, [AnalogChip.of(mapping.chip, 3, k, Conditions(on_off="infinite")) for k in range(5)]


def wrong(mapping, program, x, k, ideal):
    """Mean square error of the logits on chip k."""
    remade = map_program(program, mapping.chip)
    real = Executor(remade, rung="analog", seed=3, chip_index=k, conditions=Conditions(on_off="infinite")).logits(x)
    return float((real - ideal).square().mean())


@pytest.mark.parametrize("multiplier", [False, True])
def test_biases_and_gains_bring_the_logits_nearer(multiplier) -> None:
    mapping, x, chips = mapped(**NOISE)
    ideal = Executor(mapping.program).logits(x)
    before = after = 0.0
    for k, chip in enumerate(chips[:3]):
        made = compensate(mapping, chip, x[:16], multiplier=multiplier)
        before += wrong(mapping, mapping.program, x[16:], k, ideal[16:])
        after += wrong(mapping, made, x[16:], k, ideal[16:])
        only_shifts = all(node.layer.output.rescale.only_shifts for node in made.woven())
        assert only_shifts != multiplier
    assert after < 0.5 * before


def test_a_perfect_chip_needs_nothing() -> None:
    mapping, x, chips = mapped()
    made = compensate(mapping, chips[0], x)
    for old, new in zip(mapping.program.woven(), made.woven(), strict=True):
        assert np.array_equal(old.layer.output.bias, new.layer.output.bias)
        assert np.array_equal(old.layer.output.rescale.ratio, new.layer.output.rescale.ratio)


def test_the_target_can_be_the_mean_of_other_chips() -> None:
    mapping, x, chips = mapped(**NOISE)
    floorless = Conditions(on_off="infinite")
    others = [Executor(mapping, rung="analog", seed=3, chip_index=k, conditions=floorless) for k in (1, 2, 3, 4)]
    mean = torch.stack([executor.logits(x) for executor in others]).mean(0)
    made = compensate(mapping, chips[0], x[:16], references=chips[1:])
    assert wrong(mapping, made, x[16:], 0, mean[16:]) < wrong(mapping, mapping.program, x[16:], 0, mean[16:])


def test_stuck_cells_are_those_that_the_chip_has() -> None:
    mapping = cut(layer_of(random_core(np.random.default_rng(0), (1, 40, 8), 8, "offset")), array_of(32, 32).array)
    chip = AnalogChip.of(chip_of(device__stuck_hrs=0.1, device__stuck_lrs=0.05), 1, 2, Conditions(on_off="infinite"))
    found = stuck_cells(mapping, chip)
    gains = np.array([s.gain for s in mapping.code.slices])
    expected = np.zeros((40, 8))
    for block, fault in zip(mapping.blocks, found, strict=True):
        level = mapping.cells(block).levels.astype(int)
        extra = np.where(fault == 1, -level, np.where(fault == 2, 3 - level, 0)).reshape(len(level), -1, 4) @ gains
        expected[slice(*block.rows), slice(*block.columns)] = extra
    assert np.allclose(residuals(mapping, chip), expected) and expected.any()
    assert damage(cut(place(mapping, found), mapping.array), found) < damage(mapping, found)


def test_spare_rows_correct_the_worst_rows_and_touch_no_other_cell() -> None:
    rng = np.random.default_rng(1)
    array = array_of(32, 32, encoding="differential").array
    mapping = cut(layer_of(rng.integers(-127, 128, (1, 40, 4))), array)
    device = chip_of(device__stuck_hrs=0.05, device__variation={"model": "lognormal", "sigma": 0.02})
    chip = AnalogChip.of(device, 0, 0, Conditions(on_off="infinite"))
    layer = spare_rows(mapping, chip)
    added = layer.core.shape[1] - 40
    assert 0 < added <= 24
    remade = cut(layer, array)
    assert len(remade.blocks) == len(mapping.blocks), "no array is added"
    before, after = residuals(mapping, chip), residuals(remade, chip)
    assert np.allclose(after[:40], before), "the cells that were there are as they were"
    real = layer.core[0] + after
    effective = layer.transform.matrix().T @ real
    assert ((effective - mapping.layer.core[0]) ** 2).sum() < 0.6 * (before**2).sum()
    perfect = AnalogChip.of(chip_of(), 0, 0, Conditions(on_off="infinite"))
    assert spare_rows(mapping, perfect) is mapping.layer


def test_random_reads_are_refused() -> None:
    mapping, x, _ = mapped()
    noisy = AnalogChip.of(chip_of(**READ, device__read_noise=0.1), 0, 0)
    with pytest.raises(InputError, match="read noise"):
        compensate(mapping, noisy, x)
    with pytest.raises(InputError, match="at least one image"):
        compensate(mapping, AnalogChip.of(chip_of(), 0, 0), x[:0])
