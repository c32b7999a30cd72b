import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from crossloom.report.figures import (
    LEAKAGE,
    OTHERS,
    PLAIN,
    agreements,
    curves,
    ladder,
    layers,
    parts,
    wilson,
)
from crossloom.report.run import Entry, Log

PARTS = [f"part{i}" for i in range(10)]


def cost(leakage: float = 0.0) -> Entry:
    """Two layers and a digital node; ten parts, each half as costly as the one before."""
    energies = {name: 2.0**-i for i, name in enumerate(PARTS)}
    areas = {name: 2.0 ** (i - 9) for i, name in enumerate(PARTS)}
    whole, area = sum(energies.values()), sum(areas.values())
    layer = {
        "name": "one", "energy_j": whole + leakage, "leakage_j": leakage, "latency_s": 1.0, "area_m2": area,
        "energy_by_component": energies, "area_by_component": areas,
    }  # fmt: skip
    half = {"name": "two", "energy_j": whole / 2, "latency_s": 4.0, "area_m2": area}
    half |= {"energy_by_component": {name: value / 2 for name, value in energies.items()}}
    idle = {"name": "idle", "energy_j": 0.0, "latency_s": 0.0, "area_m2": 0.0, "energy_by_component": {}}
    components = {
        name: {"energy_j": 1.5 * energies[name], "leakage_j": leakage / 10, "area_m2": areas[name]} for name in PARTS
    }
    return Entry({"cost": {"layers": [layer, half, idle], "components": components}})


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


def test_bars_add_up() -> None:
    entry = cost(leakage=0.5)
    found = parts(entry)
    colours = {part.name: part.colour for part in found} | {"leakage": LEAKAGE}
    shown = layers(entry, ["one", "two", "idle"], colours)
    assert shown is not None
    assert shown.names == ["one", "two"]
    assert shown.quantities == ["energy", "latency", "area"]
    assert shown.stacked == ["energy", "area"]
    for line in shown.bars:
        for bar in line:
            assert bar is not None
            assert sum(s.length for s in bar.segments) == pytest.approx(100 * bar.number.value / bar.like, abs=0.01)
            edges = [s.left + s.length for s in bar.segments[:-1]]
            assert edges == pytest.approx([s.left for s in bar.segments[1:]], abs=0.01)
            assert len({s.colour for s in bar.segments}) == len(bar.segments)
    energy, latency, area = shown.bars[0]
    assert energy is not None and latency is not None and area is not None
    assert LEAKAGE in {s.colour for s in energy.segments}
    assert latency.segments[0].colour == PLAIN
    two = shown.bars[1]
    assert two[2] is not None and two[2].segments[0].colour == PLAIN  # told without its parts


def test_colours_go_to_what_is_large_in_any_bar() -> None:
    found = parts(cost())
    assert [part.name for part in found] == PARTS  # costliest first
    coloured = {part.name for part in found if part.colour < LEAKAGE}
    assert len(coloured) == LEAKAGE
    assert {"part0", "part1", "part8", "part9"} <= coloured  # the largest in energy and in area
    assert {part.colour for part in found} == {*range(LEAKAGE), OTHERS}
    shares = [part.numbers["energy"][1] for part in found]
    assert sum(shares) == pytest.approx(100)
    assert shares[0] == pytest.approx(2 * shares[1])


def test_cost_without_layers_or_parts() -> None:
    assert layers(Entry({}), [], {}) is None
    assert parts(Entry({})) == []


def test_curves_share_frames_by_what_they_measure() -> None:
    log = Log("", [1.0, 2.0, 3.0], {
        "train_loss": [2.0, 1.0, 0.5], "train_accuracy": [0.2, 0.5, 0.9], "test_accuracy": [None, 0.6, None],
        "residual": [3.0, 2.0, 1.0], "blank": [None, None, None],
    })  # fmt: skip
    accuracy, loss, residual = curves(log)
    assert [chart.title for chart in (accuracy, loss, residual)] == ["accuracy", "loss", "residual"]
    test, train = accuracy.lines
    assert (test.name, test.dashed, test.last, len(test.points)) == ("test accuracy", False, "60.00 %", 1)
    assert (train.dashed, train.last) == (True, "90.00 %")
    xs, ys = [p[0] for p in train.points], [p[1] for p in train.points]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert (ys[0] - ys[1]) / (ys[1] - ys[2]) == pytest.approx(0.3 / 0.4, abs=0.001)
    assert all(0 <= value <= 100 for p in train.points for value in p[:2])
    assert all(0 <= at <= 100 for chart in (accuracy, loss, residual) for at, _ in chart.x_ticks + chart.y_ticks)


def test_a_single_epoch_and_a_flat_curve() -> None:
    (chart,) = curves(Log("", [1.0], {"train_loss": [0.0]}))
    assert chart.lines[0].points[0][0] == 50.0
    assert 0 <= chart.lines[0].points[0][1] <= 100
    assert [text for _, text in chart.x_ticks] == ["1"]
