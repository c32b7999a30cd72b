"""Converters against rational arithmetic, and ranges fitted to data."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.simulate import Adc, Calibration, array_adc, fit
from crossloom.simulate.adc import multiply_shift, signed_digits
from tests.simulate.exact_cases import make_array

ratios = st.fractions(min_value=Fraction(1, 8), max_value=40, max_denominator=300)
lows = st.fractions(min_value=-20, max_value=60, max_denominator=50)


@given(st.integers(1, 10), ratios, lows, st.integers(0, 400))
def test_code_is_the_definition(bits: int, delta: Fraction, low: Fraction, high: int) -> None:
    adc = Adc.of(bits, delta, low)
    expected = [min(max(math.floor((p - low) / delta + Fraction(1, 2)), 0), 2**bits - 1) for p in range(high + 1)]
    p = np.arange(high + 1, dtype=np.int64)
    assert adc.code(p).tolist() == expected
    assert adc.code(torch.from_numpy(p)).tolist() == expected
    m, c, k = multiply_shift(adc, high)
    assert np.clip((p * m + c) >> k, 0, adc.top).tolist() == expected


@given(ratios, lows, st.integers(-(10**7), 10**7), st.integers(-(10**5), 10**5))
def test_total_rounds_half_up_once(delta: Fraction, low: Fraction, codes: int, count: int) -> None:
    adc = Adc.of(4, delta, low)
    assert adc.total(codes, count) == math.floor(delta * codes + low * count + Fraction(1, 2))


@given(st.integers(1, 6), ratios, lows, st.integers(0, 70))
def test_lossless_means_every_read_comes_back(bits: int, delta: Fraction, low: Fraction, high: int) -> None:
    adc = Adc.of(bits, delta, low)
    back = [low + delta * int(adc.code(np.array([p]))[0]) for p in range(high + 1)]
    assert adc.lossless(high) == (back == list(range(high + 1))) or (high == 0 and not adc.lossless(high))


def test_policies() -> None:
    assert array_adc(make_array(b_adc=6)) == Adc(6, 128, 0, 63)
    assert array_adc(make_array(b_adc=8)) == Adc(8)
    assert array_adc(make_array(b_adc=6, flip=True)) == Adc(6, 64, 0, 63)
    assert array_adc(make_array(b_adc=3, adc_range="unit")) == Adc(3)
    assert array_adc(make_array(b_adc=6, b_cell=2, b_dac=2, active_rows=32)).delta == pytest.approx(32 * 9 / 63)
    with pytest.raises(InputError, match="calibration"):
        array_adc(make_array(adc_range="calibrated"))


@given(st.integers(0, 10**9))
def test_signed_digits_are_canonical(value: int) -> None:
    digits = signed_digits(value)
    assert sum(sign << shift for shift, sign in digits) == value
    shifts = [shift for shift, _ in digits]
    assert all(a - b >= 2 for a, b in itertools.pairwise(shifts))


def test_fitted_ranges() -> None:
    histogram = np.zeros(129, np.int64)
    histogram[40:71] = 1000
    histogram[128] = 1
    wide, cut, best = (fit(histogram, 5, method) for method in ("minmax", "percentile", "mse"))
    assert (wide.p_min, wide.delta) == (40, pytest.approx(88 / 31, abs=1e-4))
    assert (cut.p_min, cut.delta) == (40, 1)

    def error(adc: Adc) -> float:
        p = np.arange(129)
        return float(histogram @ (adc.p_min + adc.delta * adc.code(p) - p) ** 2)

    assert error(best) <= min(error(wide), error(cut))
    for bad in ({"method": "mean"}, {"method": "percentile", "tail": 1.0}):
        with pytest.raises(InputError):
            fit(histogram, 5, **bad)
    with pytest.raises(InputError):
        fit(np.zeros(5, np.int64), 5, "mse")


def test_calibration_is_plain_data() -> None:
    record = Calibration({"conv1": Adc.of(6, 2.03125, 7.5), "fc": Adc(4)})
    assert Calibration.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    with pytest.raises(InputError, match="conv1"):
        record.of("conv2")
    for bad in ({"conv1": 3}, {"conv1": {"bits": 0}}, {"conv1": {"width": 3}}):
        with pytest.raises(InputError):
            Calibration.from_dict(bad)


def test_bad_converters() -> None:
    for bits, delta, low in ((0, 1.0, 0.0), (4, 0.0, 0.0), (4, float("nan"), 0.0), (4, 1.0, float("inf"))):
        with pytest.raises(InputError):
            Adc.of(bits, delta, low)
