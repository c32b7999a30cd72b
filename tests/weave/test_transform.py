"""The algebra of P against dense matrices, and the four papers written as transforms."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from crossloom.weave import Factor, Format, InputTransform
from crossloom.weave.transform import signed_digits


@st.composite
def transforms(draw: st.DrawFn, inputs: int | None = None, linear: bool = True) -> InputTransform:
    width = draw(st.integers(1, 7)) if inputs is None else inputs
    chain = InputTransform.identity(width)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["select", "sum", "matrix"]))
        rows = draw(st.integers(1, 7))
        if kind == "select":
            step = InputTransform.select(width, draw(st.lists(st.integers(0, width - 1), min_size=rows, max_size=rows)))
        elif kind == "sum":
            step = InputTransform.sum(draw(st.lists(st.integers(-1, rows - 1), min_size=width, max_size=width)), rows)
        else:
            seed = draw(st.integers(0, 2**32 - 1))
            matrix = np.random.default_rng(seed).integers(-5, 6, (rows, width))
            shift = 0 if linear else draw(st.integers(0, 3))
            step = InputTransform(width, (Factor.of("matrix", matrix, shift),))
        chain = chain.then(step)
        width = chain.rows
    return chain


@given(transforms(), st.integers(0, 2**32 - 1))
def test_apply_is_the_product_with_the_matrix(p: InputTransform, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-9, 10, (4, p.inputs))
    assert np.array_equal(p.apply(x), x @ p.matrix().toarray().T)


@given(st.data())
def test_composition_is_associative_and_equals_doing_one_after_the_other(data: st.DataObject) -> None:
    a = data.draw(transforms())
    b = data.draw(transforms(inputs=a.rows))
    c = data.draw(transforms(inputs=b.rows))
    x = np.arange(a.inputs)[None] - 2
    left, right = a.then(b).then(c), a.then(b.then(c))
    assert np.array_equal(left.apply(x), c.apply(b.apply(a.apply(x))))
    assert np.array_equal(left.matrix().toarray(), right.matrix().toarray())


@given(transforms(linear=False))
def test_bounds_hold_every_reachable_value(p: InputTransform) -> None:
    low, high = p.bounds(-2, 1)
    corners = np.array(list(itertools.product((-2, 1), repeat=p.inputs)))
    reached = p.apply(corners)
    assert np.all(reached.min(0) >= low)
    assert np.all(reached.max(0) <= high)
    if p.is_linear:
        assert np.array_equal(reached.min(0), low)
        assert np.array_equal(reached.max(0), high)


def test_rounding_stages_round_half_up() -> None:
    p = InputTransform(2, (Factor.of("moments", [[1, 1]], shift=1),))
    assert p.apply(np.array([[1, 0], [1, 1], [2, 1], [-1, 0], [-2, -1]])).ravel().tolist() == [1, 1, 2, 0, -1]
    assert not p.is_linear


def test_moments_grow_by_the_bits_the_paper_hides() -> None:
    """Quadratic approximation of groups of 9: Σx, Σt·x, Σt²·x need log2 9, 2 log2 9, 3 log2 9 more bits, about."""
    t = np.arange(9)
    p = InputTransform(9, (Factor.of("moments", np.stack([t**0, t, t**2])),))
    grown = [Format.covering(0, int(h)).bits for h in p.bounds(0, 255)[1]]
    assert grown == [12, 14, 16]
    operations = p.operations()
    assert operations.adds == 8 + 7 + 7
    # constants that are no power of two: 3 5 6 7, and 9 25 36 49 (1, 4, 16, 64 are wiring)
    assert operations.constant_multiplies == 8


def test_selections_merge_and_cost_no_arithmetic() -> None:
    p = InputTransform.select(6, [5, 4, 3, 2]).then(InputTransform.select(4, [3, 0]))
    assert len(p.factors) == 1
    assert p.factors[0].selection is not None
    assert p.factors[0].selection.tolist() == [2, 5]
    assert p.operations().adds == 0
    assert p.operations().gathers == 2


def test_repeating_for_groups_is_block_diagonal() -> None:
    one = InputTransform.sum([0, 1, 0])
    x = np.arange(6)[None]
    assert one.repeated(2).apply(x).tolist() == [[2, 1, 8, 4]]


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot feed 3 rows"):
        InputTransform.identity(3).then(InputTransform.identity(4))
    with pytest.raises(ValueError, match="must be integers"):
        Factor.of("matrix", sp.csr_array(np.array([[0.5]])))
    with pytest.raises(ValueError, match="shift"):
        Factor.of("matrix", [[1]], shift=-1)


@given(st.integers(1, 10**6))
def test_signed_digits_is_minimal(value: int) -> None:
    """The canonical form needs at most half the digits plus one, and never more than plain binary."""
    digits = signed_digits(value)
    assert digits <= min(value.bit_count(), (value.bit_length() + 2) // 2)
    assert digits >= 1
