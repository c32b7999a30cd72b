"""Units: a figure scales with the quantity it is made of and with no other, whatever the chip and the network."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cost import CostReport, estimate
from crossloom.cost.report import ComponentCost, LayerCost, Programming
from crossloom.hardware import CELLS, components, load
from crossloom.mapping import map_program

from .conftest import SMALL, residual_network, small_chip

SUFFIXES = ("_j", "_s", "_w", "_m2")
"""Joule, second, watt, square metre: how the names of quantities end."""

PLAIN = {
    "crossbars", "macros", "tiles", "utilisation", "operations", "rows", "columns", "copies", "positions", "digits",
    "cycles", "macs", "busy", "parts", "cells", "pulses", "dram_bits", "endurance_used",
}  # fmt: skip
"""Numbers and fractions."""


def scaled(name: str, quantity: str, factor: float) -> CostReport:
    """The residual network on a chip all of whose parts are scaled in one quantity."""
    chip = small_chip(name)
    wanted = [*components(chip), *([CELLS] if quantity == "energy" else [])]
    changes = {
        **SMALL,
        "components.calibration": {part: {quantity: factor, "source": "test"} for part in wanted},
    }
    return estimate(map_program(residual_network(np.random.default_rng(1)), load(name, changes)))


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0.2, 5), st.sampled_from(["neurosim-rram", "crimp-isaac", "sot-mram"]),
    st.sampled_from(["energy", "area", "leakage"]),
)  # fmt: skip
def test_each_quantity_scales_alone(factor: float, name: str, quantity: str) -> None:
    plain, found = scaled(name, quantity, 1.0), scaled(name, quantity, factor)
    of = {"energy": "dynamic_j", "area": "area_m2", "leakage": "leakage_w"}
    for key in ("dynamic_j", "area_m2", "leakage_w", "latency_s", "interval_s", "crossbars"):
        expected = factor if key == of[quantity] else 1.0
        assert getattr(found, key) == pytest.approx(expected * getattr(plain, key)), key
    assert found.energy_j == pytest.approx(found.dynamic_j + found.leakage_w * found.interval_s)
    assert found.power_w == pytest.approx(found.energy_j / found.interval_s)
    assert found.tops_per_watt == pytest.approx(found.operations / found.energy_j * 1e-12)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.2, 5))
def test_time_scales_with_every_clock_and_delay(factor: float) -> None:
    """All parts, the device, the clocks; nothing else sets time."""
    chip = small_chip("neurosim-rram")
    parts = {name: {"latency": factor, "source": "test"} for name in components(chip)}
    changes = {
        **SMALL, "components.calibration": parts, "hierarchy.network_clock": chip.node.clock / factor,
    }  # fmt: skip
    network = residual_network(np.random.default_rng(1))
    plain = estimate(map_program(network, chip))
    slow = estimate(map_program(network, load("neurosim-rram", changes)))
    # The router's latency is three network clocks, scaled once by the clock and once as a part; links are clocks alone.
    for one, two in zip(plain.layers, slow.layers, strict=True):
        assert two.compute_s == pytest.approx(factor * one.compute_s)
    assert slow.dynamic_j == pytest.approx(plain.dynamic_j)


def test_every_quantity_of_a_report_names_its_unit() -> None:
    for record in (CostReport, LayerCost, ComponentCost, Programming):
        for field in fields(record):
            if field.type in ("float", "int"):
                assert field.name.endswith(SUFFIXES) or field.name in PLAIN, field.name
