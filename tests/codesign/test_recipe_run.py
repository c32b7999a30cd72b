"""A recipe's run: what it leaves, that its parts agree, and that no kill at any moment changes its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from crossloom.codesign import Result, codesign, configure, passes, run
from crossloom.codesign.recipe import Recipe
from crossloom.compiled import CompiledChip, compile
from crossloom.errors import InputError
from crossloom.hardware import load
from crossloom.mapping import map_program
from crossloom.simulate import Executor
from crossloom.training import TrainingConfig, load_dataset

RECIPE = {
    "name": "small",
    "steps": [
        {
            "name": "integers", "epochs": 1, "rate": 1.0,
            "methods": [
                {"approximation": {"layers": {"fc1": {"order": 1, "group": 4}}}},
                {"integer-training": {"weights": 3, "activations": 3, "inputs": 4, "input_step": "fitted"}},
            ],
        },
        {
            "name": "prune", "epochs": 2, "rate": 0.5,
            "methods": [{"admm": {"constraints": {"conv2": [{"set": "columns", "keep": 0.5}]}, "every": 0.5}}],
        },
        {"name": "share rows", "epochs": 1, "methods": [{"rename-rows": {"rows": {"@last": 0.8}}}]},
        {"name": "compact", "map": "compact"},
        {"name": "equal", "map": "rename", "options": {"saves": "rows"}},
        {"name": "order", "map": "reorder", "optional": True},
    ],
}  # fmt: skip
SAME = ("accuracy", "chips", "noise", "agreement", "cost", "steps", "candidates", "config_hash", "chip_hash")


def small(**changes: Any) -> Any:
    recipe = Recipe.from_plain(RECIPE)
    images = {"analog": 40, "crossbar": 100}
    fixed = {"epochs": 1, "train_images": 200, "images": images, "chips": 3, "noise": [0.0, 0.2]}
    return configure("lenet5", "digits", recipe=recipe, **{**fixed, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("recipe") / "whole"
    return run(small(), folder, command=["test"]), folder


def test_the_record_has_every_step_and_candidate(whole: tuple[Result, Path]) -> None:
    result, folder = whole
    assert result == Result.load(folder)
    names = [step["name"] for step in RECIPE["steps"]]
    assert [s.name for s in result.steps] == names
    assert [c.name for c in result.candidates] == ["dense", *names]
    last = result.candidates[-1]
    assert (last.crossbars, last.area_m2, last.energy_j) == (result.crossbars, result.area_m2, result.energy_j)
    assert last.accuracy == result.accuracy["integer"]
    assert result.agreement["integer=crossbar"].equal
    assert result.candidates[0].crossbars > last.crossbars
    assert "flip" in result.steps[-1].figures["reorder"]["left_out"]
    assert result.recipe == Recipe.from_plain(RECIPE).plain()
    assert result.chip_hash == CompiledChip.load(folder / "chip.safetensors").hash


def test_chips_differ_and_noise_counts(whole: tuple[Result, Path]) -> None:
    result, _ = whole
    spread = result.chips["analog"]
    assert len(spread.values) == 3 and spread.images == 40
    assert spread.mean == pytest.approx(sum(spread.values) / 3) == result.accuracy["analog"]
    assert [point.sigma for point in result.noise] == [0.0, 0.2]
    assert result.noise[0].std == 0.0


def test_a_pruned_layer_stays_pruned_in_the_steps_behind(whole: tuple[Result, Path]) -> None:
    result, folder = whole
    kept = result.steps[1].figures["admm"]["kept"]["conv2"]
    layers = {layer.name: layer for layer in CompiledChip.load(folder / "chip.safetensors").program.layers}
    assert 0 < (layers["conv2"].core != 0).sum() <= kept


def back_to(folder: Path, done: tuple[str, ...]) -> None:
    """Make a run believe that it ended after these stages."""
    state = json.loads((folder / "state.json").read_text())
    state["stages"] = {name: seconds for name, seconds in state["stages"].items() if name in done}
    (folder / "state.json").write_text(json.dumps(state))


def test_each_step_is_made_again_from_its_files(whole: tuple[Result, Path], tmp_path: Path) -> None:
    """Removing what the end left and going on gives the same bits: nothing hangs on what was in memory."""
    result, folder = whole
    back_to(folder, ("train", "1 integers", "2 prune"))
    for name in ("chip.safetensors", "result.json", "steps/3-share-rows/figures.json"):
        (folder / name).unlink()
    again = run(small(), folder)
    for key in SAME:
        assert getattr(again, key) == getattr(result, key), key


def test_another_recipe_does_not_go_on_in_the_folder(whole: tuple[Result, Path]) -> None:
    changed = json.loads(json.dumps(RECIPE))
    changed["steps"][1]["epochs"] = 3
    with pytest.raises(InputError, match="epochs"):
        run(configure("lenet5", "digits", recipe=Recipe.from_plain(changed), epochs=1, train_images=200), whole[1])


def intact(folder: Path) -> None:
    """No file is half-written: all can be read."""
    for path in folder.rglob("*"):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".ckpt":
            torch.load(path, weights_only=True)


KILLER = """
import os, pathlib, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import lightning.pytorch, crossloom.cost, crossloom.simulate, crossloom.training.trainer
from tests.codesign.test_recipe_run import intact, run, small
config, folder, rng, kills = small(), pathlib.Path(sys.argv[2]), random.Random(0), 0
while kills < 10:
    child = os.fork()
    if not child:
        run(config, folder, command=["test"])
        os._exit(0)
    time.sleep(rng.uniform(0.2, 4.0))
    os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    intact(folder)
run(config, folder, command=["test"])
"""


def test_killed_at_ten_random_moments(whole: tuple[Result, Path], tmp_path: Path) -> None:
    """kill -9: whole files only, and the same final result. (Forks spare ten starts of Python.)"""
    folder = tmp_path / "run"
    words = [sys.executable, "-c", KILLER, str(Path(__file__).parents[2]), str(folder)]
    made = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert made.returncode == 0, made.stderr.decode()[-2000:]
    found = Result.load(folder)
    for key in SAME:
        assert getattr(found, key) == getattr(whole[0], key), key
    assert not list(folder.rglob("*.part"))


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = load_dataset("digits").subset(100, 0)
    model = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = [{"name": "bits", "epochs": 1, "methods": [{"bits": {"layers": {"@last": {"weights": 4}}}}]}]
    recipe = Recipe.from_plain({"name": "mine", "hardware": "rram-40nm", "steps": steps})
    training = TrainingConfig(epochs=1, lr=1e-3, optimiser="adam")
    made = codesign(model, data, recipe, folder=tmp_path / "run", training=training)
    assert made.chip.hardware.name == "rram-40nm" and [c.name for c in made.candidates] == ["dense", "bits"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = codesign(model, data, recipe, folder=tmp_path / "run", training=training)
    assert again.chip.hash == made.chip.hash and again.steps == made.steps
    with pytest.raises(InputError, match="this one's chip is another"):
        codesign(model, data, recipe, "crimp-isaac", folder=tmp_path / "run", training=training)
    nn.init.zeros_(model[2].bias)
    with pytest.raises(InputError, match="weights"):
        codesign(model, data, recipe, folder=tmp_path / "run", training=training)


def test_rows_are_placed_for_one_chip() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    x = torch.rand(8, 1, 8, 8)
    faulty = {"device.stuck_hrs": 0.05, "device.stuck_lrs": 0.05}
    made = compile(model, "crimp-isaac", x, overrides=faulty)
    program, figures = passes.apply("place", passes.Site(made.program, made.hardware, x), {"chip": 3})
    (harm,) = figures["layers"].values()
    assert harm["after"] < harm["before"]
    assert torch.equal(Executor(program).run(x), Executor(made.program).run(x))
    with pytest.raises(InputError, match="stuck"):
        passes.apply("place", passes.Site(made.program, load("crimp-isaac"), x), {})


def test_idle_rows_hold_copies() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10)).eval()
    x = torch.rand(8, 1, 8, 8)
    made = compile(model, "crimp-isaac", x)
    site = passes.Site(made.program, made.hardware, x)
    program, figures = passes.apply("repeat", site, {})
    assert [f["copies"] for f in figures["layers"].values()] == [2, 2]
    assert torch.equal(Executor(program).run(x), Executor(made.program).run(x))
    assert map_program(program, made.hardware).crossbars == made.crossbars
    last = made.program.layers[-1].name
    _, figures = passes.apply("repeat", site, {"layers": [last]})
    assert list(figures["layers"]) == [last]
    with pytest.raises(InputError, match=r"repeat\.layers"):
        passes.apply("repeat", site, {"layers": ["nothing*"]})


def test_an_optional_step_that_cannot_be_is_left_out(tmp_path: Path) -> None:
    harden = {"name": "harden", "optional": True, "methods": ["runtime-adaptation"]}  # for log-normal cells only
    tune = {"name": "tune", "epochs": 1}
    recipe = Recipe.from_plain({"name": "r", "hardware": "sot-mram-and", "steps": [harden, tune]})
    images = {"float": 20, "integer": 20, "crossbar": 20}
    config = configure("lenet5", "digits", recipe=recipe, epochs=1, train_images=64, images=images)
    result = run(config, tmp_path / "run")
    assert "lognormal" in result.steps[0].figures["left_out"]
    assert [c.name for c in result.candidates] == ["dense", "harden", "tune"]
    back_to(tmp_path / "run", ("train",))
    for step in ("1-harden", "2-tune"):
        (tmp_path / "run" / "steps" / step / "figures.json").unlink()
    again = run(config, tmp_path / "run")
    assert (again.steps, again.candidates) == (result.steps, result.candidates)
    needed = Recipe.from_plain({"name": "r", "hardware": "sot-mram-and", "steps": [{**harden, "optional": False}]})
    with pytest.raises(InputError, match=r"harden.*lognormal"):
        run(configure("lenet5", "digits", recipe=needed, epochs=1, train_images=64, images=images), tmp_path / "other")
