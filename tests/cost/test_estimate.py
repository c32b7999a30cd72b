"""Reports: parts sum to the whole, figures move the right way, times follow the hardware."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cost import CostReport, compare, count, estimate, measure
from crossloom.cost.timing import read_time
from crossloom.errors import InputError
from crossloom.hardware import components, load, names
from crossloom.mapping import Mapping, map_program
from crossloom.weave import InputTransform

from .conftest import convolution, flatten, image, linear, program, residual_network, small_chip


def network() -> object:
    return residual_network(np.random.default_rng(1))


def report(**changes: object) -> CostReport:
    return estimate(map_program(network(), small_chip(**changes)))


def images(mapping: Mapping, number: int = 3) -> torch.Tensor:
    generator = np.random.default_rng(5)
    values = generator.integers(0, 160, (number, *mapping.program.input.shape)) * generator.integers(
        0, 2, (number, *mapping.program.input.shape)
    )
    return torch.from_numpy(values.astype(np.float32))


# -- conservation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_parts_sum_to_the_whole_on_every_chip(name: str) -> None:
    chip = load(name)
    found = estimate(map_program(network(), chip, {"second": 2}))
    assert found.energy_j > 0 and found.area_m2 > 0 and found.latency_s >= found.interval_s > 0
    assert sum(layer.energy_j for layer in found.layers) + found.chip_level["leakage_j"] == pytest.approx(
        found.energy_j
    )
    assert sum(layer.area_m2 for layer in found.layers) + found.chip_level["area_m2"] == pytest.approx(found.area_m2)
    assert sum(layer.leakage_w for layer in found.layers) + found.chip_level["leakage_w"] == pytest.approx(
        found.leakage_w
    )
    assert sum(part.energy_j + part.leakage_j for part in found.components.values()) == pytest.approx(found.energy_j)
    assert sum(part.energy_j for part in found.components.values()) == pytest.approx(found.dynamic_j)
    assert sum(part.area_m2 for part in found.components.values()) == pytest.approx(found.area_m2)
    assert sum(part.leakage_w for part in found.components.values()) == pytest.approx(found.leakage_w)
    for key, whole in (("energy_j", found.energy_j), ("area_m2", found.area_m2), ("leakage_w", found.leakage_w)):
        assert sum(level[key] for level in found.levels.values()) == pytest.approx(whole)
    for layer in found.layers:
        assert sum(layer.energy_by_component.values()) + layer.leakage_j == pytest.approx(layer.energy_j)
        assert sum(layer.area_by_component.values()) == pytest.approx(layer.area_m2)
    assert sum(layer.crossbars for layer in found.layers) == found.crossbars
    assert sum(layer.macros for layer in found.layers) == found.macros


def test_energy_is_actions_times_components(mapping: Mapping) -> None:
    """Recomputed from the counts and the component file alone."""
    parts = components(mapping.chip)
    total = 0.0
    for node in count(mapping).nodes:
        for work in node.work:
            for part in parts.values():
                if work.action in part.actions:
                    total += work.count * (part.at(work.bits) if work.bits else part).energy
        total += node.cell_power * mapping.chip.device.read_voltage**2 * mapping.chip.device.read_pulse
    assert estimate(mapping).dynamic_j == pytest.approx(total)


def test_area_of_allocated_and_idle_silicon_is_that_of_whole_tiles(mapping: Mapping) -> None:
    found, parts = estimate(mapping), components(mapping.chip)
    fixed = [p for p in parts.values() if p.fixed]
    of = {
        level: sum(float(p.count) * p.area for p in fixed if p.level == level) for level in ("array", "macro", "tile")
    }
    units = sum(
        area for layer in found.layers for name, area in layer.area_by_component.items() if not parts[name].fixed
    )
    whole = mapping.tiles * (2 * (2 * of["array"] + of["macro"]) + of["tile"])
    assert units > 0
    assert found.area_m2 + found.idle_area_m2 - units - found.chip_level["area_m2"] == pytest.approx(whole)


# -- monotonicity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["isaac", "analytical"])
def test_more_adc_bits_are_never_cheaper(family: str) -> None:
    name = "crimp-isaac" if family == "isaac" else "neurosim-rram"
    reports = [report(name=name, array__b_adc=bits) for bits in range(3, 13)]
    for fewer, more in pairwise(reports):
        assert more.energy_j > fewer.energy_j
        assert more.area_m2 > fewer.area_m2
        assert more.latency_s >= fewer.latency_s


@given(active=st.integers(1, 15))
@settings(max_examples=8, deadline=None)
def test_driving_fewer_rows_at_once_is_never_faster(active: int) -> None:
    slow, fast = report(array__active_rows=active), report(array__active_rows=active + 1)
    assert slow.latency_s >= fast.latency_s
    assert slow.dynamic_j >= fast.dynamic_j


def test_zero_skipping_and_measured_activity_never_add() -> None:
    mapping = map_program(network(), small_chip(array__active_rows=4))
    activity = measure(mapping, images(mapping))
    bound, measured, skipped = (
        estimate(mapping),
        estimate(mapping, activity),
        estimate(mapping, activity, zero_skipping=True),
    )
    for key in ("energy_j", "dynamic_j", "latency_s", "interval_s"):
        assert getattr(skipped, key) <= getattr(measured, key) <= getattr(bound, key)
    assert skipped.dynamic_j < measured.dynamic_j < bound.dynamic_j
    assert skipped.latency_s < measured.latency_s == bound.latency_s
    assert skipped.area_m2 <= bound.area_m2


def test_measure_draws_the_same_vectors_again(mapping: Mapping) -> None:
    one, two = (measure(mapping, images(mapping), vectors=40, seed=3) for _ in range(2))
    for name, layer in one.layers.items():
        np.testing.assert_array_equal(layer.density, two.layers[name].density)
        assert layer.vectors == min(40, 3 * (36 if name in ("first", "second") else 1))
    with pytest.raises(InputError, match="images"):
        measure(mapping, images(mapping)[:0])


def test_duplication_buys_time_with_area_and_leaves_energy_of_arrays() -> None:
    one = estimate(map_program(network(), small_chip()))
    two = estimate(map_program(network(), small_chip(), {"first": 2, "second": 2}))
    assert two.interval_s < one.interval_s and two.latency_s < one.latency_s
    assert two.area_m2 > one.area_m2
    assert two.components["adc"].energy_j == pytest.approx(one.components["adc"].energy_j)
    assert two.components["cells"].energy_j == pytest.approx(one.components["cells"].energy_j)


@given(st.sampled_from(["mesh", "h_tree", "bus"]), st.integers(1, 64))
@settings(max_examples=12, deadline=None)
def test_wider_links_are_never_slower_and_a_network_never_free(kind: str, bits: int) -> None:
    narrow, wide = (report(hierarchy__network=kind, hierarchy__link_bits=b) for b in (bits, 2 * bits))
    assert wide.latency_s <= narrow.latency_s and wide.interval_s <= narrow.interval_s
    assert narrow.components["router"].energy_j > 0


def test_higher_conductance_costs_more_and_only_cells_and_devices_differ() -> None:
    low, high = report(), report(device__r_on=3000.0)
    assert high.components["cells"].energy_j > low.components["cells"].energy_j
    for name, part in low.components.items():
        if name != "cells":
            assert high.components[name].energy_j == pytest.approx(part.energy_j)


# -- time -----------------------------------------------------------------------------------------------------------


def test_read_time_is_the_sum_of_its_parts_or_the_cycle() -> None:
    chip = small_chip()
    parts = components(chip)
    once = parts["row_driver"].latency + parts["crossbar"].latency + parts["shift_add"].latency
    for columns, conversions in ((1, 1), (3, 3), (4, 4), (16, 4)):
        expected = once + parts["adc"].latency * conversions
        assert read_time(chip, parts.values(), columns) == pytest.approx(expected)
    isaac = load("isaac")
    assert read_time(isaac, components(isaac).values(), 128) == pytest.approx(100e-9)
    # Half as many converters for as many columns: the conversions no longer fit the beat.
    slow = isaac.override({"array.columns": 256, "array.columns_per_adc": 256})
    assert read_time(slow, components(slow).values(), 256) == pytest.approx(200e-9)


def test_latency_of_a_chain_is_the_sum_and_the_interval_its_slowest_part() -> None:
    rng = np.random.default_rng(0)
    x = image(4, 6)
    first = convolution(rng, x, "first", 8)
    second = convolution(rng, first, "second", 4)
    mapping = map_program(program([x, first, second]), small_chip(hierarchy__macros_per_tile=64))
    chip, found = mapping.chip, estimate(mapping)
    once = read_time(chip, components(chip).values(), 16)
    compute = {layer.name: layer.compute_s for layer in found.layers}
    assert compute["first"] == pytest.approx(36 * 8 * once)
    assert found.latency_s == pytest.approx(compute["first"] + compute["second"])
    assert found.interval_s == pytest.approx(max(compute.values()))
    assert found.throughput == pytest.approx(1 / found.interval_s)
    alone = estimate(map_program(mapping.program, chip.override({"hierarchy.pipelined": False})))
    assert alone.interval_s == alone.latency_s == pytest.approx(found.latency_s)


def test_on_demand_units_keep_pace_with_the_arrays() -> None:
    rng = np.random.default_rng(0)
    x = image(8, 6)
    moments = InputTransform.sum([i // 3 for i in range(72)])
    node = convolution(rng, x, "conv", 4, transform=moments)
    mapping = map_program(program([x, node]), small_chip(node__clock=2e6))
    part = components(mapping.chip)["transform_adder"]
    found = estimate(mapping)
    layer = next(layer for layer in found.layers if layer.name == "conv")
    units = found.components["transform_adder"].parts
    busy = layer.actions["transform_add"] * part.latency
    assert units > 1
    assert busy / units <= layer.compute_s * (1 + 1e-9) < busy / (units - 1)


# -- the report -----------------------------------------------------------------------------------------------------


def test_report_is_plain_json_and_consistent(mapping: Mapping) -> None:
    found = estimate(mapping)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    for key in ("crossbars", "area_m2", "energy_j", "latency_s", "throughput", "leakage_w", "layers", "components"):
        assert key in plain
    assert plain["hardware_hash"] == mapping.chip.hash
    assert plain["throughput"] * plain["interval_s"] == pytest.approx(1)
    assert plain["tops_per_watt"] == pytest.approx(plain["operations"] / plain["energy_j"] / 1e12)
    assert plain["tops_per_mm2"] == pytest.approx(plain["operations"] * plain["throughput"] / plain["area_m2"] / 1e18)
    assert plain["edp"] == pytest.approx(plain["energy_j"] * plain["latency_s"])
    assert plain["power_w"] == pytest.approx(plain["energy_j"] * plain["throughput"])
    assert plain["operations"] == 2 * mapping.program.macs()
    first = next(layer for layer in plain["layers"] if layer["name"] == "first")
    assert first["kind"] == "woven" and first["rows"] == 36 and first["columns"] == 8 and first["copies"] == 2
    assert first["cycles"] == 18 * 8
    assert first["utilisation"] == pytest.approx(36 * 8 * 4 / (first["crossbars"] / 2 * 256))


def test_assumptions_are_said() -> None:
    mapping = map_program(network(), small_chip())
    stated = " ".join(estimate(mapping).assumptions)
    assert "no activity given" in stated and "upper bound" in stated
    measured = " ".join(estimate(mapping, measure(mapping, images(mapping)), zero_skipping=True).assumptions)
    assert "measured" in measured and "left out" in measured
    without = estimate(map_program(network(), small_chip("crimp-isaac", components__omit=["router", "pool"])))
    assert "free of charge" in without.assumptions[-1] and "network_hop, pool" in without.assumptions[-1]


def test_table_prints_every_layer_component_and_assumption(mapping: Mapping) -> None:
    found = estimate(mapping)
    text = str(found.table())
    for layer in found.layers:
        assert layer.name in text
    for name in found.components:
        assert name in text
    assert found.hardware_hash[:12] in text
    assert all(assumption[:40] in text for assumption in found.assumptions)


def test_comparison_puts_the_second_over_the_first() -> None:
    one, two = report(), report(array__b_adc=10)
    both = compare(one, two)
    assert both.ratios()["energy_j"] == pytest.approx(two.energy_j / one.energy_j)
    assert both.ratios()["crossbars"] == 1
    text = str(both.table())
    assert "adc" in text and f"{two.energy_j / one.energy_j:.3g}×" in text
    json.dumps(both.to_dict(), allow_nan=False)


# -- programming ----------------------------------------------------------------------------------------------------


def test_programming_writes_every_cell_once() -> None:
    rng = np.random.default_rng(0)
    x = image(20, 1)
    flat = flatten(x)
    chip = small_chip(device__write_pulses=3.0, device__write_energy=2e-12, device__write_pulse=1e-8)
    mapping = map_program(program([x, flat, linear(rng, flat, "fc", 6)]), chip)
    found = estimate(mapping).programming
    cells = sum(mapping.layers["fc"].cells(block).levels.size for block in mapping.layers["fc"].blocks)
    parts = components(chip)
    assert found.cells == cells == 20 * 6 * 4
    assert found.energy_j == pytest.approx(
        3 * cells * (2e-12 + parts["write_driver"].energy) + cells * 2 * parts["off_chip"].energy
    )
    assert found.time_s == pytest.approx((16 + 4) * 2 * 3 * 1e-8)
    assert found.endurance_used == pytest.approx(3 / chip.device.endurance)
