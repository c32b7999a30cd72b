"""`bench`, `spice` and the rungs where chips differ, from the command line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import crossloom
from crossloom.codesign.bench import CASES, select
from crossloom.errors import InputError
from tests.cli.conftest import Called

Call = Callable[..., Called]


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 12), nn.ReLU(), nn.Linear(12, 10)).eval()
    small = {"array.rows": 8, "array.active_rows": 8, "array.columns": 32, "array.columns_per_adc": 32}
    path = tmp_path_factory.mktemp("chip") / "chip.safetensors"
    overrides = {**small, "array.wire_resistance": 2.0, "device.variation": {"model": "lognormal", "sigma": 0.1}}
    crossloom.compile(model, calibration=torch.rand(32, 1, 32, 32), overrides=overrides).save(path)
    return path


def test_bench_prints_one_object(call: Call) -> None:
    done = call("bench", "--only", "transfer matrix", "--json")
    assert done.code == 0, done.err
    (row,) = done.json["measurements"]
    assert row["ratio"] == pytest.approx(row["seconds"] / 0.06)
    assert row["rounds"] >= 5
    assert row["met"] == (row["ratio"] <= row["goal"])


def test_bench_knows_its_cases() -> None:
    assert len(select(())) == len(CASES)
    assert all("ResNet" in case.name for case in select(["resnet"]))
    with pytest.raises(InputError, match="--only"):
        select(["no such case"])


def test_spice_agrees_with_the_transfer_matrix(call: Call, chip: Path) -> None:
    if shutil.which("ngspice") is None:
        pytest.skip("ngspice is not installed")
    done = call("spice", chip, "--netlist", "array.cir", "--json")
    assert done.code == 0, done.err
    report = done.json
    assert report["error"] < 1e-8
    assert 0 < report["ir_drop"] < 1
    assert Path("array.cir").read_text().count("\n") == report["netlist_lines"]


@pytest.mark.parametrize("rung", ["analog", "parasitic"])
def test_many_chips_have_a_spread(call: Call, chip: Path, rung: str) -> None:
    words = ["simulate", chip, "--data", "digits", "--rung", rung, "--chips", "3", "--limit", "40", "--json"]
    done = call(*words)
    assert done.code == 0, done.err
    record = done.json
    assert len(record["accuracy_of_chips"]) == 3
    assert record["accuracy"] == pytest.approx(sum(record["accuracy_of_chips"]) / 3)
    assert call(*words).json["accuracy_of_chips"] == record["accuracy_of_chips"], "same seed, same bits"


def test_chips_do_not_differ_on_the_exact_rungs(call: Call, chip: Path) -> None:
    done = call("simulate", chip, "--data", "digits", "--chips", "2")
    assert done.code == 2
    assert "--chips" in done.err


@pytest.mark.parametrize("rung", ["analog", "parasitic", "crossbar"])
def test_a_rung_that_adds_nothing_says_so(call: Call, chip: Path, rung: str) -> None:
    words = ["simulate", chip, "--data", "digits", "--rung", rung, "--limit", "5", "--hardware", "rram-binary"]
    found = call(*words)
    assert found.code == 0, found.err
    assert ("ideal cells" in found.out) == (rung != "crossbar")
    assert bool(call(*words, "--json").json["note"]) == (rung != "crossbar")
    noisy = call(*words, "--set", "device.read_noise=0.02", "--json")
    assert noisy.json["note"] == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("rung", ["crossbar", "analog", "parasitic"])
def test_a_missing_gpu_is_one_clear_error(call: Call, chip: Path, rung: str) -> None:
    done = call("simulate", chip, "--data", "digits", "--rung", rung, "--device", "cuda")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "no GPU" in done.err
