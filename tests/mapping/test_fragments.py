"""Rows in runs of one sign: the same products, the fewest runs, and what refuses to move them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.hardware import Chip, load
from crossloom.mapping import cut, map_program, packed
from crossloom.mapping.fault_placement import place
from crossloom.mapping.reorder import reorder
from crossloom.methods import Polarised
from crossloom.weave import WovenLayer
from tests.mapping.test_blocks import layer_of, program_of


def chip(rows: int = 32, active: int = 8, **changes: object) -> Chip:
    return load(
        "crimp-isaac",
        {
            "array.flip": False, "array.encoding": "polarised", "array.rows": rows, "array.active_rows": active,
            **changes,
        },
    )  # fmt: skip


def one_signed(layer: WovenLayer, fragment: int) -> bool:
    return not any(
        ((core[r : r + fragment] > 0).any(0) & (core[r : r + fragment] < 0).any(0)).any()
        for core in layer.core
        for r in range(0, core.shape[0], fragment)
    )


@st.composite
def layers(draw: st.DrawFn) -> WovenLayer:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 14)), draw(st.integers(1, 4)))
    core = rng.integers(-7, 8, shape)
    return layer_of(np.where(rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9])), 0, core), bits=4)


@given(layers(), st.integers(1, 6))
@settings(deadline=None)
def test_the_same_products_in_runs_of_one_sign(layer: WovenLayer, fragment: int) -> None:
    made = packed(layer, fragment)
    assert one_signed(made, fragment)
    if layer.groups > 1:
        assert made is layer or made.core.shape[1] % fragment == 0
    assert packed(made, fragment) is made
    x = np.random.default_rng(0).integers(0, 255, (3, layer.inputs))

    def products(one: WovenLayer) -> np.ndarray:
        z = one.transform.apply(x).reshape(len(x), *one.core.shape[:2])
        return np.einsum("vgr,grn->vgn", z, one.core)

    assert np.array_equal(products(made), products(layer))


@given(layers(), st.integers(1, 5))
@settings(deadline=None)
def test_no_order_preserving_cut_takes_fewer_runs(layer: WovenLayer, fragment: int) -> None:
    core = layer.core[0]

    @cache
    def fewest(first: int) -> int:
        if first >= len(core):
            return 0
        found = []
        for stop in range(first + 1, min(first + fragment, len(core)) + 1):
            run = core[first:stop]
            if not ((run > 0).any(0) & (run < 0).any(0)).any():
                found.append(1 + fewest(stop))
        return min(found)

    made = packed(layer_of(core[None], bits=4), fragment)
    assert -(-made.core.shape[1] // fragment) == fewest(0)


@given(layers(), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None)
def test_trained_fragments_fit_whatever_rows_leave(layer: WovenLayer, fragment: int, seed: int) -> None:
    weight = torch.from_numpy(layer.core[0].T.copy()).double()
    core = Polarised(fragment).project(weight).numpy().T.astype(np.int32)
    assert packed(layer_of(core[None], bits=4), fragment).core.shape[1] == len(core)
    kept = np.flatnonzero(np.random.default_rng(seed).random(len(core)) < 0.6)
    if len(kept):
        made = packed(layer_of(core[None, kept], bits=4), fragment)
        assert -(-made.core.shape[1] // fragment) <= -(-len(core) // fragment)


def test_half_the_columns_of_pairs_of_cells() -> None:
    rng = np.random.default_rng(0)
    weight = Polarised(8).project(torch.from_numpy(rng.normal(0, 40, (64, 256)))).round().clamp(-127, 127)
    program = program_of(layer_of(weight.numpy().T[None].astype(int)))
    pairs = map_program(program, chip(128, 8, **{"array.encoding": "differential"}))
    one = map_program(program, chip(128, 8))
    assert one.crossbars * 2 == pairs.crossbars
    assert one.program is program
    again = map_program(one.program, one.chip)
    assert again.crossbars == one.crossbars


def test_weights_of_one_bit_have_a_code_of_their_own() -> None:
    core = np.random.default_rng(0).choice([-1, 1], (1, 40, 6))
    mapping = map_program(program_of(layer_of(core, bits=1)), chip())
    assert mapping.layers["layer"].code.encoding == "binary"
    assert np.array_equal(mapping.read_back()["layer"], core)


def test_what_would_mix_signs_is_refused() -> None:
    core = np.ones((1, 40, 3), int)
    core[0, 11, 1] = -1
    layer, array = layer_of(core), chip().array
    with pytest.raises(InputError, match="rows 8 to 15 of output 1 have both"):
        cut(layer, array)
    mapping = map_program(program_of(layer), chip())
    assert mapping.layers["layer"].layer.core.shape[1] == 40 + 5 + 7
    with pytest.raises(InputError, match=r"place\.rows"):
        place(mapping.layers["layer"], [np.zeros((32, 12), np.int8), np.zeros((20, 12), np.int8)])
    with pytest.raises(InputError, match="rows that share one stay together"):
        reorder(layer, array, np.zeros((4, 40), np.int64))
