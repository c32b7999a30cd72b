"""Every encoding holds every weight it claims to, and reads back to the same products."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossloom.weave import fields, pieces, weight_code
from crossloom.weave.encoding import EncodingName


@given(st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_fields_add_up_to_the_number(bits: int, width: int, signed: bool) -> None:
    low = -(1 << (bits - 1)) if signed else 0
    values = np.arange(low, low + (1 << bits))
    cut = fields(bits, width, signed)
    parts = pieces(values, cut)
    assert all(p.min() >= 0 and p.max() < 1 << f.width for p, f in zip(parts, cut, strict=True))
    assert np.array_equal(sum(p * f.weight for p, f in zip(parts, cut, strict=True)), values)


@st.composite
def coded_weights(draw: st.DrawFn) -> tuple[EncodingName, int, int, np.ndarray]:
    bits = draw(st.integers(1, 8))
    known = ["offset", "differential", "twos_complement", "polarised"]
    encoding = draw(st.sampled_from(known if bits > 1 else ["binary"]))
    cell = draw(st.integers(1, 4))
    code = weight_code(encoding, bits, cell)
    rows, outputs = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    weights = rng.integers(code.low, code.high + 1, (rows, outputs))
    if encoding == "binary":
        weights = rng.choice([-1, 1], (rows, outputs))
    if encoding == "polarised":  # all rows are read at once: one sign an output
        weights = np.abs(weights) * rng.choice([-1, 1], outputs)
    return encoding, bits, cell, weights


@given(coded_weights(), st.integers(0, 2**32 - 1))
def test_cells_hold_the_weights_and_give_their_products(
    drawn: tuple[EncodingName, int, int, np.ndarray], seed: int
) -> None:
    encoding, bits, cell, weights = drawn
    code = weight_code(encoding, bits, cell)
    cells = code.encode(weights)
    assert cells.max(initial=0) < 1 << cell
    assert cells.shape == (weights.shape[0], weights.shape[1] * code.columns)
    signs = np.where(weights.min(0) < 0, -1, 1) if encoding == "polarised" else np.ones(weights.shape[1], int)
    assert np.array_equal(code.decode(cells) * signs, weights)
    x = np.random.default_rng(seed).integers(-128, 128, weights.shape[0])
    reads = (x @ cells.astype(np.int64)).reshape(-1, code.columns)
    product = reads @ np.array([s.gain for s in code.slices]) + code.input_gain * x.sum()
    assert np.array_equal(product * signs, x @ weights)


@given(st.integers(2, 8), st.data())
def test_asymmetric_codes_have_their_own_zero(bits: int, data: st.DataObject) -> None:
    zero = data.draw(st.integers(0, (1 << bits) - 1))
    code = weight_code("offset", bits, 2, zero)
    weights = np.arange(-zero, (1 << bits) - zero).reshape(-1, 1)
    assert np.array_equal(code.decode(code.encode(weights)), weights)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="holds -127 to 127"):
        weight_code("differential", 8, 1).encode(np.array([[-128]]))
    with pytest.raises(ValueError, match="0 in a binary layer"):
        weight_code("binary", 1, 1).encode(np.array([[0]]))
    with pytest.raises(ValueError, match="expected weight bits 1"):
        weight_code("binary", 4, 1)
    with pytest.raises(ValueError, match="expected one of offset"):
        weight_code("gray", 4, 1)  # type: ignore[arg-type]


def test_paper_column_counts() -> None:
    """CRIMP: 8-bit weights in four 2-bit cells. ISAAC: 16-bit weights in eight 2-bit cells."""
    assert weight_code("offset", 8, 2).columns == 4
    assert weight_code("offset", 16, 2).columns == 8
    assert weight_code("differential", 8, 2).columns == 8
    assert weight_code("polarised", 8, 2).columns == 4
    assert weight_code("twos_complement", 8, 1).columns == 8
