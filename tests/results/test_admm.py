"""The committed rows of ADMM meet the published points, and say what they measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossloom.codesign.admm_points import RECIPES
from crossloom.codesign.results import ResultsFile, load

ROOT = Path(__file__).parents[2]
GOALS = {"37×": (37.06, 99.0), "105×": (105.52, 98.3), "231×, purified": (230.0, 98.0)}
"""Row → least ratio and least accuracy of the integer program, per cent."""


@pytest.fixture(scope="module")
def lenet() -> ResultsFile:
    return load(ROOT / "results" / "admm-lenet5-caffe.json")


@pytest.mark.parametrize("bits", [8, 5])
@pytest.mark.parametrize("point", GOALS)
def test_lenet_reaches_its_points(lenet: ResultsFile, point: str, bits: int) -> None:
    rows = {r.metric: r for r in lenet.rows if r.row == f"LeNet-5, MNIST: {point}, {bits}-bit"}
    ratio, accuracy = GOALS[point]
    assert rows["weights over weights stored"].ours >= ratio
    assert rows["accuracy, integer"].ours >= accuracy
    assert rows["accuracy, integer"].budget.images == 10_000
    assert rows["accuracy, crossbar"].budget.images >= 500
    dense = next(r for r in lenet.rows if r.row.endswith("before pruning") and r.unit == "arrays")
    assert 0 < rows["crossbars of 32 × 32"].ours < dense.ours / 10


def test_every_technology_is_costed(lenet: ResultsFile) -> None:
    for technology in ("SOT-MRAM", "STT-MRAM", "ReRAM", "SRAM"):
        there = {r.metric for r in lenet.rows if r.row.endswith(f"{technology} cells")}
        assert {"area", "energy of an image", "images per second", "standby power", "writing the network once"} < there


def test_points_are_the_papers() -> None:
    assert [p.ratio for p in RECIPES["vgg16"].points] == [9.31, 29.81, 44.67]
    assert [p.ratio for p in RECIPES["resnet18-cifar"].points] == [11.75, 20.88, 52.07]


@pytest.mark.parametrize(("network", "row", "ratio"), [("vgg16", "29.8×", 29.81), ("resnet18-cifar", "11.8×", 11.75)])
def test_pruning_on_cifar_costs_little_of_what_a_short_training_reaches(network: str, row: str, ratio: float) -> None:
    rows = load(ROOT / "results" / f"admm-{network}.json").rows
    before = next(r.ours for r in rows if r.row.endswith("before pruning") and r.unit == "%")
    for bits in (8, 5):
        point = {r.metric: r for r in rows if r.row.endswith(f": {row}, {bits}-bit")}
        assert point["weights over weights stored"].ours >= ratio
        assert point["accuracy, integer"].ours > before - 0.5
        assert point["accuracy, integer"].budget.images == 10_000
