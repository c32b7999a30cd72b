"""The analog rung against plain loops, closed forms, and itself cut up in every way."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping, map_program, packed
from crossloom.simulate import Executor, Settings, engine
from crossloom.simulate.adc import array_adc
from crossloom.simulate.analog_chip import AnalogChip, Conditions, ReadNoise, program_block
from crossloom.simulate.analog_chips import ChipSet, chip_accuracy
from crossloom.simulate.analog_lookup import LookupKernel
from crossloom.simulate.analog_noise import (
    LOUDEST,
    POOL,
    ROOT_SCALE,
    UNIT,
    amplitudes,
    normals,
    place_keys,
    pools,
    vector_keys,
)
from crossloom.simulate.analog_plan import plan, smooth_table
from crossloom.simulate.analog_tensor import TensorPlan
from crossloom.simulate.devices import WriteVerify
from crossloom.weave import Convolution, Format, Input, Program, Woven
from tests.simulate.analog_cases import array_of, cut, layer_of, random_core, run

NOISE: list[dict[str, Any]] = [
    {"device__variation": {"model": "lognormal", "sigma": 0.3}},
    {"device__variation": {"model": "gaussian", "sigma": 0.05}, "device__stuck_hrs": 0.09, "device__stuck_lrs": 0.02},
    {"array__adc_errors": {"offset_sigma": 0.7, "gain_sigma": 0.03}},
    {"array__adc_errors": {"inl": 0.6}, "device__drift": {"exponent": 0.05, "exponent_sigma": 0.01}},
]


@st.composite
def cases(draw: st.DrawFn, **fields: Any) -> tuple[LayerMapping, np.ndarray, Any]:
    bits = draw(st.sampled_from([1, 2, 4, 8]))
    encoding = draw(st.sampled_from(["offset", "differential", "twos_complement", "polarised"]))
    rows, columns = draw(st.integers(3, 40)), draw(st.integers(16, 70))
    flip = encoding == "offset" and draw(st.booleans())
    divisors = [n for n in range(1, rows + 1) if encoding != "polarised" or rows % n == 0]
    chip = array_of(
        rows, columns, encoding=encoding, b_cell=draw(st.sampled_from([1, 2])), flip=flip,
        active=rows if flip else draw(st.sampled_from(divisors)), b_dac=draw(st.sampled_from([1, 1, 2, 3])),
        b_adc=draw(st.integers(1, 9)), adc_range=draw(st.sampled_from(["full", "unit"])),
        per_adc=draw(st.integers(1, 16)), **fields,
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    core = random_core(
        rng, (draw(st.integers(1, 3)), draw(st.integers(1, 60)), draw(st.integers(1, 9))), bits, encoding
    )
    form = Format(draw(st.integers(1, 9)), draw(st.booleans()))
    if form.bits == 1 and form.signed:
        form = Format(1, False)
    layer = layer_of(core, bits, form)
    kind = np.int16 if form.bits > 8 else np.int8 if form.signed else np.uint8
    x = rng.integers(form.low, form.high + 1, (draw(st.integers(1, 40)), layer.inputs)).astype(kind)
    return cut(packed(layer, chip.array.fragment), chip.array), x, chip


@settings(max_examples=25, deadline=None)
@given(cases())
@pytest.mark.parametrize("name", ["analog", "analog-tensor", "analog-reference"])
def test_a_perfect_chip_equals_the_crossbar_rung_bit_for_bit(name: str, case: Any) -> None:
    mapping, x, chip = case
    expected = run(mapping, None, x, "reference")
    for conditions in (Conditions(), Conditions(on_off="infinite"), Conditions(reference="cells", reference_columns=3)):
        assert np.array_equal(run(mapping, AnalogChip.of(chip, 5, 2, conditions), x, name), expected)


def on_grid(mapping: LayerMapping, chip: AnalogChip, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accumulators by float64 loops over cells, and how many of their conversions could go either way."""
    adc = array_adc(mapping.array)
    made = plan(mapping, adc, chip)
    layer, z = mapping.layer, mapping.layer.transform.apply(x.astype(np.int64))
    outputs = layer.core.shape[0] * layer.core.shape[2]
    total, slack = np.zeros((len(x), outputs), np.int64), np.zeros((len(x), outputs), np.int64)
    correction = np.zeros_like(total)
    top = (1 << mapping.array.b_cell) - 1
    for i, block in enumerate(mapping.blocks):
        real, rows = program_block(mapping, i, 0, chip), mapping.core_rows(block)
        errors, columns = real.converters, mapping.core_columns(block)
        for c in range(real.conductance.shape[1]):
            n, gain = columns[c // mapping.code.columns], mapping.code.slices[c % mapping.code.columns].gain
            for first in range(0, len(rows), mapping.array.active_rows):
                stop = min(first + mapping.array.active_rows, len(rows))
                for digit in mapping.digits:
                    p, driven = np.zeros(len(x)), np.zeros(len(x), np.int64)
                    for h in range(first, stop):
                        piece = (z[:, rows[h]] >> digit.lsb) & ((1 << digit.width) - 1)
                        p += piece * (real.conductance[h, c] - real.reference[h])
                        driven += piece
                    v = (p - adc.p_min) / adc.delta
                    u = np.clip(v, 0, adc.top) / adc.top
                    bow = errors.inl[0, c] * 4 * u * (1 - u)
                    bow += errors.inl[1, c] * 12 * math.sqrt(3) * u * (u - 0.5) * (u - 1)
                    v = errors.gain[c] * v + errors.offset[c] + bow + 0.5
                    code = np.clip(np.floor(v), 0, adc.top).astype(np.int64)
                    near = np.abs(v - np.rint(v)) <= made.grid.error + 1e-9
                    sign = -1 if real.flipped[c] else 1
                    if mapping.code.encoding == "polarised":
                        sign = -1 if mapping.weights(block)[first:stop, c // mapping.code.columns].min() < 0 else 1
                    total[:, n] += sign * gain * digit.weight * code
                    slack[:, n] += abs(gain * digit.weight) * near
                    if real.flipped[c]:
                        correction[:, n] += gain * top * digit.weight * driven
        correction[:, columns] += mapping.code.input_gain * z[:, rows].sum(1)[:, None]
    return adc.total(total, made.count) + correction, np.ceil(slack * adc.delta).astype(np.int64) + (slack > 0)


@settings(max_examples=8, deadline=None)
@given(st.data(), st.sampled_from(["ideal", "cells", "none"]))
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("name", ["analog", "analog-tensor", "analog-reference"])
def test_imperfect_chips_equal_float64_loops_within_the_stated_error(
    name: str, noise: dict[str, Any], data: Any, reference: Any
) -> None:
    mapping, x, chip = data.draw(cases(**noise))
    real = AnalogChip.of(chip, 1, 3, Conditions(time=100.0, reference=reference))
    expected, slack = on_grid(mapping, real, x)
    out = run(mapping, real, x, name)
    assert np.all(np.abs(out - expected) <= slack)
    adc = array_adc(mapping.array)
    made = plan(mapping, adc, real)
    assert made.grid.error < 0.1
    for i, block in enumerate(made.blocks):
        rounding = block.cells / made.grid.scale - program_block(mapping, i, 0, real).weights
        assert np.abs(rounding).max(initial=0) <= (0.5 + 0.5 * made.grid.balanced) / made.grid.scale + 1e-12


@settings(max_examples=15, deadline=None)
@given(st.data(), st.booleans())
@pytest.mark.parametrize("law", ["cell", "proportional", "root", "table", None])
def test_the_fast_engine_and_torch_give_the_same_bits(law: str | None, data: Any, exact: bool) -> None:
    noise = data.draw(st.sampled_from(NOISE))
    adc = {"noise_sigma": 0.3, **noise.get("array__adc_errors", {})}
    mapping, x, chip = data.draw(
        cases(**{**noise, "array__adc_errors": adc if exact else noise.get("array__adc_errors", {})})
    )
    table = ((0.0, 0.1), (4.0, 0.5)) if law == "table" else ()
    noise_law = ReadNoise(law, None if law == "table" else 0.05, table, exact=exact) if law else ReadNoise()
    real = AnalogChip.of(chip, 1, 3, Conditions(read_noise=noise_law))
    assert np.array_equal(run(mapping, real, x, "analog"), run(mapping, real, x, "analog-tensor"))


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
@pytest.mark.parametrize("stuck", [False, True])
def test_crimp_formula_cell_for_cell(epsilon: float, stuck: bool) -> None:
    """Y = ideal + Σ_{s,b,d} 4^s·2^b·Round(MAC(bit_b(x)[d], slice_s(w)[d]·(e^θ − 1))), (stuck − c) for stuck cells."""
    chip = array_of(
        128, 128, b_cell=2, b_dac=1, b_adc=11, adc_range="unit", encoding="offset",
        device__variation={"model": "lognormal", "sigma": epsilon},
        device__stuck_hrs=0.0904 * stuck, device__stuck_lrs=0.0175 * stuck,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    core, x = random_core(rng, (1, 200, 6), 8, "offset"), rng.integers(0, 256, (5, 200)).astype(np.uint8)
    mapping = cut(layer_of(core), chip.array)
    real = AnalogChip.of(chip, 7, 1, Conditions(on_off="infinite"))
    made = plan(mapping, array_adc(mapping.array), real)

    def crimp(grid: bool) -> np.ndarray:
        y = x.astype(np.int64) @ core[0]
        for d, block in enumerate(mapping.blocks):
            cells, g = mapping.cells(block).levels, program_block(mapping, d, 0, real).conductance
            g = made.blocks[d].cells / made.grid.scale if grid else g
            for v in range(len(x)):
                for n in range(core.shape[2]):
                    for s in range(4):
                        for b in range(8):
                            mac = 0.0
                            for h, k in enumerate(mapping.core_rows(block)):
                                mac += ((int(x[v, k]) >> b) & 1) * (g[h, 4 * n + s] - int(cells[h, 4 * n + s]))
                            y[v, n] += 4**s * 2**b * math.floor(mac + 0.5)
        return y

    assert np.array_equal(run(mapping, real, x, "analog-reference"), crimp(grid=False))
    assert made.grid.error < 0.1
    if not made.grid.narrow:
        assert np.array_equal(run(mapping, real, x, "analog"), crimp(grid=True))
    else:
        assert np.array_equal(run(mapping, real, x, "analog"), run(mapping, real, x, "analog-tensor"))
    ones = mapping.cells(mapping.blocks[0]).levels > 0
    if not stuck:
        levels = mapping.cells(mapping.blocks[0]).levels[ones]
        theta = np.log(program_block(mapping, 0, 0, real).conductance[ones] / levels)
        assert abs(theta.std() - epsilon) < 3 * epsilon / math.sqrt(2 * theta.size)


def column_reads(real: AnalogChip, mapping: LayerMapping, x: np.ndarray, count: int) -> np.ndarray:
    """`count` reads of every column of the first array for one binary input vector, in level steps."""
    made = plan(mapping, array_adc(mapping.array), real)
    tensors = TensorPlan(made, mapping, torch.device("cpu"))
    keys = torch.from_numpy(vector_keys(0, count, 1, 0).view(np.int64))
    piece = torch.from_numpy(x.astype(np.int64))[None].expand(count, -1)
    return tensors.reads(0, 0, 0, piece, keys).numpy() / made.grid.scale


READS = 20_000


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("law", ["cell", "proportional", "root", "table"])
@pytest.mark.parametrize("b_adc", [6, 12])
def test_read_noise_has_the_mean_and_variance_of_its_law(law: Any, exact: bool, b_adc: int) -> None:
    chip = array_of(96, 64, b_cell=1, b_dac=1, b_adc=b_adc, adc_range="full", encoding="offset",
                    device__variation={"model": "lognormal", "sigma": 0.1}, device__read_noise=0.05)  # fmt: skip
    rng = np.random.default_rng(1)
    mapping = cut(layer_of(random_core(rng, (1, 96, 8), 8, "offset")), chip.array)
    table = ((10.0, 0.1), (40.0, 0.7)) if law == "table" else ()
    real = AnalogChip.of(chip, 3, 0, Conditions(read_noise=ReadNoise(law, None, table, 0.05, exact)))
    x = rng.integers(0, 2, 96)
    reads = column_reads(real, mapping, x, READS)
    made = program_block(mapping, 0, 0, real)
    p = x @ made.weights
    variance = {
        "cell": 0.05**2 * (x @ made.conductance**2),
        "proportional": (0.05 * p) ** 2,
        "root": 0.05**2 * p,
        "table": np.interp(p, (10.0, 40.0), (0.1, 0.7)) ** 2,
    }[law] + 0.05**2
    scale = plan(mapping, array_adc(mapping.array), real).grid.scale
    score = (reads.mean(0) - p) / np.sqrt(variance / READS)
    bias = 64 / scale / np.sqrt(variance / READS)
    assert np.all(np.abs(score) < 4 + bias) and abs(score.mean()) < 3 / 8 + bias.max()
    ratio = reads.var(0) / (variance + 1 / 12 / scale**2)
    error = math.sqrt(2 / READS)
    estimated = 0.02 * 2 if law == "cell" and not exact else 0.0
    assert np.all(np.abs(ratio - 1) < 4 * error + 3 * estimated)
    assert abs(ratio.mean() - 1) < 3 * error / 8 + estimated + 2e-3


def test_conversion_noise_adds_in_variance() -> None:
    chip = array_of(64, 64, b_cell=1, b_dac=1, b_adc=6, adc_range="full", encoding="offset",
                    device__read_noise=0.02, adc_errors={"noise_sigma": 0.4})  # fmt: skip
    rng = np.random.default_rng(1)
    mapping = cut(layer_of(random_core(rng, (1, 64, 8), 8, "offset")), chip.array)
    real = AnalogChip.of(chip, conditions=Conditions(on_off="infinite"))
    x = np.ones(64, np.int64)
    reads = column_reads(real, mapping, x, READS)
    p = mapping.cells(mapping.blocks[0]).levels.sum(0)
    variance = 0.02**2 * p + (0.4 * array_adc(mapping.array).delta) ** 2
    assert np.all(np.abs(reads.var(0) / variance - 1) < 4.5 * math.sqrt(2 / READS))
    assert np.abs(np.corrcoef(reads.T) - np.eye(64)).max() < 5 / math.sqrt(READS)


def test_reference_cells_vary_and_cancel_in_the_mean() -> None:
    chip = array_of(128, 64, b_cell=1, b_dac=1, b_adc=6, adc_range="full", encoding="offset",
                    device__r_on=1e3, device__r_off=5e3,
                    device__variation={"model": "lognormal", "sigma": 0.2})  # fmt: skip
    mapping = cut(layer_of(np.full((1, 128, 8), -128)), chip.array)
    floor = (1 / 5e3) / (1 / 1e3 - 1 / 5e3)

    def shifts(**fields: Any) -> np.ndarray:
        chips = [AnalogChip.of(chip, 0, k, Conditions(**fields)) for k in range(400)]
        return np.array([program_block(mapping, 0, 0, c).weights.sum(0)[0] for c in chips])

    mean, spread = 128 * floor * math.exp(0.02), math.sqrt(128) * floor * math.exp(0.02) * math.sqrt(math.expm1(0.04))
    for fields, centre, sigma in (
        ({"reference": "none"}, mean, spread),
        ({"reference": "ideal"}, mean - 128 * floor, spread),
        ({"reference": "cells"}, 0.0, spread * math.sqrt(2)),
        ({"reference": "cells", "reference_columns": 4}, 0.0, spread * math.sqrt(1.25)),
    ):
        seen = shifts(**fields)
        assert abs(seen.mean() - centre) < 3 * sigma / 20
        assert abs(seen.std() / sigma - 1) < 3 / math.sqrt(2 * 400) + 0.02


def test_the_table_of_normals_is_normal_and_reads_are_independent() -> None:
    tables = pools().astype(float) / UNIT
    assert abs(tables[:, :POOL].var() - 0.5) < 1e-4 and abs(tables[:, :POOL].mean()) < 1e-4
    for lag in range(1, 32):
        assert np.abs((tables[:, :POOL] * np.roll(tables[:, :POOL], lag, 1)).mean(1)).max() < 0.002
    places = torch.from_numpy(place_keys(0, ("a",), 4).view(np.int64))
    names = torch.from_numpy(vector_keys(0, 4000, 100, 7).view(np.int64))
    z = normals(places, names, 128, torch.from_numpy(pools().astype(np.int64))).double() / UNIT
    n = z.numel()
    assert abs(float(z.mean())) < 3 / math.sqrt(n) and abs(float(z.var()) - 1) < 3 * math.sqrt(2 / n)
    kurtosis = float((z**4).mean()) - 3
    assert abs(kurtosis) < 3 * math.sqrt(24 / n) + 0.01
    for lag in (1, 2, 5, 100):
        assert abs(float((z[lag:] * z[:-lag]).mean())) < 4 / math.sqrt(n)
    assert abs(float((z[:, 1:] * z[:, :-1]).mean())) < 4 / math.sqrt(n)
    v = torch.arange(LOUDEST + 1)
    assert float((amplitudes(v) * ROOT_SCALE - 512 * v.sqrt()).abs().max()) < 1.1e-3 * 512 * LOUDEST**0.5 + 1
    assert float((amplitudes(v) * ROOT_SCALE / (512 * v.sqrt()) - 1)[64:].abs().max()) < 1.1e-3 + 1 / 4096
    assert int(amplitudes(v).max()) < 1 << 15


def network(chip: Any, copies: int = 1) -> Any:
    rng = np.random.default_rng(2)
    form = Format(8, False)
    geometry = Convolution((3, 3), padding=(1, 1, 1, 1))
    first = layer_of(random_core(rng, (1, 27, 5), 8, "offset"), inputs=form, convolution=geometry, name="conv")
    nodes = (
        Input(name="x", inputs=(), format=form, shape=(3, 8, 7)),
        Woven(name="c", inputs=("x",), format=Format(32, True), shape=(5, 8, 7), layer=first),
    )
    return map_program(Program("net", nodes), chip, {"conv": copies})


NOISY: dict[str, Any] = {
    "device__variation": {"model": "lognormal", "sigma": 0.2}, "device__read_noise": 0.05,
    "array__adc_errors": {"noise_sigma": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("copies", [1, 3])
def test_results_do_not_depend_on_batch_split_threads_memory_or_order(copies: int) -> None:
    chip = array_of(16, 64, b_cell=2, b_dac=1, b_adc=6, adc_range="full", encoding="offset", **NOISY)
    mapping = network(chip, copies)
    x = torch.rand(9, 3, 8, 7, generator=torch.Generator().manual_seed(0)) * 255

    def executor(k: int = 0, **fields: Any) -> Executor:
        return Executor(mapping, rung="analog", seed=4, chip_index=k, **fields)

    whole = executor().run(x)
    assert torch.equal(whole, torch.cat([executor().run(x[:4]), executor().run(x[4:], first_image=4)]))
    assert torch.equal(whole, executor(memory_budget=60_000).run(x))
    assert torch.equal(whole, executor(engine_name="analog-tensor").run(x))
    others = [executor(k).run(x) for k in (2, 1, 0)]
    assert torch.equal(whole, others[2]) and not torch.equal(others[0], others[1])
    assert not torch.equal(whole, Executor(mapping, rung="analog", seed=5).run(x))
    before, threads = numba.get_num_threads(), torch.get_num_threads()
    try:
        for count in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(count)
            torch.set_num_threads(count)
            assert torch.equal(whole, executor().run(x))
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(threads)


def test_copies_are_different_arrays_that_take_turns() -> None:
    chip = array_of(32, 64, b_cell=2, b_dac=1, b_adc=6, adc_range="full", encoding="offset",
                    device__variation={"model": "lognormal", "sigma": 0.2})  # fmt: skip
    x = torch.full((1, 3, 8, 7), 100.0)
    one, three = (Executor(network(chip, n), rung="analog").run(x)[0, 0, 1:-1, 1:-1].reshape(-1) for n in (1, 3))
    assert len(one.unique()) == 1 and len(three.unique()) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_bits() -> None:
    chip = array_of(16, 64, b_cell=2, b_dac=1, b_adc=6, adc_range="full", encoding="offset", **NOISY)
    x = torch.rand(9, 3, 8, 7, generator=torch.Generator().manual_seed(0)) * 255
    cpu, gpu = (Executor(network(chip), rung="analog", device=d).run(x).cpu() for d in ("cpu", "cuda"))
    assert torch.equal(cpu, gpu)


def test_write_verify_and_time_reach_the_cells() -> None:
    chip = array_of(128, 64, b_cell=1, b_dac=1, b_adc=6, adc_range="full", encoding="offset",
                    device__variation={"model": "gaussian", "sigma": 0.1}, device__drift={"exponent": 0.1})  # fmt: skip
    mapping = cut(layer_of(random_core(np.random.default_rng(0), (1, 128, 8), 8, "offset")), chip.array)
    levels = mapping.cells(mapping.blocks[0]).levels

    def weights(**fields: Any) -> np.ndarray:
        return program_block(mapping, 0, 0, AnalogChip.of(chip, 0, 0, Conditions(**fields))).weights

    verified = weights(write_verify=WriteVerify(0.05, 50))
    assert np.abs(verified - levels).max() <= 0.05 + 1e-12 < np.abs(weights() - levels).max()
    assert weights(time=1e5) == pytest.approx(weights() * 1e5**-0.1)


SMALL: dict[str, Any] = {"b_cell": 2, "b_adc": 6, "adc_range": "full", "encoding": "offset"}


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("time", lambda: Conditions(time=-1.0)),
        ("on_off", lambda: Conditions(on_off="zero")),  # type: ignore[arg-type]
        ("reference", lambda: Conditions(reference="row")),  # type: ignore[arg-type]
        ("reference_columns", lambda: Conditions(reference_columns=0)),
        ("law", lambda: ReadNoise(law="white")),  # type: ignore[arg-type]
        ("table", lambda: ReadNoise(law="table")),
        ("table", lambda: ReadNoise("table", table=((2.0, 0.1), (1.0, 0.1)))),
        ("sigma", lambda: ReadNoise(sigma=-0.1)),
        ("chip", lambda: Executor(network(array_of(16, 64, **SMALL)), rung="analog", seed=-1)),
        ("chips", lambda: ChipSet(network(array_of(16, 64, **SMALL)), ())),
    ],
)
def test_bad_input_is_named(field: str, make: Any) -> None:
    with pytest.raises(InputError, match=field):
        make()


def test_several_chips_are_each_the_chip_of_its_number() -> None:
    chip = array_of(16, 64, b_cell=2, b_dac=1, b_adc=6, adc_range="full", encoding="offset", **NOISY)
    mapping = network(chip)
    x = torch.rand(7, 3, 8, 7, generator=torch.Generator().manual_seed(0)) * 255
    together = ChipSet(mapping, range(3, 6), seed=4).run(x)
    for i, k in enumerate(range(3, 6)):
        alone = Executor(mapping, rung="analog", seed=4, chip_index=k).run(x)
        assert torch.equal(together[i], alone)
    assert torch.equal(together, ChipSet(mapping, range(3, 6), seed=4, memory_budget=100_000).run(x))
    assert torch.equal(together.flip(0), ChipSet(mapping, (5, 4, 3), seed=4).run(x))


def test_chip_accuracy_counts_right_answers_per_chip() -> None:
    chip = array_of(16, 64, b_cell=2, b_dac=1, b_adc=5, adc_range="full", encoding="offset", **NOISY)
    rng = np.random.default_rng(0)
    layer = layer_of(random_core(rng, (1, 40, 6), 8, "offset"), name="fc")
    form = Format(8, False)
    nodes = (
        Input(name="x", inputs=(), format=form, shape=(40,)),
        Woven(name="y", inputs=("x",), format=Format(32, True), shape=(6,), layer=layer),
    )
    mapping = map_program(Program("net", nodes), chip)
    x = torch.from_numpy(rng.integers(0, 256, (60, 40))).float()
    target = Executor(mapping, rung="integer").run(x).argmax(1)
    batches = [(x[:25], target[:25]), (x[25:], target[25:])]
    made = chip_accuracy(mapping, batches, chips=5, seed=2)
    assert made.images == 60
    for k, value in enumerate(made.values):
        alone = Executor(mapping, rung="analog", seed=2, chip_index=k).run(x).argmax(1)
        assert value == pytest.approx(float((alone == target).double().mean()))
    assert chip_accuracy(mapping, iter(batches), chips=5, seed=2, weight_budget=1).values == made.values
    assert chip_accuracy(mapping, batches, chips=2, seed=2, first_chip=3).values == made.values[3:]
    assert chip_accuracy(mapping, batches, chips=1, seed=2, limit=10).images == 10
    low, high = made.confidence()
    half = 2.7764 * np.std(made.values, ddof=1) / math.sqrt(5)
    assert (low, high) == pytest.approx((made.mean - half, made.mean + half), abs=1e-4)
    with pytest.raises(InputError, match="batches"):
        chip_accuracy(mapping, [], chips=2)
    with pytest.raises(InputError, match="chips"):
        chip_accuracy(mapping, batches, chips=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 2.0), min_size=1, max_size=8), st.integers(1, 20))
def test_a_table_that_is_replaced_is_followed(sigmas: list[float], reach: int) -> None:
    table = tuple((float(p), s) for p, s in enumerate(sigmas))
    found = smooth_table(table, reach)
    p = np.arange(reach + 1.0)
    wanted = np.interp(p, *np.array(table).T)
    if found is not None:
        assert np.sqrt(found[0] + found[1] * p + found[2] * p * p) == pytest.approx(wanted, rel=0.021)
    assert smooth_table(tuple((float(q), 0.2 * math.sqrt(1 + 2 * q)) for q in range(9)), 8) is not None


@pytest.mark.parametrize(
    ("fields", "conditions", "fast"),
    [
        ({}, Conditions(), True),
        ({"device__variation": {"model": "lognormal", "sigma": 0.1}, "device__read_noise": 0.02}, Conditions(), True),
        ({"device__variation": {"model": "lognormal", "sigma": 0.5}, "device__read_noise": 0.02}, Conditions(), True),
        ({"adc_errors": {"offset_sigma": 0.5, "gain_sigma": 0.02, "noise_sigma": 0.2}}, Conditions(), True),
        ({"adc_errors": {"inl": 0.5}}, Conditions(), False),
        ({}, Conditions(read_noise=ReadNoise("table", table=((0.0, 0.1),))), True),
        ({}, Conditions(read_noise=ReadNoise("table", table=((0.0, 0.1),), exact=True)), False),
        ({}, Conditions(read_noise=ReadNoise("table", table=((0.0, 0.1), (3.0, 0.1), (4.0, 2.0)))), False),
    ],
)
def test_which_kernel_runs(fields: dict[str, Any], conditions: Conditions, fast: bool) -> None:
    chip = array_of(128, 128, b_cell=1, b_dac=1, b_adc=6, adc_range="full", encoding="offset", **fields)
    mapping = cut(layer_of(random_core(np.random.default_rng(0), (1, 128, 8), 8, "offset")), chip.array)
    kernel = engine("analog").prepare(mapping, Settings(analog=AnalogChip.of(chip, conditions=conditions)))
    assert isinstance(kernel, LookupKernel) == fast
