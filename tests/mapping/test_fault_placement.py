"""Placement changes no output, meets the optimum, and helps on a chip with faults."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.mapping import cut
from crossloom.mapping.fault_placement import HRS, LRS, damage, filled, place
from tests.simulate.analog_cases import array_of, layer_of, random_core


def case(rng: np.random.Generator, rows: int, outputs: int, encoding: str = "offset", bits: int = 4):
    array = array_of(4, 8, b_cell=2, encoding=encoding).array
    mapping = cut(layer_of(random_core(rng, (1, rows, outputs), bits, encoding), bits), array)
    faults = []
    for block in mapping.blocks:
        shape = mapping.cells(block).levels.shape
        faults.append(rng.choice([0, HRS, LRS], shape, p=[0.7, 0.2, 0.1]).astype(np.int8))
    return mapping, faults


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 10), outputs=st.integers(1, 9), seed=st.integers(0, 99),
    encoding=st.sampled_from(["offset", "differential", "twos_complement"]),
)  # fmt: skip
def test_no_output_changes_and_the_damage_does_not_grow(rows, outputs, seed, encoding) -> None:
    rng = np.random.default_rng(seed)
    mapping, faults = case(rng, rows, outputs, encoding)
    layer = place(mapping, faults)
    x = rng.integers(0, 256, (7, rows))
    assert np.array_equal(layer.apply(x), mapping.layer.apply(x))
    after = cut(layer, mapping.array)
    assert after.blocks == mapping.blocks
    assert damage(after, faults) <= damage(mapping, faults)


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_one_array_are_placed_as_well_as_any_permutation(seed) -> None:
    rng = np.random.default_rng(seed)
    mapping, faults = case(rng, 4, 4)
    activity = rng.uniform(0.1, 3, 4)
    best = np.inf
    for order in permutations(range(4)):
        moved = cut(layer_of(mapping.layer.core[:, list(order)], 4), mapping.array)
        best = min(best, damage(moved, faults, activity[list(order)]))
    placed = place(mapping, faults, columns=False, rounds=1, activity=activity)
    order = placed.transform.matrix().indices if not placed.transform.is_identity else np.arange(4)
    assert damage(cut(placed, mapping.array), faults, activity[order]) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_columns_of_one_array_are_placed_as_well_as_any_permutation(seed) -> None:
    rng = np.random.default_rng(seed)
    mapping, faults = case(rng, 4, 4)
    best = min(
        damage(cut(layer_of(mapping.layer.core[:, :, list(order)], 4), mapping.array), faults)
        for order in permutations(range(4))
    )
    placed = place(mapping, faults, rows=False, rounds=1)
    assert placed.transform.is_identity
    assert damage(cut(placed, mapping.array), faults) == pytest.approx(best)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 10), outputs=st.integers(1, 9), seed=st.integers(0, 99))
def test_filling_up_adds_no_array_and_lets_a_layer_avoid_faults(rows, outputs, seed) -> None:
    rng = np.random.default_rng(seed)
    small, _ = case(rng, rows, outputs)
    layer = filled(small)
    mapping = cut(layer, small.array)
    assert len(mapping.blocks) <= len(small.blocks) and layer.core.shape[1] % 4 == layer.core.shape[2] % 4 == 0
    x = rng.integers(0, 256, (5, rows))
    assert np.array_equal(layer.apply(x), small.layer.apply(x))
    shapes = [mapping.cells(block).levels.shape for block in mapping.blocks]
    faults = [rng.choice([0, HRS, LRS], shape, p=[0.7, 0.2, 0.1]).astype(np.int8) for shape in shapes]
    placed = place(mapping, faults)
    assert np.array_equal(placed.apply(x), small.layer.apply(x))
    assert damage(cut(placed, small.array), faults) <= damage(mapping, faults)


def test_rows_that_nothing_drives_take_the_faulty_places() -> None:
    array = array_of(4, 8, b_cell=2, encoding="offset").array
    small = cut(layer_of(np.full((1, 2, 2), 7), 4), array)
    mapping = cut(filled(small), array)
    fault = np.zeros((4, 8), np.int8)
    fault[:2] = HRS
    placed = cut(place(mapping, [fault]), array)
    assert damage(mapping, [fault]) > 0 == damage(placed, [fault])


def test_a_block_of_zeros_still_has_no_array() -> None:
    rng = np.random.default_rng(0)
    core = random_core(rng, (1, 8, 8), 4, "offset")
    core[0, 4:, 4:] = 0
    array = array_of(4, 8, b_cell=2, encoding="offset").array
    mapping = cut(layer_of(core, 4), array)
    faults = [rng.choice([0, HRS], (4, 8), p=[0.5, 0.5]).astype(np.int8) for _ in mapping.blocks]
    assert len(mapping.blocks) == 3
    assert len(cut(place(mapping, faults), array).blocks) == 3


def test_maps_that_do_not_fit_are_refused() -> None:
    mapping, faults = case(np.random.default_rng(0), 6, 4)
    with pytest.raises(InputError, match="one per block"):
        place(mapping, faults[1:])
    with pytest.raises(InputError, match="shape"):
        place(mapping, [f[:-1] for f in faults])
