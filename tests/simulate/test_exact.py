"""Every engine of the exact rungs against brute force, read by read."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping, cut, packed
from crossloom.simulate import Adc, Calibration, Settings, engine, engines
from crossloom.simulate.adc import array_adc
from crossloom.simulate.counters import PIECES
from crossloom.simulate.crossbar_plan import plan
from crossloom.simulate.reference import accumulate
from crossloom.weave import Convolution, Format, InputTransform
from tests.simulate.exact_cases import Case, cases, codes, make_array, make_layer

slow_first_call = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def kernel(name: str, mapping: LayerMapping, **options: object):
    return engine(name).prepare(mapping, Settings(**options))


def brute(mapping: LayerMapping, adc: Adc, x: np.ndarray) -> np.ndarray:
    """DESIGN §2 in rational numbers: every row, digit, slice and read by itself. Nothing of the package's engines."""
    array, z = mapping.array, mapping.layer.transform.apply(x)
    total = np.full((len(x), mapping.layer.core.shape[0] * mapping.layer.core.shape[2]), Fraction(0))
    whole = np.zeros(total.shape, np.int64)
    top = 2**array.b_cell - 1
    for block in mapping.blocks:
        cells, rows, columns = mapping.cells(block), mapping.core_rows(block), mapping.core_columns(block)
        for v in range(len(x)):
            for c in range(cells.levels.shape[1]):
                n, piece = columns[c // mapping.code.columns], mapping.code.slices[c % mapping.code.columns]
                for first in range(0, len(rows), array.active_rows):
                    for digit in mapping.digits:
                        driven = range(first, min(first + array.active_rows, len(rows)))
                        values = [int(z[v, rows[h]]) >> digit.lsb & (2**digit.width - 1) for h in driven]
                        p = sum(a * int(cells.levels[h, c]) for a, h in zip(values, driven, strict=True))
                        delta, low = Fraction(adc.step, adc.denominator), Fraction(adc.low, adc.denominator)
                        code = min(max(math.floor((p - low) / delta + Fraction(1, 2)), 0), 2**adc.bits - 1)
                        worth = piece.gain * digit.weight
                        if cells.flipped[c]:
                            whole[v, n] += worth * top * sum(values)
                            worth = -worth
                        if mapping.code.encoding == "polarised":
                            held = [int(mapping.weights(block)[h, c // mapping.code.columns]) for h in driven]
                            worth = -worth if min(held) < 0 else worth
                        total[v, n] += worth * (low + delta * code)
            for n in columns:
                whole[v, n] += mapping.code.input_gain * int(z[v, rows].sum())
    rounded = np.array([[math.floor(q + Fraction(1, 2)) for q in row] for row in total], np.int64)
    return rounded.reshape(total.shape) + whole


@slow_first_call
@given(cases())
def test_reference_is_the_definition(case: Case) -> None:
    x = case.vectors()[:2]
    adc = array_adc(case.mapping.array)
    assert np.array_equal(accumulate(case.mapping, adc, x), brute(case.mapping, adc, x))


@slow_first_call
@given(cases(), st.booleans())
def test_engines_equal_the_reference(case: Case, shortcut: bool) -> None:
    expected = case.as_output(accumulate(case.mapping, array_adc(case.mapping.array), case.vectors()))
    for name in ("crossbar", "tensor", "reference"):
        found = kernel(name, case.mapping, shortcut=shortcut)(case.x)
        assert found.shape == expected.shape, name
        assert torch.equal(found.to(torch.int64), expected), name


@slow_first_call
@given(cases())
def test_integer_engine_is_the_layer(case: Case) -> None:
    expected = case.as_output(case.mapping.layer.accumulate(case.vectors()))
    for target in (case.mapping, case.mapping.layer):
        found = engine("integer").prepare(target, Settings())(case.x)
        assert torch.equal(found.to(torch.int64), expected)


@slow_first_call
@given(cases(), st.integers(1, 9), st.floats(0.3, 9.0), st.floats(-5.0, 20.0))
def test_calibrated_converters(case: Case, bits: int, delta: float, low: float) -> None:
    array = case.mapping.array.model_copy(update={"adc_range": "calibrated", "b_adc": bits})
    mapping = cut(case.mapping.layer, array)
    adc = Adc.of(bits, delta, low)
    expected = case.as_output(accumulate(mapping, adc, case.vectors()))
    assert np.array_equal(accumulate(mapping, adc, case.vectors()[:1]), brute(mapping, adc, case.vectors()[:1]))
    for name in ("crossbar", "tensor"):
        found = kernel(name, mapping, calibration=Calibration({"layer": adc}))(case.x)
        assert torch.equal(found.to(torch.int64), expected), name


@slow_first_call
@given(cases())
def test_a_lossless_converter_gives_the_integer_product(case: Case) -> None:
    array = case.mapping.array.model_copy(update={"b_adc": max(case.mapping.array.read_max.bit_length(), 1)})
    mapping = cut(case.mapping.layer, array)
    expected = case.as_output(case.mapping.layer.accumulate(case.vectors()))
    for name in ("crossbar", "tensor"):
        assert torch.equal(kernel(name, mapping, shortcut=False)(case.x).to(torch.int64), expected), name
    assert torch.equal(kernel("crossbar", mapping)(case.x).to(torch.int64), expected)


def wide_case(positions: int, **array: object) -> Case:
    """A layer of several row groups, more than one counting pass long."""
    rng = np.random.default_rng(3)
    form = Format(8, True)
    layer = make_layer(InputTransform.identity(700), 5, rng, form=form)
    made = make_array(rows=600, active_rows=600, b_adc=7, **array)
    mapping = cut(packed(layer, made.fragment), made)
    return Case(mapping, codes(form, (positions, 700), rng))


@pytest.mark.parametrize("positions", [1, 63, 64, 65, 500, 1024, 2100])
@pytest.mark.parametrize("encoding", ["offset", "differential", "twos_complement", "polarised"])
def test_any_number_of_positions(positions: int, encoding: str) -> None:
    case = wide_case(positions, encoding=encoding)
    expected = kernel("tensor", case.mapping)(case.x)
    assert torch.equal(kernel("crossbar", case.mapping)(case.x).to(torch.int64), expected)


def test_memory_budget_does_not_change_results() -> None:
    case = wide_case(2100)
    expected = kernel("crossbar", case.mapping)(case.x)
    for budget in (1, 100_000, 3_000_000):
        for name in ("crossbar", "tensor"):
            found = kernel(name, case.mapping, memory_budget=budget)(case.x[:300] if name == "tensor" else case.x)
            assert torch.equal(found.to(torch.int64), expected[: len(found)].to(torch.int64)), (name, budget)


def test_batches_do_not_see_each_other() -> None:
    rng = np.random.default_rng(1)
    layer = make_layer(
        InputTransform.identity(27),
        9,
        rng,
        convolution=Convolution((3, 3), (1, 1), (1, 1, 1, 1)),
        form=Format(8, False, 1.0, 7),
    )
    case = Case(cut(layer, make_array()), codes(layer.input_format, (37, 3, 13, 11), rng))
    for name in ("crossbar", "integer"):
        whole = kernel(name, case.mapping)(case.x)
        parts = [kernel(name, case.mapping)(part) for part in case.x.split(5)]
        assert torch.equal(whole, torch.cat(parts)), name


def digest() -> str:
    """A checksum of outputs on fixed inputs, to be compared between processes."""
    case = wide_case(1500)
    found = [kernel(name, case.mapping)(case.x).to(torch.int64) for name in ("crossbar", "integer")]
    weights = torch.arange(1, found[0].numel() + 1).reshape(found[0].shape)
    return " ".join(str(int((f * weights).sum())) for f in found)


def test_threads_do_not_change_results() -> None:
    program = "from tests.simulate.test_exact import digest; print(digest())"
    seen = set()
    for threads in ("1", "2"):
        environment = os.environ | {"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout.strip())
    assert len(seen) == 1
    assert seen != {""}


def test_an_empty_core_reads_nothing() -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(InputTransform.identity(20), 4, rng, zeros=1.0)
    mapping = cut(layer, make_array())
    assert not mapping.blocks
    x = codes(layer.input_format, (6, 20), rng)
    for name in ("crossbar", "tensor", "reference", "integer"):
        assert not kernel(name, mapping)(x).any(), name


@pytest.mark.parametrize("b_cell", [1, 2])
def test_reads_are_those_of_the_programmed_cells(b_cell: int) -> None:
    """Along the counters that a read continues, every set cell of its column is counted once; nothing else is."""
    rng = np.random.default_rng(5)
    layer = make_layer(InputTransform.identity(300), 6, rng)
    mapping = cut(layer, make_array(active_rows=100, rows=300, b_cell=b_cell))
    made = plan(mapping)
    wanted = [
        tuple(sorted(int(made.places[h]) for h in np.flatnonzero(levels >> bit & 1) + first))
        for block in mapping.blocks
        for first in range(0, 300, 100)
        for levels in mapping.cells(block).levels[first : first + 100].T
        for bit in range(b_cell)
    ]
    found, counters = [], {}
    for unit in range(len(made.step_start) - 1):
        for piece, at, base, source, target, read, _, slot in made.steps[slice(*made.step_start[unit : unit + 2])]:
            held, length = PIECES[piece]
            rows = made.rows[at : at + length]
            before = counters[source] if held else ()
            counters[target] = (*before, *(int(base + r) for r in rows[rows > 0]))
            if read >= 0 or slot >= 0:
                found.append(tuple(sorted(counters[target])))
    assert sorted(found) == sorted(wanted)
    assert np.count_nonzero(made.rows) < 0.8 * sum(map(len, wanted))
    assert len(np.unique(made.places)) == len(made.places)


def test_weights_and_codes_beyond_a_byte() -> None:
    rng = np.random.default_rng(2)
    for bits, weight_bits in ((16, 12), (31, 16)):
        form = Format(bits, True)
        layer = make_layer(InputTransform.identity(90), 7, rng, weight_bits=weight_bits, form=form)
        x = codes(form, (40, 90), rng)
        found = engine("integer").prepare(layer, Settings())(x)
        assert torch.equal(found.to(torch.int64), torch.from_numpy(layer.accumulate(x.numpy().astype(np.int64))))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["integer", "crossbar", "tensor"])
def test_cuda_equals_the_cpu(name: str) -> None:
    case = wide_case(300)
    expected = kernel(name, case.mapping)(case.x).to(torch.int64)
    found = kernel(name, case.mapping, device=torch.device("cuda"))(case.x.cuda())
    assert torch.equal(found.cpu().to(torch.int64), expected)


def test_engines_are_found_and_refused_by_name() -> None:
    assert {"integer", "crossbar", "tensor", "reference"} <= set(engines())
    with pytest.raises(InputError, match="crossbar"):
        engine("crosbar")
    layer = make_layer(InputTransform.identity(4), 2, np.random.default_rng(0))
    for name in ("crossbar", "tensor", "reference"):
        with pytest.raises(InputError, match="mapping"):
            engine(name).prepare(layer, Settings())
    mapping = cut(layer, make_array(adc_range="calibrated"))
    with pytest.raises(InputError, match="calibration"):
        kernel("crossbar", mapping)


@pytest.mark.parametrize("low", [0.0, -3.0])
def test_row_groups_without_a_set_bit(low: float) -> None:
    """They are left out where their code is 0, and read where it is not."""
    array = make_array(rows=64, active_rows=16, adc_range="calibrated", b_adc=5)
    rng = np.random.default_rng(7)
    layer = make_layer(InputTransform.identity(64), 3, rng)
    mapping = cut(layer, array)
    x = codes(layer.input_format, (1100, 64), rng)
    x[:, 16:48] = 0
    x[:, 48:] &= 3
    adc = Adc.of(5, 0.7, low)
    found = kernel("crossbar", mapping, calibration=Calibration({"layer": adc}))(x)
    assert np.array_equal(found.numpy(), accumulate(mapping, adc, x.numpy().astype(np.int64)))
