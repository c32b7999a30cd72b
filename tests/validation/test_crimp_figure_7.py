"""CRIMP Fig. 7 (Huai et al., ACM TECS 2023): computing power and area, original → compressed."""

from __future__ import annotations

import pytest

from crossloom.cost.validation.crimp import (
    AVERAGE_POWER,
    FIGURE_7,
    computing,
    decompose,
    definitions,
    left_for_lenet,
    overhead,
    pruned,
    reduction,
    shapes,
    units,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arrays"), [("LeNet-5", 125), ("VGG-16", 3600), ("ResNet-56", 267), ("ResNet-18", 2864)]
)
def test_baseline_crossbars(name: str, arrays: int) -> None:
    assert decompose(FIGURE_7[name]).arrays[1] == arrays


def test_vgg16_is_reproduced_within_five_per_cent() -> None:
    """69.6 % → 1.9 % of power, 46.2 % → 1.1 % of area."""
    found = decompose(FIGURE_7["VGG-16"])
    assert found.power == pytest.approx(69.6 / 1.9, rel=0.05)
    assert found.area == pytest.approx(46.2 / 1.1, rel=0.05)


def test_causes_multiply_to_the_whole() -> None:
    for case in FIGURE_7.values():
        found = decompose(case)
        whole, quantised, left = found.arrays
        assert found.quantisation * found.pruning == pytest.approx(whole / left)
        assert quantised <= whole
        assert left <= quantised
        assert min(*found.table, *found.multiplier) > 1
        before, after = computing().per_array()
        assert found.power == pytest.approx(whole * before[0] / left / after[0])
        assert found.area == pytest.approx(whole * before[1] / left / after[1])


def test_pruning_keeps_an_array_in_every_layer() -> None:
    assert pruned([1, 2, 100], 0.99) == [1, 1, 1]


def test_shapes_are_those_of_the_matrices() -> None:
    assert shapes(FIGURE_7["LeNet-5"]) == [(25, 20), (500, 50), (800, 500), (500, 10)]


def test_bars_of_the_larger_networks_are_explained_within_a_factor_of_two() -> None:
    for name in ("VGG-16", "ResNet-56", "ResNet-18"):
        found, case = decompose(FIGURE_7[name]), FIGURE_7[name]
        for ours, bars in ((found.power, case.power), (found.area, case.area)):
            theirs = reduction(bars)
            assert theirs is not None
            assert 0.5 < theirs / ours < 1.8


def test_no_structure_gives_lenet_what_the_mean_needs() -> None:
    found = decompose(FIGURE_7["LeNet-5"])
    assert found.power * found.arrays[2] / 4 < left_for_lenet(AVERAGE_POWER, "power") / 2


def test_groups_that_layers_do_not_share_are_never_fewer() -> None:
    for case in FIGURE_7.values():
        for one, eight, tile in zip(*(units(case, 32, size) for size in (1, 8, 96)), strict=True):
            assert one <= eight <= tile
    assert len(definitions()) == 9


def test_one_fixed_part_explains_all_originals_but_lenets_area() -> None:
    for of, tolerance in (("power", 3.0), ("area", 2.0)):
        predicted = overhead(of)[2]
        for name in ("VGG-16", "ResNet-56"):
            assert predicted[name] == pytest.approx(getattr(FIGURE_7[name], of)[0])
        assert predicted["ResNet-18"] == pytest.approx(getattr(FIGURE_7["ResNet-18"], of)[0], abs=tolerance)
    assert overhead("power")[2]["LeNet-5"] == pytest.approx(32.1, abs=3)
    assert overhead("area")[2]["LeNet-5"] > 5 * 1.1
