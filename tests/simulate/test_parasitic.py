"""Transfer matrices against a sparse nodal solve, exact rational arithmetic, and what circuit theory promises."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.hardware import load
from crossloom.simulate.parasitic import Wires, effective_conductances
from tests.simulate.nodal import nodal, relative


def exact(g: np.ndarray, wires: Wires) -> np.ndarray:
    """M in rational arithmetic by Gaussian elimination, rounded once at the end. No resistance may be 0."""
    rows, columns = g.shape
    size = 2 * rows * columns
    a = [[Fraction(0)] * (size + rows) for _ in range(size)]

    def branch(p: int, q: int, value: Fraction) -> None:
        for i, j in ((p, q), (q, p)):
            a[i][i] += value
            a[i][j] -= value

    along, up, drive, sense = (
        1 / Fraction(v) for v in (wires.row_segment, wires.column_segment, wires.driver, wires.sense)
    )
    driven = [0] + [columns - 1] * (wires.drive == "both")
    sensed = [rows - 1] + [0] * (wires.collect == "both")
    for i in range(rows):
        for j in range(columns):
            w, b = i * columns + j, (rows + i) * columns + j
            branch(w, b, Fraction(float(g[i, j])))
            if j + 1 < columns:
                branch(w, w + 1, along)
            if i + 1 < rows:
                branch(b, b + columns, up)
    for i in range(rows):
        for j in driven:
            a[i * columns + j][i * columns + j] += drive
            a[i * columns + j][size + i] += drive
    for j in range(columns):
        for i in sensed:
            a[(rows + i) * columns + j][(rows + i) * columns + j] += sense
    for k in range(size):
        pivot = next(r for r in range(k, size) if a[r][k])
        a[k], a[pivot] = a[pivot], a[k]
        for r in range(size):
            if r != k and a[r][k]:
                factor = a[r][k] / a[k][k]
                a[r] = [x - factor * y for x, y in zip(a[r], a[k], strict=True)]
    made = np.zeros((columns, rows))
    for j in range(columns):
        for i in range(rows):
            nodes = [(rows + end) * columns + j for end in sensed]
            made[j, i] = float(sense * sum((a[n][size + i] / a[n][n] for n in nodes), Fraction(0)))
    return made


SIDES = st.tuples(st.sampled_from(["left", "both"]), st.sampled_from(["bottom", "both"]))


@st.composite
def arrays(draw: st.DrawFn, most_rows: int = 12, most_columns: int = 9, decades: float = 4.0) -> np.ndarray:
    rows, columns = draw(st.integers(1, most_rows)), draw(st.integers(1, most_columns))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    g = 10 ** rng.uniform(-7, -7 + draw(st.floats(0, decades)), (rows, columns))
    return np.where(rng.random((rows, columns)) < draw(st.sampled_from([0.0, 0.2, 0.9])), 0.0, g)


@st.composite
def wires(draw: st.DrawFn, lowest: float = 1e-2, highest: float = 1e4) -> Wires:
    values = [10 ** draw(st.floats(np.log10(lowest), np.log10(highest))) for _ in range(4)]
    drive, collect = draw(SIDES)
    return Wires(*values, drive, collect)


@settings(max_examples=80, deadline=None)
@given(arrays(), wires())
def test_agrees_with_a_nodal_solve(g: np.ndarray, w: Wires) -> None:
    assert relative(effective_conductances(g, w), nodal(g, w)) <= 1e-9


@settings(max_examples=15, deadline=None)
@given(arrays(3, 3, decades=9.0), wires(1e-9, 1e9))
def test_every_entry_is_exact_to_rounding_at_any_ratio(g: np.ndarray, w: Wires) -> None:
    expected = exact(g, w)
    np.testing.assert_allclose(effective_conductances(g, w), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(17, 33), (64, 64), (40, 100), (145, 16)])
@pytest.mark.parametrize(("drive", "collect"), [("left", "bottom"), ("both", "bottom"), ("both", "both")])
def test_agrees_with_a_nodal_solve_at_size(shape: tuple[int, int], drive: str, collect: str) -> None:
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, shape)
    w = Wires(1.0, 2.0, 500.0, 100.0, drive, collect)  # type: ignore[arg-type]
    assert relative(effective_conductances(g, w), nodal(g, w)) <= 1e-9


def test_agrees_with_a_nodal_solve_at_128() -> None:
    g = np.random.default_rng(4).uniform(1e-6, 1e-4, (128, 128))
    w = Wires(1.0, 1.0, 500.0, 100.0)
    assert relative(effective_conductances(g, w), nodal(g, w)) <= 1e-9


@pytest.mark.parametrize("zero", ["row_segment", "column_segment", "driver", "sense"])
@settings(max_examples=10, deadline=None)
@given(g=arrays(3, 3), w=wires(0.1, 1e3))
def test_a_resistance_of_zero_is_the_limit_of_small_ones(zero: str, g: np.ndarray, w: Wires) -> None:
    none = Wires(**{**vars(w), zero: 0.0})
    tiny = Wires(**{**vars(w), zero: 1e-15})
    assert relative(effective_conductances(g, none), exact(g, tiny)) <= 1e-13


@settings(max_examples=30, deadline=None)
@given(arrays(), SIDES)
def test_perfect_wires_change_no_bit(g: np.ndarray, sides: tuple[str, str]) -> None:
    ideal = Wires(drive=sides[0], collect=sides[1])  # type: ignore[arg-type]
    assert np.array_equal(effective_conductances(g, ideal), g.T)


def test_the_error_of_perfect_wires_falls_linearly_with_the_resistance() -> None:
    g = np.random.default_rng(1).uniform(1e-6, 1e-4, (20, 20))
    lost = [relative(effective_conductances(g, Wires(r, r, r, r)), g.T) for r in (1e-2, 1e-4, 1e-6)]
    assert lost[0] / lost[1] == pytest.approx(100, rel=0.01)
    assert lost[1] / lost[2] == pytest.approx(100, rel=0.01)


@settings(max_examples=40, deadline=None)
@given(arrays(), wires())
def test_wires_only_take_away(g: np.ndarray, w: Wires) -> None:
    m = effective_conductances(g, w)
    assert (m >= 0).all()
    assert (m.sum(1) <= g.sum(0) * (1 + 1e-12)).all(), "a column at 0 V and all rows at 1 V gains no current"
    assert (m.sum(0) <= g.sum(1) * (1 + 1e-12)).all(), "a row drives no more than its own cells' conductance"


@settings(max_examples=30, deadline=None)
@given(arrays(), wires(), st.floats(1.01, 10), st.sampled_from(["row_segment", "column_segment", "driver", "sense"]))
def test_total_current_falls_with_any_resistance(g: np.ndarray, w: Wires, factor: float, which: str) -> None:
    worse = Wires(**{**vars(w), which: getattr(w, which) * factor})
    before, after = effective_conductances(g, w).sum(), effective_conductances(g, worse).sum()
    assert after <= before * (1 + 1e-12), "Rayleigh's monotonicity law"


@settings(max_examples=30, deadline=None)
@given(arrays(), wires())
def test_rows_and_columns_change_places(g: np.ndarray, w: Wires) -> None:
    """Reciprocity: driving the columns from their sensed ends gives the transposed matrix."""
    turned = Wires(
        w.column_segment, w.row_segment, w.sense, w.driver,
        "both" if w.collect == "both" else "left", "both" if w.drive == "both" else "bottom",
    )  # fmt: skip
    swapped = effective_conductances(g[::-1, ::-1].T, turned)
    np.testing.assert_allclose(swapped[::-1, ::-1].T, effective_conductances(g, w), rtol=1e-11, atol=0)


@settings(max_examples=20, deadline=None)
@given(arrays(), wires(), st.floats(1e-3, 1e3))
def test_only_the_ratio_of_cells_and_wires_counts(g: np.ndarray, w: Wires, s: float) -> None:
    scaled = Wires(w.row_segment / s, w.column_segment / s, w.driver / s, w.sense / s, w.drive, w.collect)
    np.testing.assert_allclose(effective_conductances(g * s, scaled), s * effective_conductances(g, w), rtol=1e-11)


def test_one_cell_is_four_resistors_in_series() -> None:
    m = effective_conductances(np.array([[1e-4]]), Wires(5.0, 7.0, 300.0, 200.0))
    assert m[0, 0] == pytest.approx(1 / (1e4 + 500), rel=1e-14)
    both = effective_conductances(np.array([[1e-4]]), Wires(5.0, 7.0, 300.0, 200.0, "both", "both"))
    assert both[0, 0] == pytest.approx(1 / (1e4 + 250), rel=1e-14)


def test_one_row_of_equal_cells_follows_the_ladder_recursion() -> None:
    """Without bitline or sense resistance a wordline is a ladder: Y ← G + Y/(1 + R·Y) from its far end."""
    g, r, driver, columns = 2e-4, 30.0, 400.0, 50
    looking, inputs = 0.0, []
    for _ in range(columns):
        looking = g + looking / (1 + r * looking)
        inputs.append(looking)
    voltage, expected = 1 / (1 + driver * inputs[-1]), []
    for y in inputs[-2::-1]:
        expected.append(g * voltage)
        voltage /= 1 + r * y
    expected.append(g * voltage)
    m = effective_conductances(np.full((1, columns), g), Wires(row_segment=r, driver=driver))
    np.testing.assert_allclose(m[:, 0], expected, rtol=1e-13)


@pytest.mark.parametrize("shape", [(5, 7), (33, 20), (40, 40)])
def test_a_batch_is_its_arrays_one_by_one(shape: tuple[int, int]) -> None:
    g = np.random.default_rng(2).uniform(0, 1e-4, (2, 3, *shape))
    w = Wires(1.0, 1.0, 200.0, 50.0)
    together = effective_conductances(g, w)
    assert together.shape == (2, 3, *shape[::-1])
    alone = np.stack([np.stack([effective_conductances(a, w) for a in part]) for part in g])
    np.testing.assert_allclose(together, alone, rtol=1e-13)
    np.testing.assert_allclose(effective_conductances(g, w, memory_budget=1), together, rtol=1e-13)


def test_open_arrays_and_no_arrays() -> None:
    w = Wires(1.0, 1.0, 100.0, 100.0)
    assert not effective_conductances(np.zeros((4, 6)), w).any()
    assert effective_conductances(np.zeros((0, 4, 6)), w).shape == (0, 6, 4)


def test_the_array_gives_its_wires() -> None:
    chip = load("rram-40nm", overrides={"array.wire_resistance": 2.0, "array.driver_resistance": 300.0})
    assert Wires.of(chip.array) == Wires(2.0, 2.0, 300.0, chip.array.sense_resistance)
    g = np.random.default_rng(3).uniform(1e-6, 1e-4, (8, 8))
    assert np.array_equal(effective_conductances(g, chip.array), effective_conductances(g, Wires.of(chip.array)))


@pytest.mark.parametrize("bad", [-1e-6, np.nan, np.inf])
def test_impossible_conductances_are_named(bad: float) -> None:
    g = np.full((3, 3), 1e-5)
    g[1, 1] = bad
    with pytest.raises(InputError, match="conductance"):
        effective_conductances(g, Wires(1.0))
    with pytest.raises(InputError, match="conductance"):
        effective_conductances(g[0], Wires(1.0))


@pytest.mark.parametrize("field", ["row_segment", "column_segment", "driver", "sense"])
@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_impossible_resistances_are_named(field: str, bad: float) -> None:
    with pytest.raises(InputError, match=f"wires.{field}"):
        Wires(**{field: bad})


def test_unknown_sides_are_named() -> None:
    with pytest.raises(InputError, match=r"wires\.drive"):
        Wires(drive="right")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"wires\.collect"):
        Wires(collect="top")  # type: ignore[arg-type]
