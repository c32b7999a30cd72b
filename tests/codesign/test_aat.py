"""AAT's reproduction: trials resume, rows say what was measured, plans by shape are what the chip maps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from crossloom.cli import main
from crossloom.codesign import Machine, Silent, configure
from crossloom.codesign.aat import PAPER, changed, described, make
from crossloom.codesign.aat_shapes import compressed, random_program
from crossloom.codesign.aat_trial import Study, figures
from crossloom.codesign.plans import Plan
from crossloom.codesign.reproduce import Request, reproduce
from crossloom.codesign.results import load
from crossloom.cost import estimate
from crossloom.errors import InputError
from crossloom.hardware import load as load_chip
from crossloom.mapping import map_program
from crossloom.methods import Setting


def test_a_trial_is_measured_and_resumes(tmp_path: Path) -> None:
    config = configure(
        "mlp", "digits", epochs=1, train_images=64, images={"crossbar": 20}, machine=Machine(device="cpu")
    )
    method = {"layers": {"fc1": {"order": 1, "group": 8}, "fc2": {"order": 2, "group": 16}}}

    def once() -> tuple[dict, dict, Study]:
        study = Study(config, tmp_path, Silent(), fresh=False, command="crossloom test")
        return study.dense, study.trial("first", method, 20), study

    dense, found, study = once()
    assert found["crossbars"] < dense["crossbars"]
    assert found["rows"] == {"fc1": [256, 1024], "fc2": [48, 256]}
    assert found["images"] == {"integer": 360, "crossbar": 20}
    assert found["cost"]["cycles"] > dense["cost"]["cycles"], "moments are wider than pixels"
    assert found["cost"]["transform_area_m2"] > dense["cost"]["transform_area_m2"]
    assert found["cost"]["digits"] > dense["cost"]["digits"] == 8
    weights = tmp_path / found["folder"] / "quantised" / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    again = once()
    assert (again[0], again[1]) == (dense, found)
    assert weights.stat().st_mtime_ns == written
    other = study.trial("first", changed(method, {"basis": "index"}), 0)
    assert other["folder"] != found["folder"]
    assert other["crossbars"] == found["crossbars"]
    assert "crossbar" not in other["accuracy"]


def test_plans_on_programs_are_what_the_method_weaves() -> None:
    """`compressed` has the rows, transforms and arrays of the same plan; its moments equal its rebuilt weights."""
    dense = random_program("lenet5")
    plan = Plan(
        {"conv1": None, "conv2": Setting(), "fc1": Setting(order=2, group=10), "fc2": None, "fc3": None}, 0, 1, 0, 0
    )
    made = compressed(dense, plan)
    by_name = {layer.name: layer for layer in made.layers}
    assert by_name["conv2"].core.shape == (1, 12, 16)
    assert by_name["fc1"].core.shape == (1, 120, 120)
    assert by_name["fc2"] is {layer.name: layer for layer in dense.layers}["fc2"]
    for name in ("conv2", "fc1"):
        layer = by_name[name]
        x = torch.randint(0, 256, (5, layer.inputs)).numpy()
        assert (layer.accumulate(x) == x @ layer.effective_weight()[0]).all()
        was = {layer.name: layer for layer in dense.layers}[name].core[0].astype(float)
        kept = layer.effective_weight()[0].astype(float)
        cosines = (was * kept).sum(0) / (((was**2).sum(0) * (kept**2).sum(0)) ** 0.5 + 1e-9)
        assert cosines.min() > 0.05, "the projection lost the weights' direction"
    chip = load_chip("crimp-isaac")
    one, two = (figures(estimate(map_program(program, chip)), chip) for program in (dense, made))
    assert two["cycles"] > one["cycles"]
    assert two["transform_energy_j"] > one["transform_energy_j"]


def test_rows_by_shape_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "aat", "--network", "lenet5", "--epochs", "0", "-q"]) == 0
    rows = {(r.row, r.metric): r for r in load("results/aat-lenet5.json").rows}
    assert rows["LeNet-5, 64 × 64 arrays, plan", "crossbars"].ours == 40
    reduction = rows["LeNet-5, 64 × 64 arrays, plan", "reduction of crossbars"]
    assert reduction.ours >= 54 == reduction.paper
    assert rows["LeNet-5, 128 × 128 arrays, smallest option of every layer", "reduction of crossbars"].ours == 50
    cycles = "input cycles, all layers"
    assert rows["LeNet-5, 64 × 64 arrays, plan", cycles].ours > rows["LeNet-5, 64 × 64 arrays, dense", cycles].ours
    assert {r.command for r in rows.values()} == {"crossloom reproduce aat --network lenet5 --epochs 0"}


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match="--epochs"):
        make(Request("lenet5", data="mnist", epochs=0))
    with pytest.raises(InputError, match="--data: got 'mnist'; expected no such choice with crimp"):
        reproduce("crimp", Request("resnet20", data="mnist"))
    with pytest.raises(InputError, match="resnet18-cifar"):
        reproduce("aat", Request("resnet20"))


def test_commands_and_plans_in_words() -> None:
    assert Request("vgg8").command("aat") == "crossloom reproduce aat --network vgg8"
    given = Request("lenet5", limit=5, data="mnist", epochs=2, train_images=100, machine=Machine(device="cpu"))
    assert (
        given.command("aat")
        == "crossloom reproduce aat --network lenet5 --data mnist --epochs 2 --train-images 100 --limit 5"
    )
    assert described({"a": None, "b": Setting(order=2, group=5)}) == "b quadratic n = 5"
    assert described({"a": None}) == "all dense"
    assert set(PAPER) == {"lenet5", "vgg8", "alexnet", "resnet18-cifar"}


@pytest.mark.slow
def test_lenet5_on_digits_halves_its_crossbars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole reproduction on digits, which every machine has; MNIST's is in results/."""
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "aat", "--network", "lenet5", "--data", "digits", "--device", "cpu", "-q"]) == 0
    rows = {(r.row, r.metric): r.ours for r in load("results/aat-lenet5.json").rows}
    assert rows["LeNet-5, digits, plan", "reduction of crossbars"] >= 54
    assert rows["LeNet-5, digits, plan", "drop, dense − approximated, integer"] <= 0.3
    assert rows["LeNet-5, digits, plan", "accuracy, crossbar"] == rows["LeNet-5, digits, plan", "accuracy, integer"]


def test_committed_results_meet_the_goal() -> None:
    """LeNet-5 on MNIST: at least half of the crossbars saved within 0.3 points of dense, whole test set."""
    folder = Path(__file__).resolve().parents[2] / "results"
    rows = {(r.row, r.metric): r for r in load(os.fspath(folder / "aat-lenet5.json")).rows}
    saved, drop = (
        rows["LeNet-5, MNIST, plan", m] for m in ("reduction of crossbars", "drop, dense − approximated, integer")
    )
    assert saved.ours >= 50
    assert drop.ours <= 0.3
    assert drop.budget.images == 10_000
