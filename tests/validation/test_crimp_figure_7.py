"""CRIMP Fig. 7 (Huai et al., ACM TECS 2023): computing power and area, original → compressed."""

from __future__ import annotations

import pytest

from crossloom.cost.validation.crimp import FIGURE_7, decompose, pruned, shapes


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
        assert found.parts_power > 1
        assert found.parts_area > 1


def test_pruning_keeps_an_array_in_every_layer() -> None:
    assert pruned([1, 2, 100], 0.99) == [1, 1, 1]


def test_shapes_are_those_of_the_matrices() -> None:
    assert shapes(FIGURE_7["LeNet-5"]) == [(25, 20), (500, 50), (800, 500), (500, 10)]
