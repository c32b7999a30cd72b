"""The parasitic rung against Kirchhoff's laws read by read, and against the analog rung."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping, cut, packed
from crossloom.simulate import Settings
from crossloom.simulate.adc import Adc, array_adc
from crossloom.simulate.analog import AnalogEngine
from crossloom.simulate.analog_chip import (
    AnalogChip,
    Conditions,
    ReadNoise,
    inl_curve,
    program_block,
    row_groups,
    slice_gains,
)
from crossloom.simulate.analog_plan import plan
from crossloom.simulate.calibration import Calibration
from crossloom.simulate.devices import Levels
from crossloom.simulate.parasitic import Wires, effective_conductances
from crossloom.simulate.parasitic_cache import TransferCache
from crossloom.simulate.parasitic_engine import ParasiticEngine, wired
from tests.simulate.analog_cases import array_of, layer_of, random_core
from tests.simulate.test_parasitic import nodal

WIRES = Wires(4.0, 4.0, 300.0, 100.0)
CACHED = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


def made(rows: int, columns: int, core: tuple[int, int, int], **fields: Any) -> tuple[LayerMapping, AnalogChip]:
    fields = {"b_cell": 2, "b_dac": 1, "b_adc": 6, "adc_range": "full", "encoding": "offset", **fields}
    conditions = fields.pop("conditions", Conditions())
    chip = array_of(rows, columns, **fields)
    weights = random_core(np.random.default_rng(7), core, 8, chip.array.encoding)
    layer = packed(layer_of(weights), chip.array.fragment)
    return cut(layer, chip.array), AnalogChip.of(chip, 3, 1, conditions)


def run(engine: Any, mapping: LayerMapping, chip: AnalogChip, x: np.ndarray, **more: Any) -> np.ndarray:
    kernel = engine.prepare(mapping, Settings(analog=chip, **more))
    return kernel(torch.from_numpy(x)).numpy()


def codes(p: np.ndarray, adc: Adc, errors: Any, c: int, slack: float) -> np.ndarray:
    v = (p * adc.denominator - adc.low) / adc.step
    v = errors.gain[c] * v + errors.offset[c] + inl_curve(errors.inl[:, c], np.clip(v, 0, adc.top) / adc.top)
    return np.clip(np.floor(v + 0.5 + slack), 0, adc.top).astype(np.int64)


def bounds(
    mapping: LayerMapping, chip: AnalogChip, wires: Wires, x: np.ndarray, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest accumulators with reads known to ±slack steps: a nodal solve of every array, reads in loops."""
    adc, array = array_adc(mapping.array), mapping.array
    step = Levels.of(chip.device, array.b_cell, chip.conditions.on_off == "infinite").step
    floor = 1 / chip.device.r_off if chip.conditions.on_off == "device" else 0.0
    z = mapping.layer.transform.apply(x)
    low = np.zeros((len(x), mapping.layer.core.shape[2]), np.int64)
    high, count, correction = low.copy(), np.zeros(low.shape[1], np.int64), low.copy()
    for index, block in enumerate(mapping.blocks):
        cells = program_block(mapping, index, 0, chip)
        g = np.full((array.rows, array.columns + 1), floor)
        rows, columns = cells.conductance.shape
        g[:rows, :columns] = cells.conductance * step
        g[:rows, -1] = cells.reference * step if cells.reference.any() else 0
        m = nodal(g[::-1] if cells.reference.any() else g[::-1, :-1], wires)[:, ::-1] / step
        to, signed = mapping.core_columns(block), slice_gains(mapping, cells.signs)
        at = mapping.core_rows(block)
        for driven, gains in zip(row_groups(mapping, index), signed, strict=True):
            for digit in mapping.digits:
                drive = np.zeros((len(x), array.rows))
                drive[:, driven] = (z[:, at[driven]] >> digit.lsb) & ((1 << digit.width) - 1)
                current = drive @ m.T
                for c in range(columns):
                    n = to[c // mapping.code.columns]
                    p = current[:, c] - (current[:, -1] if cells.reference.any() else 0)
                    ends = [gains[c] * digit.weight * codes(p, adc, cells.converters, c, s) for s in (-slack, slack)]
                    low[:, n] += np.minimum(*ends)
                    high[:, n] += np.maximum(*ends)
                    count[n] += gains[c] * digit.weight
                    if cells.flipped[c]:
                        flipped = ((1 << array.b_cell) - 1) * gains[c] * digit.weight
                        correction[:, n] -= flipped * drive.sum(1).astype(np.int64)
        correction[:, to] += mapping.code.input_gain * z[:, at].sum(1)[:, None]
    return adc.total(low, count) + correction, adc.total(high, count) + correction


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "differential": {"encoding": "differential", "b_cell": 1},
    "flipped": {"flip": True},
    "polarised": {"encoding": "polarised", "active": 4},
    "row groups": {"active": 5},
    "wide digits": {"b_dac": 2, "b_adc": 7},
    "variation": {"device__variation": {"model": "lognormal", "sigma": 0.2}},
    "faults": {"device__stuck_hrs": 0.1, "device__stuck_lrs": 0.05},
    "converters": {"adc_errors": {"offset_sigma": 0.4, "gain_sigma": 0.02, "inl": 0.5}, "per_adc": 2},
    "low on/off": {"device__r_on": 5e3, "device__r_off": 2e4},
    "reference cells": {"device__r_off": 2e4, "conditions": Conditions(reference="cells", reference_columns=2)},
    "no reference": {"conditions": Conditions(reference="none")},
    "infinite on/off": {"conditions": Conditions(on_off="infinite")},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sides", [("left", "bottom"), ("both", "both")])
def test_every_read_obeys_kirchhoff(case: str, sides: tuple[str, str], tmp_path: Path) -> None:
    wires = Wires(4.0, 3.0, 300.0, 100.0, *sides)  # type: ignore[arg-type]
    mapping, chip = made(12, 16, (1, 17, 6), **CASES[case])
    x = np.random.default_rng(1).integers(0, 256, (20, 17))
    engine = ParasiticEngine(wires, TransferCache(tmp_path))
    found = run(engine, mapping, chip, x)
    low, high = bounds(
        mapping,
        chip,
        wires,
        x,
        plan(mapping, array_adc(mapping.array), replace(chip, readout=engine.readout)).grid.error,
    )
    assert ((low <= found) & (found <= high)).all()
    perfect = run(AnalogEngine(), mapping, chip, x)
    assert ((perfect < low) | (perfect > high)).mean() > 0.05, "the bounds must tell wires from none"


@pytest.mark.parametrize("case", CASES)
def test_perfect_wires_give_the_analog_rung_bit_for_bit(case: str) -> None:
    mapping, chip = made(12, 16, (1, 17, 6), **CASES[case])
    x = np.random.default_rng(1).integers(0, 256, (20, 17))
    assert Wires.of(mapping.array).ideal
    assert np.array_equal(run(ParasiticEngine(), mapping, chip, x), run(AnalogEngine(), mapping, chip, x))


@settings(max_examples=8, **CACHED)
@given(st.integers(1, 29), st.integers(0, 2**31))
def test_bits_do_not_depend_on_the_batch(tmp_path: Path, size: int, seed: int) -> None:
    mapping, chip = made(12, 16, (1, 17, 6), device__variation={"model": "gaussian", "sigma": 0.05})
    x = np.random.default_rng(seed).integers(0, 256, (30, 17))
    engine = ParasiticEngine(WIRES, TransferCache(tmp_path))
    whole = run(engine, mapping, chip, x, memory_budget=1 << 14)
    parts = [run(engine, mapping, chip, part) for part in np.split(x, [size])]
    assert np.array_equal(whole, np.concatenate(parts))


def test_the_arrays_own_wires_are_the_default(tmp_path: Path) -> None:
    fields = {"wire_resistance": 4.0, "driver_resistance": 300.0, "sense_resistance": 100.0}
    cache, x = TransferCache(tmp_path), np.random.default_rng(1).integers(0, 256, (9, 17))
    with_wires, without = made(12, 16, (1, 17, 6), **fields), made(12, 16, (1, 17, 6))
    assert np.array_equal(
        run(ParasiticEngine(cache=cache), *with_wires, x), run(ParasiticEngine(WIRES, cache), *without, x)
    )


def test_the_reference_column_is_read_through_its_own_wires() -> None:
    """Blank cells next to the reference cancel though both lose current; a perfect reference would leave an error."""
    mapping, chip = made(16, 8, (1, 16, 2), device__r_on=5e3, device__r_off=2e4)
    before = program_block(mapping, 0, 0, chip)
    seen = wired(before, mapping, chip, WIRES, effective_conductances)
    assert (seen.conductance.sum(0) < before.conductance.sum(0)).all()
    assert (seen.reference < before.reference).all()
    blank = before.conductance == before.reference[:, None]
    assert blank.any()
    assert np.abs(seen.weights[blank]).max() < 0.5 * np.abs(seen.conductance - before.reference[:, None])[blank].max()


def test_wires_take_more_from_far_cells() -> None:
    mapping, chip = made(16, 16, (1, 16, 4), conditions=Conditions(reference="none"))
    before = program_block(mapping, 0, 0, chip)
    before.conductance[:] = before.conductance.max()
    seen = wired(before, mapping, chip, Wires(20.0, 20.0), effective_conductances)
    assert (np.diff(seen.conductance, axis=0) < 0).all()
    assert (np.diff(seen.conductance, axis=1) < 0).all()


def test_read_noise_acts_on_what_is_read(tmp_path: Path) -> None:
    """Mean and variance of many reads of one input against the closed form on effective conductances."""
    noise = ReadNoise("cell", 0.05, exact=True)
    mapping, chip = made(
        12, 16, (1, 12, 2), b_adc=12, adc_range="calibrated", conditions=Conditions(reference="none", read_noise=noise)
    )
    adc = Adc.of(12, 0.02)
    x = np.full((4000, 12), 1)
    calibration = Calibration({mapping.layer.name: adc})
    found = run(ParasiticEngine(WIRES, TransferCache(tmp_path)), mapping, chip, x, calibration=calibration)
    seen = wired(program_block(mapping, 0, 0, chip), mapping, chip, WIRES, effective_conductances)
    gains = slice_gains(mapping, seen.signs)[0]
    means = (seen.conductance.sum(0) * gains).reshape(2, -1).sum(1) + 12 * mapping.code.input_gain
    variance = ((0.05**2 * (seen.conductance**2).sum(0) + 0.02**2 / 12) * gains**2).reshape(2, -1).sum(1) + 1 / 12
    error = np.sqrt(variance / len(x))
    assert (np.abs(found.mean(0) - means) < 4 * error).all()
    np.testing.assert_allclose(found.var(0), variance, rtol=4 * np.sqrt(2 / len(x)))


def test_unused_cells_load_the_wires() -> None:
    small, chip = made(8, 16, (1, 8, 4), device__r_off=2e4)
    large, other = made(64, 64, (1, 8, 4), device__r_off=2e4)
    seen = [
        wired(program_block(m, 0, 0, c), m, c, WIRES, effective_conductances).conductance
        for m, c in ((small, chip), (large, other))
    ]
    assert seen[1].sum() < seen[0].sum()


def test_what_cannot_be_simulated_is_named(tmp_path: Path) -> None:
    engine = ParasiticEngine(WIRES, TransferCache(tmp_path))
    mapping, _ = made(12, 16, (1, 17, 6))
    with pytest.raises(InputError, match="analog"):
        engine.prepare(mapping, Settings())
    with pytest.raises(InputError, match="mapping"):
        engine.prepare(mapping.layer, Settings())
