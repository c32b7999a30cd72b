"""The input transform's periphery is paid for: adders, and index tables by the entry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cost import count, estimate
from crossloom.cost.tables import IndexTable, index_table, index_tables
from crossloom.hardware import Action, components
from crossloom.mapping import Mapping, map_program
from crossloom.weave import InputTransform
from crossloom.weave.transform import Factor

from .conftest import convolution, flatten, image, linear, program, small_chip


def mapping(transform: InputTransform | None, name: str = "rram-40nm", **changes: object) -> Mapping:
    """84 inputs, 10 outputs: the 40 nm paper's last layer."""
    rng = np.random.default_rng(0)
    x = image(84, 1)
    flat = flatten(x)
    node = linear(rng, flat, "fc", 10, transform=transform)
    node.layer.core[node.layer.core == 0] = 1
    return map_program(program([x, flat, node]), small_chip(name, array__active_rows=7, **changes))


def rename(rows: int = 46, seed: int = 0) -> tuple[InputTransform, np.ndarray]:
    """84 inputs onto `rows` physical rows, every row used."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.concatenate([np.arange(rows), rng.integers(0, rows, 84 - rows)]))
    return InputTransform.sum(targets.tolist()), targets


def test_a_rename_table_has_an_entry_for_every_input_out_of_place() -> None:
    transform, targets = rename()
    order = [k for row in range(46) for k in np.flatnonzero(targets == row)]
    moved = sum(k != i for i, k in enumerate(order))
    assert index_tables(transform) == (IndexTable(moved, 7),)
    assert moved > 70


def test_polarised_cells_pay_for_a_sign_a_read_and_output() -> None:
    rng = np.random.default_rng(0)
    x = image(84, 1)
    node = linear(rng, flatten(x), "fc", 10)
    node.layer.core[:] = np.abs(node.layer.core) * rng.choice([-1, 1], 10)
    chip = small_chip("rram-40nm", array__active_rows=8, array__encoding="polarised")
    report = estimate(map_program(program([x, flatten(x), node]), chip))
    signs = math.ceil(84 / 8) * 10
    part = components(chip)["transform_table"].at(1)
    assert report.components["transform_table"].parts == signs
    assert report.components["transform_table"].area_m2 == pytest.approx(signs * part.area)
    assert report.components["transform_table"].energy_j == pytest.approx(signs * part.energy)


def test_rename_pays_for_adders_and_table_in_energy_and_area() -> None:
    transform, _ = rename()
    plain, renamed = estimate(mapping(None)), estimate(mapping(transform))
    (table,) = index_tables(transform)
    parts = components(mapping(transform).chip)
    entry = parts["transform_table"].at(7)
    assert "transform_table" not in plain.components
    assert renamed.components["transform_table"].parts == table.entries
    assert renamed.components["transform_table"].area_m2 == pytest.approx(table.entries * entry.area)
    assert renamed.components["transform_table"].energy_j == pytest.approx(table.entries * entry.energy)
    assert renamed.components["transform_table"].leakage_w == pytest.approx(table.entries * entry.leakage)
    layer, before = (next(x for x in r.layers if x.name == "fc") for r in (renamed, plain))
    bands = [16, 16, 14], [16] * 5 + [4]  # offset columns take one sum of inputs for each row band
    correction, without = (sum(b - 1 for b in of) + len(of) - 1 + 10 for of in bands)
    assert layer.actions["transform_add"] - correction == 84 - 46
    assert before.actions["transform_add"] == without
    assert layer.area_by_component["transform_adder"] > 0
    assert layer.crossbars < before.crossbars


def test_every_copy_has_a_table_of_its_own() -> None:
    rng = np.random.default_rng(0)
    x = image(20, 2)

    node = convolution(rng, x, "conv", 4, kernel=1, transform=InputTransform.select(20, list(range(19, -1, -1))))
    one, two = (
        estimate(map_program(program([x, node]), small_chip(), {"conv": copies})).components["transform_table"]
        for copies in (1, 2)
    )
    assert two.parts == 2 * one.parts and two.area_m2 == pytest.approx(2 * one.area_m2)
    assert two.energy_j == pytest.approx(one.energy_j)


@pytest.mark.parametrize("name", ["crimp-isaac", "neurram", "rram-40nm", "sot-mram-and"])
def test_every_family_prices_tables(name: str) -> None:
    part = components(small_chip(name) if name != "neurram" else small_chip(name, array__b_adc=8))["transform_table"]
    assert part.energy > 0 and part.area > 0 and part.count == "entries"


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12))
def test_an_entry_for_each_selected_input_that_is_not_where_it_was(order: list[int], kept: int) -> None:
    chosen = order[:kept]
    table = index_table(InputTransform.select(12, chosen).factors[0])
    assert table.entries == sum(k != i for i, k in enumerate(chosen))
    assert table.bits == math.ceil(math.log2(12))


def test_sums_of_neighbours_and_moments_need_no_table() -> None:
    assert index_tables(InputTransform.sum([k // 3 for k in range(36)])) == ()
    moments = np.zeros((8, 36), np.int64)
    for group in range(4):
        for i in range(9):
            moments[2 * group, 9 * group + i] = 1
            moments[2 * group + 1, 9 * group + i] = i + 1

    assert index_table(Factor.of("moments", moments)).entries == 0
    assert count(mapping(InputTransform.sum([k // 2 for k in range(84)]))).total(Action.TRANSFORM_GATHER) == 0
