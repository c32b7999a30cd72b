"""Formats and rounding against exact rational arithmetic."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossloom.weave import Format, Rescale, round_shift
from crossloom.weave.formats import MULTIPLIER_BITS


@given(st.integers(-(2**45), 2**45), st.integers(0, 40))
def test_round_shift_is_floor_of_value_plus_half(value: int, shift: int) -> None:
    exact = floor(Fraction(value, 2**shift) + Fraction(1, 2))
    assert round_shift(value, shift) == exact
    assert round_shift(np.array([value]), np.array([shift]))[0] == exact


@given(st.floats(1e-9, 2**15), st.integers(-(2**31), 2**31 - 1))
def test_rescale_is_within_its_multiplier_of_the_ratio(ratio: float, value: int) -> None:
    rescale = Rescale.of(ratio)
    assert abs(rescale.ratio[0] / ratio - 1) <= 2.0**-MULTIPLIER_BITS
    exact = floor(Fraction(value) * int(rescale.multiplier[0]) / 2 ** int(rescale.shift[0]) + Fraction(1, 2))
    assert rescale.apply(np.array([value]))[0] == exact


@given(st.integers(-20, 12))
def test_a_power_of_two_ratio_needs_only_a_shift(exponent: int) -> None:
    for rescale in (Rescale.of(2.0**exponent), Rescale.of(2.0**exponent * 1.1, power_of_two=True)):
        assert rescale.only_shifts
        assert rescale.ratio[0] == 2.0**exponent


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf"), 2.0**40])
def test_impossible_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="rescale ratio"):
        Rescale.of(ratio)


@given(st.integers(-(2**20), 2**20), st.integers(0, 2**20))
def test_covering_is_the_narrowest_format(low: int, span: int) -> None:
    form = Format.covering(low, low + span)
    assert form.low <= low
    assert form.high >= low + span
    if form.bits > 1 + int(form.signed):
        narrower = Format(form.bits - 1, form.signed)
        assert narrower.low > low or narrower.high < low + span


@pytest.mark.parametrize(("bits", "scale", "zero"), [(0, 1.0, 0), (33, 1.0, 0), (8, 0.0, 0), (8, 1.0, 300)])
def test_bad_formats_are_refused(bits: int, scale: float, zero: int) -> None:
    with pytest.raises(ValueError, match="format"):
        Format(bits, False, scale, zero)
