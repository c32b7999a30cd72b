"""NeuRRAM (Wan et al., Nature 2022): throughput of 48 cores and efficiency at eight settings, one parameter set."""

from __future__ import annotations

import pytest

from crossloom.cost import checks, peak
from crossloom.cost.checks import neurram_point
from crossloom.cost.validation.silicon import mean_error
from crossloom.hardware import Action, load

SILICON = {
    # (output bits, input bits): TOPS, TOPS/W
    (3, 1): (2.122, 43.08),
    (4, 2): (1.793, 40.33),
    (5, 3): (1.165, 23.09),
    (6, 4): (0.744, 15.95),
    (7, 5): (0.525, 11.03),
    (8, 6): (0.418, 8.26),
    (9, 7): (0.344, 7.75),
    (10, 8): (0.264, 6.44),
}

CATEGORIES = {
    # (output bits, input bits): fJ an operation of wordlines, neurons, input pulses; as tabulated by AccelForge
    (3, 1): (8.990, 10.619, 3.446),
    (6, 4): (21.756, 29.108, 11.507),
    (10, 8): (50.525, 75.857, 27.510),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["throughput", "efficiency"])
def test_mean_error_within_five_per_cent(kind: str) -> None:
    found = checks(load("neurram"))
    assert mean_error(found, kind) <= 0.05
    assert mean_error(found, kind, one_phase=True) <= 0.05, "points that were not fitted"


@pytest.mark.parametrize("kind", ["throughput", "efficiency"])
def test_mean_error_within_five_per_cent_without_any_fitted_factor(kind: str) -> None:
    found = checks(load("neurram"))
    assert mean_error(found, kind, raw=True) <= 0.05
    assert max(abs(c.raw_ratio - 1) for c in found if c.name.startswith(f"{kind}_o") and "phase" not in c.name) < 0.08


@pytest.mark.parametrize("point", SILICON)
def test_no_point_is_worse_than_the_best_published_models_worst(point: tuple[int, int]) -> None:
    """AccelForge's worst point is 12 % off."""
    core = neurram_point(load("neurram"), *point).array
    assert 48 * core.rate * 1e-12 == pytest.approx(SILICON[point][0], rel=0.03)
    assert core.per_joule * 1e-12 == pytest.approx(SILICON[point][1], rel=0.12)


def test_one_time_constant() -> None:
    """Integrations, conversion steps and phases: (5, 3) has 3, 5 and 1; (10, 8) has 15 + 7, 10 + 6 and 2."""
    chip = load("neurram")
    operations = 2 * 256 * 128
    for point, beats in (((3, 1), 5), ((5, 3), 9), ((6, 4), 14), ((8, 6), 25), ((10, 8), 40)):
        assert operations / neurram_point(chip, *point).array.rate == pytest.approx(beats * 0.295e-6, rel=0.001), point


@pytest.mark.parametrize("point", CATEGORIES)
def test_energy_by_category(point: tuple[int, int]) -> None:
    found = neurram_point(load("neurram"), *point)
    per_operation = {name: watts / found.tile.rate * 1e15 for name, watts in found.power.items()}
    neuron = sum(per_operation[name] for name in ("neuron_sample", "neuron_integrator", "neuron_adc"))
    wordlines, neurons, pulses = CATEGORIES[point]
    assert neuron == pytest.approx(neurons, rel=0.05)
    assert per_operation["wordline"] == pytest.approx(wordlines, rel=0.20)
    assert per_operation["cells"] == pytest.approx(pulses, rel=0.12)


def test_area_split_within_five_points() -> None:
    """Neurons 28 %, drivers 21 %, RRAM 12 %."""
    shares = {c.name: c.ours for c in checks(load("neurram")) if c.name.startswith("area_share")}
    wanted = {"area_share_neurons": 0.28, "area_share_drivers": 0.21, "area_share_cells": 0.12}
    assert shares == pytest.approx(wanted, abs=0.05)


def test_the_neuron_has_its_reported_area() -> None:
    """1270 µm²."""
    area = peak(load("neurram")).area
    parts = ("neuron_sample", "neuron_integrator", "neuron_adc", "shift_add")
    assert sum(area[name] for name in parts) == pytest.approx(256 * 1270e-12, rel=1e-3)


def test_every_fitted_factor_is_declared_and_removable() -> None:
    chip = load("neurram")
    fitted = chip.components.calibration
    assert set(fitted) == {"wordline", "cells", "neuron_sample", "neuron_integrator", "neuron_adc", "crossbar"}
    raw, calibrated = peak(chip, calibrated=False), peak(chip)
    for name in raw.power:
        factor = fitted[name].energy if name in fitted else 1.0
        per_operation = [p.power[name] / p.tile.rate for p in (raw, calibrated)]
        assert per_operation[1] == pytest.approx(factor * per_operation[0]), name


def test_its_family_serves_what_it_does() -> None:
    assert Action.INTEGRATE in {a for part in _parts() for a in part.actions}


def _parts():  # type: ignore[no-untyped-def]
    from crossloom.hardware import components

    return components(load("neurram")).values()
