"""Serial digits and the AND readout: counts by hand, and laws that hold for every chip."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cost import activity_of, count, estimate, peak
from crossloom.cost.timing import read_time
from crossloom.errors import InputError
from crossloom.hardware import Action, components, expected_actions, load
from crossloom.mapping import Mapping, map_program
from crossloom.weave import Format, Input

from .conftest import linear, program, residual_network, small_chip

SERIAL = {"array.digit_drive": "serial", "array.b_dac": 3}
AND = {"array.readout": "and", "array.adc_range": "unit", "array.b_cell": 1, "array.b_dac": 1, "array.b_adc": 5}


def one_layer(**changes: object) -> Mapping:
    """20 inputs of 8 bits, 6 outputs, on arrays of 16 × 16."""
    rng = np.random.default_rng(3)
    x = Input(name="x", inputs=(), format=Format(8, False), shape=(20,))
    return map_program(program([x, linear(rng, x, "only", 6)]), small_chip(**changes))


def changed(changes: dict[str, object]) -> dict[str, object]:
    return {key.replace(".", "__"): value for key, value in changes.items()}


def test_serial_digits_by_hand() -> None:
    """8 bits in digits of 3, 3 and 2: 8 pulses, 7 + 7 + 3 integrations; two row blocks; 24 columns in two blocks."""
    work = count(one_layer(**changed(SERIAL)))
    columns = 2 * 24  # both row blocks convert all columns
    assert work.total(Action.ROW_DRIVE) == 20 * 2 * 8  # rows × column blocks × pulses
    assert work.total(Action.ARRAY_READ) == 4 * 3
    assert work.total(Action.SAMPLE_HOLD) == columns * 8
    assert work.total(Action.INTEGRATE) == columns * 17
    assert work.total(Action.ADC_CONVERSION) == columns * 3


def test_serial_activity_counts_ones() -> None:
    mapping = one_layer(**changed(SERIAL))
    vectors = np.random.default_rng(0).integers(0, 256, (50, 20))
    work = count(mapping, activity_of(mapping, {"only": vectors}))
    ones = np.bitwise_count(vectors).mean(0).sum()
    assert work.total(Action.ROW_DRIVE) == pytest.approx(2 * ones)


def test_serial_read_time() -> None:
    chip = small_chip(**changed(SERIAL))
    parts = components(chip)
    for width in (1, 2, 3):
        more = read_time(chip, parts.values(), 16, width) - read_time(chip, parts.values(), 16, 1)
        assert more == pytest.approx(
            (width - 1) * parts["row_driver"].latency + ((1 << width) - 2) * parts["integrator"].latency
        )


def test_and_readout_by_hand() -> None:
    mapping = one_layer(**changed(AND))
    work = count(mapping)
    columns = 6 * 8  # 1-bit cells
    assert work.total(Action.BULK_AND) == work.total(Action.POPCOUNT) == 20 * columns * 8
    assert work.total(Action.INPUT_WRITE) == 20 * 3 * 8  # three column blocks, eight planes
    for action in (Action.ROW_DRIVE, Action.ARRAY_READ, Action.SAMPLE_HOLD, Action.ADC_CONVERSION):
        assert work.total(action) == 0
    report = estimate(mapping)
    assert any("worn out" in text for text in report.assumptions)
    assert "adc" not in report.components


def test_and_readout_senses_every_cell_whatever_the_input() -> None:
    mapping = one_layer(**changed(AND))
    dark = activity_of(mapping, {"only": np.zeros((4, 20), np.int64)})
    assert estimate(mapping, dark).dynamic_j == pytest.approx(estimate(mapping).dynamic_j)


@pytest.mark.parametrize(("field", "value"), [("array.b_dac", 2), ("array.b_adc", 4)])
def test_and_readout_refuses_what_it_cannot_do(field: str, value: int) -> None:
    with pytest.raises(InputError):
        small_chip(**changed({**AND, field: value}))


def test_the_and_engine_differs_from_the_analog_chip_in_its_array_alone() -> None:
    engine, analog = load("sot-mram-and"), load("sot-mram")
    assert engine.device == analog.device
    assert engine.hierarchy == analog.hierarchy
    shared = ("shift_add", "buffer", "input_register", "output_register", "activation")
    one, other = components(engine), components(analog)
    assert all(one[name].energy == other[name].energy for name in shared)
    assert {a for p in one.values() for a in p.actions} == expected_actions(engine)


@settings(deadline=None, max_examples=15)
@given(weights=st.integers(1, 8), inputs=st.integers(1, 8))
def test_energy_of_the_and_engine_follows_weight_bits_times_input_bits(weights: int, inputs: int) -> None:
    """I·W = Σ 2^(m+n)·popcount(AND(W_n, I_m)): one AND a pair of planes."""
    found = peak(load("sot-mram-and"), inputs, weights)
    once = peak(load("sot-mram-and"), 1, 1)
    for name in ("sense", "counter"):
        ratio = (found.power[name] / found.tile.rate) / (once.power[name] / once.tile.rate)
        assert ratio == pytest.approx(weights * inputs, rel=1e-3), name  # leakage apart


@settings(deadline=None, max_examples=15)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 12), weights=st.integers(2, 8), inputs=st.integers(1, 8),
    kept=st.floats(0.1, 1),
)  # fmt: skip
def test_a_network_on_the_and_engine_pays_for_weight_bits_times_input_bits_times_kept_weights(
    rows: int, columns: int, weights: int, inputs: int, kept: float
) -> None:
    """Whatever the shape and however much of it is pruned by rows and columns: footprint, writes and energy follow."""

    def mapped(rows: int, columns: int) -> Mapping:
        x = Input(name="x", inputs=(), format=Format(inputs, False), shape=(rows,))
        node = linear(np.random.default_rng(3), x, "only", columns, weight_bits=weights)
        node.layer.core[node.layer.core == 0] = 1
        return map_program(program([x, node]), small_chip("sot-mram-and", array__b_adc=8, precision__weights=weights))

    few = max(round(rows * kept), 1), max(round(columns * kept), 1)
    for at in ((rows, columns), few):
        mapping = mapped(*at)
        report = estimate(mapping)
        bits = at[0] * at[1] * weights
        assert count(mapping).total(Action.BULK_AND) == count(mapping).total(Action.POPCOUNT) == bits * inputs
        assert report.programming.cells == bits
        parts = components(mapping.chip)
        assert report.components["sense"].energy_j == pytest.approx(bits * inputs * parts["sense"].energy)
    all_, less = estimate(mapped(rows, columns)), estimate(mapped(*few))
    assert less.crossbars <= all_.crossbars
    for name in ("sense", "counter", "input_writer"):
        assert less.components[name].energy_j <= all_.components[name].energy_j * (1 + 1e-12)
        assert less.components[name].area_m2 <= all_.components[name].area_m2
        assert less.components[name].leakage_w <= all_.components[name].leakage_w
    assert less.programming.energy_j <= all_.programming.energy_j


@settings(deadline=None, max_examples=12)
@given(st.integers(3, 11), st.sampled_from(["neurosim-rram", "isaac", "rram-binary"]))
def test_more_converter_bits_never_cost_less(bits: int, name: str) -> None:
    source = residual_network(np.random.default_rng(2))
    less, more = (estimate(map_program(source, small_chip(name, array__b_adc=b))) for b in (bits, bits + 1))
    assert more.energy_j >= less.energy_j
    assert more.area_m2 >= less.area_m2
    assert more.latency_s >= less.latency_s


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**16), st.sampled_from([{}, SERIAL, AND]))
def test_parts_sum_to_the_whole_and_skipping_never_adds(seed: int, mode: dict[str, object]) -> None:
    mapping = one_layer(**changed(mode))
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, 256, (20, 20)) * (rng.random((20, 20)) < rng.random())
    measured = activity_of(mapping, {"only": vectors})
    full, seen = estimate(mapping), estimate(mapping, measured)
    skipped = estimate(mapping, measured, zero_skipping=True)
    assert skipped.dynamic_j <= seen.dynamic_j * (1 + 1e-12)
    assert seen.dynamic_j <= full.dynamic_j * (1 + 1e-12)
    assert skipped.latency_s <= seen.latency_s * (1 + 1e-12)
    for report in (full, seen, skipped):
        layers = sum(layer.energy_j for layer in report.layers) + report.chip_level["leakage_j"]
        parts = sum(part.energy_j + part.leakage_j for part in report.components.values())
        levels = sum(level["energy_j"] for level in report.levels.values())
        assert layers == pytest.approx(report.energy_j)
        assert parts == pytest.approx(report.energy_j)
        assert levels == pytest.approx(report.energy_j)
        assert sum(layer.area_m2 for layer in report.layers) + report.chip_level["area_m2"] == pytest.approx(
            sum(part.area_m2 for part in report.components.values())
        )


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4), st.sampled_from([{}, SERIAL, AND]))
def test_twice_the_rows_of_work_twice_the_reads(blocks: int, mode: dict[str, object]) -> None:
    def reads(rows: int) -> float:
        rng = np.random.default_rng(0)
        x = Input(name="x", inputs=(), format=Format(8, False), shape=(rows,))
        work = count(map_program(program([x, linear(rng, x, "only", 6)]), small_chip(**changed(mode))))
        return work.total(Action.ARRAY_READ) + work.total(Action.BULK_AND)

    assert reads(2 * 16 * blocks) == 2 * reads(16 * blocks)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.1, 10), st.sampled_from(["energy", "area", "latency", "leakage"]))
def test_a_calibration_scales_its_part_and_nothing_else(factor: float, quantity: str) -> None:
    source = {"components.calibration": {"adc": {quantity: factor, "source": "test"}}}
    chip, plain = load("rram-binary", source), components(load("rram-binary"))
    fitted, raw = components(chip), components(chip, calibrated=False)
    assert {n: p.model_dump() for n, p in raw.items()} == {n: p.model_dump() for n, p in plain.items()}
    for name, part in fitted.items():
        scale = factor if name == "adc" else 1.0
        assert getattr(part, quantity) == pytest.approx(scale * getattr(plain[name], quantity))
    assert "calibrated" in fitted["adc"].source or math.isclose(factor, 1.0)
    assert chip.hash != load("rram-binary").hash


def test_a_calibrated_report_prints_raw_figures_beside() -> None:
    source = residual_network(np.random.default_rng(2))
    found = estimate(map_program(source, load("rram-40nm")))
    assert found.raw is not None
    assert found.raw["energy_j"] > found.energy_j, "the cells' factor is below one"
    assert found.raw["latency_s"] < found.latency_s, "sensing takes longer than the raw converter"
    assert {"uncalibrated energy", "uncalibrated area", "uncalibrated latency"} <= set(found.totals())
    assert estimate(map_program(source, load("rram-binary"))).raw is None


def test_an_unknown_calibration_names_the_nearest() -> None:
    chip = load("rram-binary", {"components.calibration": {"adcs": {"energy": 2.0, "source": "test"}}})
    with pytest.raises(InputError) as caught:
        components(chip)
    assert caught.value.nearest == "adc"
