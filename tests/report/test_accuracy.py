import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from crossloom.report.accuracy import agreements, ladder, wilson
from crossloom.report.run import Entry


@given(st.integers(0, 500), st.integers(1, 500))
def test_intervals_are_wilsons(right: int, images: int) -> None:
    right = min(right, images)
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson(right / images, images) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_ladder_is_in_order_and_to_scale() -> None:
    entry = Entry(
        {"accuracy": {"crossbar": 0.95, "mine": 0.93, "float": 0.99, "integer": {"value": 0.97, "images": 100}}}
    )
    shown = ladder(entry)
    assert shown is not None
    assert [rung.name for rung in shown.rungs] == ["float", "integer", "crossbar", "mine"]
    assert [rung.drop for rung in shown.rungs] == ["", "−2.00", "−4.00", "−6.00"]
    at = [rung.at for rung in shown.rungs]
    assert at[0] - at[1] == pytest.approx(at[1] - at[2], abs=0.01) and at[0] - at[2] == pytest.approx(
        at[1] - at[3], abs=0.01
    )
    assert shown.rungs[1].number.pointer == "/accuracy/integer/value"
    assert shown.rungs[0].low is None and shown.rungs[1].low is not None
    assert 0 <= shown.rungs[1].low < shown.rungs[1].at < (shown.rungs[1].high or 0) <= 100
    assert all(0 <= position <= 100 for position, _ in shown.ticks)


def test_no_accuracy_no_ladder() -> None:
    assert ladder(Entry({})) is ladder(Entry({"accuracy": {}})) is None


def test_equal_accuracies_have_a_scale() -> None:
    shown = ladder(Entry({"accuracy": {"float": 1.0, "integer": 1.0}}))
    assert shown is not None
    assert [rung.at for rung in shown.rungs] == [50.0, 50.0]


def test_agreement_is_told_only_as_measured() -> None:
    entry = Entry(
        {"agreement": {"a=b": {"images": 10, "equal": True}, "b=c": {"equal": False, "same_class": 0.5}, "c=d": {}}}
    )
    assert agreements(entry) == [
        "a and b: equal, logit for logit, on all 10 images",
        "b and c: the same class for 50.00 %",
    ]
