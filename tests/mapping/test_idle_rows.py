"""Copies of rows in idle rows change nothing on a perfect chip and average out the errors of real cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.mapping import cut
from crossloom.mapping.idle_rows import copies, repeated
from crossloom.simulate import Settings, engine
from crossloom.simulate.analog_chip import AnalogChip
from crossloom.weave import Rescale, WovenLayer
from tests.simulate.analog_cases import array_of, layer_of, random_core, run


def scaled(layer: WovenLayer, rng: np.random.Generator) -> WovenLayer:
    """With a bias and fixed-point factors, some of them 0, some clipped outputs."""
    outputs = len(layer.output.bias)
    factors = Rescale.of(rng.uniform(1e-4, 2, outputs))
    dead = rng.random(outputs) < 0.2
    factors = Rescale(np.where(dead, 0, factors.multiplier), np.where(dead, 62, factors.shift))
    bias = rng.integers(-999, 999, outputs)
    return replace(layer, output=replace(layer.output, bias=bias, rescale=factors, low=-128, high=127))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20), outputs=st.integers(1, 9), active=st.sampled_from([2, 4, 8, 16]), seed=st.integers(0, 99),
    most=st.sampled_from([None, 1, 3, 4]),
    code=st.sampled_from([("offset", 4), ("differential", 4), ("twos_complement", 4), ("binary", 1)]),
)  # fmt: skip
def test_a_perfect_chip_computes_the_same_in_as_many_arrays_and_reads(rows, outputs, active, seed, most, code) -> None:
    rng = np.random.default_rng(seed)
    encoding, bits = code
    array = array_of(
        16, 24, active=active, b_cell=1 if bits == 1 else 2, encoding=encoding, b_adc=8, precision__weights=bits,
    ).array  # fmt: skip
    layer = scaled(layer_of(random_core(rng, (1, rows, outputs), bits, encoding), bits), rng)
    before = cut(layer, array)
    made = repeated(before, most)
    after, count = cut(made, array), copies(before, most)
    assert made.core.shape[1] == count * rows
    assert count & (count - 1) == 0 and count <= (most or 16)
    assert count == 1 or count * rows <= active
    assert 2 * count * rows > active or count * 2 > (most or 16)  # no more would fit
    assert len(after.blocks) == len(before.blocks)
    assert len({b.columns for b in after.blocks}) == len({b.columns for b in before.blocks})
    x = rng.integers(0, 256, (7, rows))
    assert np.array_equal(made.apply(x), layer.apply(x))
    for name in ("crossbar", "reference"):
        found = engine(name).prepare(after, Settings())(torch.from_numpy(x)).numpy()
        assert np.array_equal(made.output.apply(found), layer.apply(x))


def test_the_variance_of_independent_errors_falls_by_the_number_of_copies() -> None:
    rng = np.random.default_rng(3)
    chip = array_of(128, 128, device__variation={"model": "gaussian", "sigma": 0.05}, array__b_adc=12)
    layer = layer_of(random_core(rng, (1, 25, 32), 8, "offset"), 8)
    x = rng.integers(0, 256, (40, 25))
    alone, copied = cut(layer, chip.array), cut(repeated(cut(layer, chip.array)), chip.array)
    assert copied.layer.core.shape[1] == 100
    errors = []
    for mapping, count in ((alone, 1), (copied, 4)):
        drawn = [run(mapping, AnalogChip.of(chip, 0, k), x) / count - layer.accumulate(x) for k in range(12)]
        errors.append(np.mean(np.square(drawn)))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_layers_without_idle_rows_and_grouped_ones_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    array = array_of(16, 24).array
    for core in (random_core(rng, (1, 9, 3), 8, "offset"), random_core(rng, (2, 3, 2), 8, "offset")):
        layer = layer_of(core)
        assert repeated(cut(layer, array)) is layer


def test_fewer_copies_than_one_are_refused() -> None:
    layer = layer_of(random_core(np.random.default_rng(0), (1, 3, 2), 8, "offset"))
    with pytest.raises(InputError, match=r"repeat\.most.*0"):
        copies(cut(layer, array_of(16, 24).array), 0)
