"""What cells conduct: every device model against its closed form, within three standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import truncnorm

from crossloom.errors import InputError
from crossloom.hardware import Device, load
from crossloom.hardware.schema import Drift
from crossloom.simulate.analog_chip import converters, inl_curve
from crossloom.simulate.devices import (
    STUCK_HRS,
    STUCK_LRS,
    Key,
    Levels,
    WriteVerify,
    conductances,
    drift_factor,
    faults,
    generator,
    program,
    spread,
    temperature_factor,
)

CELLS = 200_000


def device(**fields: object) -> Device:
    base = {"variation": {"model": "none"}, "read_noise": 0.0, "stuck_hrs": 0.0, "stuck_lrs": 0.0}
    overrides = {f"device.{k}": v for k, v in {**base, **fields}.items()}
    return load("crimp-isaac", overrides=overrides).device


def within(values: np.ndarray, mean: float, sigma: float) -> None:
    """Sample mean and variance within three standard errors of N(mean, σ²)-like moments (fourth moment from data)."""
    n = len(values)
    assert abs(values.mean() - mean) < 3 * sigma / math.sqrt(n)
    fourth = ((values - mean) ** 4).mean()
    assert abs(values.var() - sigma**2) < 3 * math.sqrt(max(fourth - sigma**4, 1e-30) / n)


def test_levels_are_exact_steps_over_a_floor() -> None:
    d = device(r_on=2e3, r_off=20e3)
    levels = Levels.of(d, 2)
    assert levels.values.tolist() == [0, 1, 2, 3]
    assert levels.floor == pytest.approx((1 / 20e3) / ((1 / 2e3 - 1 / 20e3) / 3))
    assert Levels.of(d, 2, infinite_on_off=True).floor == 0
    uneven = device(level_conductances=(0.0, 1e-5, 2e-5, 6e-5))
    assert Levels.of(uneven, 2).values == pytest.approx([0, 0.5, 1, 3])


def test_generators_depend_on_names_alone() -> None:
    a = generator(3, 0, "layer", 1, "variation").standard_normal(4)
    assert np.array_equal(a, generator(3, 0, "layer", 1, "variation").standard_normal(4))
    others = [(4, 0, "layer", 1), (3, 1, "layer", 1), (3, 0, "layer", 2), (3, 0, "other", 1), (3, 0, "layer1", "")]
    for seed, *names in others:
        assert not np.array_equal(a, generator(seed, *names, "variation").standard_normal(4))
    with pytest.raises(InputError, match="seed"):
        generator(-1)


def test_lognormal_moments() -> None:
    d = device(variation={"model": "lognormal", "sigma": 0.5})
    levels = Levels.of(d, 2)
    g = program(np.full(CELLS, 2.0), d.variation, levels, generator(0, "t"))
    within(np.log(g / 2), 0.0, 0.5)
    assert g.mean() == pytest.approx(2 * math.exp(0.125), rel=0.005)


def test_gaussian_is_relative_to_the_range() -> None:
    d = device(variation={"model": "gaussian", "sigma": 0.03})
    within(program(np.full(CELLS, 3.0), d.variation, Levels.of(d, 2), generator(0, "t")), 3.0, 0.09)
    low = program(np.zeros(CELLS), d.variation, Levels.of(d, 2), generator(0, "t"))
    assert low.min() == 0 and np.mean(low == 0) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("g", [60e-6, 150e-6, 225e-6])
def test_milo_polynomial_in_its_own_units(g: float) -> None:
    milo = {"model": "polynomial", "coefficients": [4.782, -0.009107], "g_min": 50e-6, "g_max": 225e-6}
    d = device(r_on=1 / 225e-6, r_off=1 / 50e-6, variation=milo)
    levels = Levels.of(d, 2)
    made = program(np.full(CELLS, g / levels.step), d.variation, levels, generator(1, "t")) * levels.step
    within(made * 1e6, g * 1e6, 4.782 - 0.009107 * g * 1e6)


def test_wan_polynomial_is_clipped_to_the_measured_range() -> None:
    wan = {"model": "polynomial", "coefficients": [1.053, 0.2374, -1.167e-2, 1.536e-4], "g_max": 39e-6}
    d = device(r_on=1 / 40e-6, r_off=1 / 1e-6, variation=wan)
    levels = Levels.of(d, 2)
    sigma = spread(d.variation, np.array([20e-6, 39e-6, 40e-6]) / levels.step, levels) * levels.step * 1e6
    formula = [1.536e-4 * g**3 - 1.167e-2 * g**2 + 0.2374 * g + 1.053 for g in (20.0, 39.0, 39.0)]
    assert sigma == pytest.approx(formula)


def test_table_interpolates() -> None:
    d = device(variation={"model": "table", "conductance": [1e-5, 3e-5], "sigma": [1e-6, 2e-6]})
    levels = Levels.of(d, 2)
    sigma = spread(d.variation, np.array([0.5e-5, 2e-5, 4e-5]) / levels.step, levels) * levels.step
    assert sigma == pytest.approx([1e-6, 1.5e-6, 2e-6])


def test_stuck_rates_and_values() -> None:
    fault = faults((CELLS,), 0.0904, 0.0175, generator(0, "faults"))
    for code, rate in ((STUCK_HRS, 0.0904), (STUCK_LRS, 0.0175)):
        assert abs(np.mean(fault == code) - rate) < 3 * math.sqrt(rate * (1 - rate) / CELLS)
    d = device(stuck_hrs=0.3, stuck_lrs=0.2, variation={"model": "lognormal", "sigma": 0.5})
    levels, key = Levels.of(d, 2), Key(0, 0, ("layer",))
    cells = np.full((300, 300), 1, np.uint8)
    g = conductances(cells, d, levels, key, d.drift.reference_time, 300.0)
    fault = faults(cells.shape, 0.3, 0.2, key.generator("faults"))
    assert np.all(g[fault == STUCK_HRS] == levels.floor)
    assert np.all(g[fault == STUCK_LRS] == levels.floor + 3)
    assert np.unique(g[fault == 0]).size == np.count_nonzero(fault == 0)


def test_write_verify_truncates_the_distribution() -> None:
    d = device(variation={"model": "gaussian", "sigma": 0.1})
    levels = Levels.of(d, 2)
    target, limit = np.full(CELLS, 3.0), 0.08 * 3
    g = program(target, d.variation, levels, generator(0, "t"), WriteVerify(0.08, 60))
    assert np.abs(g - 3).max() <= limit
    law = truncnorm(-0.8, 0.8, loc=3, scale=0.3)
    within(g, float(law.mean()), float(law.std()))
    twice = program(target, d.variation, levels, generator(0, "t"), WriteVerify(0.08, 2))
    outside = 2 * 0.5 * math.erfc(0.8 / math.sqrt(2))
    share = np.mean(np.abs(twice - 3) > limit)
    assert abs(share - outside**2) < 3 * math.sqrt(outside**2 * (1 - outside**2) / CELLS)
    with pytest.raises(InputError, match="tries"):
        WriteVerify(0.1, 0)


def test_drift_follows_the_power_law() -> None:
    assert np.all(drift_factor(Drift(exponent=0.05), 1.0, (3,), generator(0, "t")) == 1)
    assert drift_factor(Drift(exponent=0.05, reference_time=20.0), 2e5, (2,), generator(0, "t")) == pytest.approx(
        (2e5 / 20) ** -0.05
    )
    spreaded = drift_factor(Drift(exponent=0.05, exponent_sigma=0.01), 1e4, (CELLS,), generator(0, "t"))
    within(-np.log(spreaded) / math.log(1e4), 0.05, 0.01)
    with pytest.raises(InputError, match="time"):
        drift_factor(Drift(), 0.0, (1,), generator(0, "t"))


def test_temperature_scales_each_state_by_its_own_coefficient() -> None:
    d = device(tcr_on=1e-3, tcr_off=-2e-3)
    factors = temperature_factor(d, np.array([0.0, 0.5, 1.0]), 350.0)
    assert factors == pytest.approx([1 / 0.9, 1 / 0.975, 1 / 1.05])
    levels, key = Levels.of(d, 2), Key(0, 0, ("layer",))
    hot = conductances(np.array([[0, 3]], np.uint8), d, levels, key, 1.0, 350.0)
    assert hot[0] == pytest.approx([levels.floor / 0.9, (levels.floor + 3) / 1.05])
    with pytest.raises(InputError, match="tcr_off"):
        temperature_factor(device(tcr_off=-0.1), np.zeros(1), 400.0)


def test_converter_draws_are_shared_by_neighbours_and_inl_has_the_stated_peak() -> None:
    errors = load("crimp-isaac", overrides={
        "array.adc_errors": {"offset_sigma": 0.5, "gain_sigma": 0.02, "inl": 0.7, "noise_sigma": 0.1}
    }).array.adc_errors  # fmt: skip
    made = converters(errors, 40_000, 4, Key(0, 0, ("layer",)))
    assert np.array_equal(made.offset[::4], made.offset[3::4]) and made.offset[0] != made.offset[4]
    within(made.offset[::4], 0.0, 0.5)
    within(made.gain[::4], 1.0, 0.02)
    curves = inl_curve(made.inl[:, :400:4, None], np.linspace(0, 1, 257))
    assert np.abs(curves).max(1) == pytest.approx(np.full(100, 0.7))
    assert np.abs(curves[:, [0, -1]]).max() < 1e-12
