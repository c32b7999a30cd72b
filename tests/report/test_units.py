import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossloom.report.units import AREAS, PREFIXES, count, digits, percent, plain, points, quantity, ticks

FACTORS = {name + "J": 10.0**power for power, name in PREFIXES.items()}
FACTORS |= {name: factor for factor, name in AREAS}


def number(text: str) -> float:
    return float(text.replace("\u202f", "").replace("−", "-"))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.2e-8, "J", "12.0 nJ"),
        (9.999e-7, "s", "1.00 µs"),
        (9.99e-7, "s", "999 ns"),
        (0.0, "J", "0 J"),
        (0.0, "m^2", "0 mm²"),
        (2.5, "s", "2.50 s"),
        (2.31e-5, "m^2", "23.1 mm²"),
        (2.76e-8, "m^2", "0.0276 mm²"),
        (5.75e-10, "m^2", "575 µm²"),
        (1e-18, "m^2", "1.00 nm²"),
        (-3e-9, "J", "−3.00 nJ"),
    ],
)
def test_quantities_read_as_in_a_paper(value: float, unit: str, text: str) -> None:
    assert " ".join(quantity(value, unit)) == text


@given(st.floats(1e-17, 1e16), st.sampled_from(["J", "m^2"]))
def test_a_quantity_is_right_to_three_digits(value: float, unit: str) -> None:
    if unit == "m^2":
        value *= 1e-6
    text, name = quantity(value, unit)
    assert number(text) * FACTORS[name] == pytest.approx(value, rel=0.0051)


@given(st.floats(1e-15, 1e12), st.floats(1e-15, 1e12))
def test_a_column_keeps_one_unit_within_a_hundredth(value: float, like: float) -> None:
    text, name = quantity(value, "J", like)
    _, common = quantity(like, "J")
    assert number(text) * FACTORS[name] == pytest.approx(value, rel=0.0051)
    assert (name == common) or value < 0.01 * FACTORS[common]


def test_plain_numbers() -> None:
    assert digits(0) == "0"
    assert digits(9.999) == "10.0"
    assert digits(12345.6) == "12\u202f346"
    assert count(61706) == "61\u202f706"
    assert count(2.5) == "2.50"
    assert percent(0.9914) == "99.14"
    assert [points(d) for d in (0.0012, -0.003, 0.0, -1e-7)] == ["+0.12", "−0.30", "±0.00", "±0.00"]


def test_figures_of_the_hardware_keep_their_digits() -> None:
    assert plain(3.2e-8, "m") == "32 nm"
    assert plain(1333.0, "ohm") == "1.333 kΩ"
    assert plain(1.5625e-12, "J") == "1.5625 pJ"
    assert plain(128, "row") == "128 row"
    assert plain(0.1, "") == "0.1"
    assert plain(None, "S") == plain((), "") == "none"
    assert plain((1e-6, 2e-6), "S") == "1 µS, 2 µS"
    assert plain(True, "") == "true"
    assert plain("offset", "") == "offset"


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_in_their_range_evenly(low: float, span: float) -> None:
    marks = ticks(low, low + span)
    assert 3 <= len(marks) <= 11
    assert all(low - 1e-6 * span <= mark <= low + span + 1e-6 * span for mark in marks)
    steps = [b - a for a, b in pairwise(marks)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-3) for step in steps)
