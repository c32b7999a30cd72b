"""The comparison's recipes fit their networks, and its rows are those of the runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossloom.codesign import Machine, Silent, configure, run
from crossloom.codesign.recipe import Recipe
from crossloom.codesign.recipe_run import Weaving
from crossloom.codesign.together import CASES, RECIPES, recipe, rows
from crossloom.compiled import quantisation_for
from crossloom.hardware import load
from crossloom.training import DataSet, Normalisation, Split, TrainingConfig, build_network


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("network", [pytest.param("resnet20", marks=pytest.mark.slow), "lenet5-caffe"])
def test_each_recipe_fits_its_network(network: str, name: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (40, 1, 28, 28) if network == "lenet5-caffe" else (40, 3, 32, 32)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    half = Split(images, torch.arange(40) % 10)
    data = DataSet("noise", tuple("0123456789"), half, half, Normalisation((0.5,), (0.25,)))
    one = recipe(network, name)
    chip = load("crimp-isaac", one.set)
    weaving = Weaving(
        one, build_network(network, 10, shape[1:], 0).eval(), data, chip, quantisation_for(chip), TrainingConfig(),
        data.calibration_loader(40), tmp_path, Machine(), Silent(), torch.zeros(2, *shape[1:]),
    )  # fmt: skip
    weaving.rehearse()
    assert not list(tmp_path.iterdir())
    assert one.name == name and CASES[network].recipes


def test_rows_are_those_of_the_run(tmp_path: Path) -> None:
    small = Recipe.from_plain({"name": "small", "steps": [{"name": "a", "epochs": 1}]})
    images = {"integer": 50, "crossbar": 50, "analog": 20}
    few = {"epochs": 1, "train_images": 100, "images": images}
    config = configure("lenet5", "digits", recipe=small, **few, chips=2, noise=[0.3])
    result = run(config, tmp_path / "run")
    made = {(row.row, row.metric): row for row in rows("small", result, "cpu")}
    assert made["small", "crossbars"].ours == result.crossbars
    assert made["small", "accuracy, integer"].ours == pytest.approx(100 * result.accuracy["integer"])
    assert made["small", "accuracy, analog, mean of 2 chips"].ours == pytest.approx(100 * result.accuracy["analog"])
    assert made["small, before", "energy an image"].ours == pytest.approx(result.candidates[0].energy_j)
    assert made["small", "accuracy, analog, programming variation 0.3"].spread is not None
