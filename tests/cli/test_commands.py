"""Every command: what it prints, that `--json` is one object and nothing else, that its help can be read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from crossloom import __version__
from crossloom.compiled import CompiledChip
from crossloom.simulate import Executor
from crossloom.training import load_dataset

COMMANDS = (
    "demo", "train", "codesign", "recipes", "compile", "simulate", "cost", "report", "compare", "reproduce", "networks",
    "hardware list", "hardware show", "results render", "results schema",
)  # fmt: skip


def test_demo_end_to_end(demo) -> None:
    record, folder = demo
    accuracy = record["accuracy"]
    assert set(accuracy) == {"float", "integer", "crossbar"}
    assert accuracy["float"] > 0.97
    assert accuracy["integer"] > accuracy["float"] - 0.005
    assert accuracy["crossbar"] == accuracy["integer"]
    integer, crossbar = (load_file(folder / "logits" / f"{r}.safetensors")["logits"] for r in ("integer", "crossbar"))
    np.testing.assert_array_equal(integer.numpy(), crossbar.numpy())
    for key in ("crossbars", "area_m2", "energy_j", "latency_s"):
        assert record[key] > 0
    for key in ("config_hash", "hardware_hash", "chip_hash"):
        assert re.fullmatch("[0-9a-f]{64}", record[key])
    assert record["run_dir"] == str(folder)
    assert record["command"][0] == "crossloom"
    for name in ("result.json", "config.yaml", "hardware.yaml", "chip.safetensors", "report.html"):
        assert (folder / name).is_file(), name
    assert (folder / "float" / "metrics.csv").read_text().count("\n") == 1 + 16
    assert json.loads((folder / "result.json").read_text()) == record
    assert CompiledChip.load(folder / "chip.safetensors").hash == record["chip_hash"]


def test_the_demos_crossbars_give_the_integers_read_slice_by_slice(demo) -> None:
    """The engine may leave out reads that change nothing; here it does every one."""
    _, folder = demo
    chip, data = CompiledChip.load(folder / "chip.safetensors"), load_dataset("digits")
    x = data.normalisation(data.test.images[:20])
    every_read = Executor(chip.mapping, "crossbar", shortcut=False).logits(x)
    kept = load_file(folder / "logits" / "crossbar.safetensors")["logits"]
    np.testing.assert_array_equal(every_read.numpy(), kept[:20].numpy())


def test_demo_again_is_at_once_and_prints_a_table(call, demo) -> None:
    record, folder = demo
    started = time.monotonic()
    again = call("demo", "--run-dir", folder)
    assert again.code == 0
    assert time.monotonic() - started < 5
    assert "complete since" in again.err
    for word in ("float", "integer", "crossbar", "every logit equal", "mm²", "TOPS/W", "conv1", "fc1", "latency"):
        assert word in again.out, word
    assert f"{100 * record['accuracy']['integer']:.2f} %" in again.out
    assert max(map(len, again.out.splitlines())) <= 118


def test_progress_goes_to_standard_error(call) -> None:
    quick = ("demo", "--epochs", 1, "--finetune", 0, "--train-images", 64, "--limit", 20, "--network", "mlp",
             "--data", "digits")  # fmt: skip
    loud = call(*quick, "--json")
    assert loud.code == 0
    assert loud.json["images"] == {"float": 20, "integer": 20, "crossbar": 20}
    assert Path(loud.json["run_dir"]).parts[0] == "runs"
    for stage in ("train", "quantise", "compile", "integer", "crossbar", "cost", "report"):
        assert stage in loud.err, stage
    silent = call(*quick, "--json", "--quiet", "--fresh")
    assert silent.code == 0
    assert silent.err == ""
    assert {**silent.json, "timings": 0, "created": 0} == {**loud.json, "timings": 0, "created": 0}


def test_what_libraries_print_does_not_reach_standard_output(call, monkeypatch) -> None:
    from crossloom.hardware import names as real

    def chatty() -> list[str]:
        print("advertisement")
        return real()

    monkeypatch.setattr("crossloom.hardware.names", chatty)
    made = call("hardware", "list", "--json")
    assert made.json["chips"]
    assert "advertisement" in made.err


def test_train_from_a_configuration_file_gives_the_same_run(call, demo, tmp_path) -> None:
    record, folder = demo
    made = call("train", "--config", folder / "config.yaml", "--run-dir", tmp_path / "again", "--json", "--quiet")
    assert made.code == 0
    for key in ("accuracy", "agreement", "cost", "config_hash", "chip_hash"):
        assert made.json[key] == record[key], key
    both = call("train", "--config", folder / "config.yaml", "--epochs", 3)
    assert both.code == 2
    assert "--epochs" in both.err


def test_training_goes_on_from_weights(call, demo, tmp_path) -> None:
    weights = demo[1] / "float" / "weights.safetensors"
    few = ("-d", "digits", "--epochs", 1, "--finetune", 0, "--limit", 300, "--limit", "crossbar=1", "--json", "-q")
    on = call("train", "-n", "lenet5", "-w", weights, *few, "--run-dir", tmp_path / "on")
    afresh = call("train", "-n", "lenet5", *few, "--run-dir", tmp_path / "afresh")
    assert on.code == afresh.code == 0
    assert on.json["accuracy"]["float"] > 0.95 > afresh.json["accuracy"]["float"]
    before, after = load_file(weights), load_file(tmp_path / "on" / "float" / "weights.safetensors")
    assert any(not before[name].equal(after[name]) for name in before)


def test_compile_trained_weights(call, demo, tmp_path) -> None:
    record, folder = demo
    weights = folder / "float" / "weights.safetensors"
    made = call("compile", "-n", "lenet5", "-w", weights, "-d", "digits", "--run-dir", tmp_path / "c", "--json", "-q")
    assert made.code == 0
    assert made.json["accuracy"] == {}
    assert made.json["crossbars"] == record["crossbars"]
    measured = call("simulate", tmp_path / "c", "--rung", "float", "--json", "-q")
    assert measured.json["accuracy"] == record["accuracy"]["float"]
    limits = ("--evaluate", "--limit", 50, "--limit", "crossbar=10")
    with_accuracy = call("compile", "-n", "lenet5", "-w", weights, "-d", "digits", *limits, "--json", "-q")
    assert with_accuracy.json["images"] == {"float": 50, "integer": 50, "crossbar": 10}


@pytest.mark.parametrize("rung", ["float", "integer", "crossbar"])
def test_simulate_a_run(rung: str, call, demo) -> None:
    record, folder = demo
    made = call("simulate", folder, "--rung", rung, "--json")
    assert made.code == 0
    assert made.json["accuracy"] == record["accuracy"][rung]
    assert made.json["images"] == 360
    assert made.json["chip_hash"] == record["chip_hash"]
    assert made.json["config_hash"] == record["config_hash"]


def test_simulate_a_chip_file_on_named_data(call, demo, tmp_path) -> None:
    record, folder = demo
    chip = tmp_path / "alone.safetensors"
    chip.write_bytes((folder / "chip.safetensors").read_bytes())
    made = call("simulate", chip, "--data", "digits", "--rung", "integer", "--json")
    assert made.json["accuracy"] == record["accuracy"]["integer"]
    assert call("simulate", chip).code == 2
    assert call("simulate", chip, "--data", "digits", "--rung", "float").code == 2
    text = call("simulate", chip, "--data", "digits", "--limit", 30)
    assert "crossbar rung, 30 images" in text.out


def test_cost_of_a_run_is_that_of_its_record(call, demo) -> None:
    record, folder = demo
    made = call("cost", folder, "--json")
    assert made.code == 0
    assert {key: made.json[key] for key in record["cost"]} == record["cost"]


def test_cost_of_a_network_by_name(call) -> None:
    made = call("cost", "--network", "lenet5-caffe", "--hardware", "crimp-isaac", "--json")
    assert made.code == 0
    assert made.json["crossbars"] == 125
    assert min(made.json[key] for key in ("area_m2", "energy_j", "latency_s")) > 0
    assert [row["name"] for row in made.json["layers"] if row["kind"] == "woven"]
    assert "random weights (seed 0)" in made.json["note"]
    assert call("cost", "--network", "lenet5-caffe", "--json").json == made.json | {}
    finer = call("cost", "--network", "lenet5-caffe", "--set", "array.b_cell=1", "--json").json
    assert finer["crossbars"] > made.json["crossbars"]
    assert finer["hardware_hash"] != made.json["hardware_hash"]


def test_cost_within_an_area_and_without_empty_reads(call, demo) -> None:
    _, folder = demo
    plain = call("cost", folder, "--json").json
    room = 1.5 * plain["area_m2"] * 1e6
    copied = call("cost", folder, "--area", room, "--json").json
    assert copied["area_m2"] <= room * 1e-6
    assert copied["interval_s"] < plain["interval_s"]
    skipped = call("cost", folder, "--zero-skipping", "--json").json
    assert skipped["dynamic_j"] <= plain["dynamic_j"]
    assert call("cost", folder, "--area", 0.5 * plain["area_m2"] * 1e6).code == 2
    assert "more than 0" in " ".join(call("cost", folder, "--area", "-1").err.split())
    assert "a run" in call("cost", "--network", "lenet5-caffe", "--zero-skipping").err


def test_cost_of_a_chip_on_other_hardware_and_side_by_side(call, demo, tmp_path) -> None:
    record, folder = demo
    chip = tmp_path / "alone.safetensors"
    chip.write_bytes((folder / "chip.safetensors").read_bytes())
    plain = call("cost", chip, "--json").json
    small = call("cost", chip, "--set", "array.rows=64", "--set", "array.active_rows=64", "--json").json
    assert small["crossbars"] > plain["crossbars"] == record["crossbars"]
    both = call("cost", folder, chip, "--json").json
    assert both["first"]["crossbars"] == both["second"]["crossbars"]
    assert both["ratios"]["area_m2"] == 1.0
    assert "ratio" in call("cost", folder, chip).out


def test_report_is_written_again(call, demo) -> None:
    _, folder = demo
    (folder / "report.html").unlink()
    made = call("report", folder, "--json")
    assert made.code == 0
    assert Path(made.json["report"]).read_text().startswith("<!")


def test_a_run_is_found_by_its_name(call) -> None:
    quick = ("demo", "--epochs", 1, "--finetune", 0, "--train-images", 64, "--limit", 5, "--name", "mine", "-q")
    assert call(*quick).code == 0
    assert call("simulate", "mine", "--limit", 5, "--json").code == 0
    wrong = call("simulate", "mime")
    assert wrong.code == 2
    assert "did you mean 'mine'" in wrong.err


def test_networks_with_parameters(call) -> None:
    rows = {row["name"]: row for row in call("networks", "--json").json["networks"]}
    assert rows["lenet5"]["parameters"] == 61_706
    assert rows["resnet20"]["parameters"] == 269_722
    assert "LeNet-5" in call("networks").out


def test_networks_with_crossbars(call, monkeypatch) -> None:
    import crossloom.training as training

    small = [info for info in training.describe_networks() if info.name in ("lenet5", "lenet5-caffe")]
    monkeypatch.setattr(training, "describe_networks", lambda: small)
    made = call("networks", "--crossbars", "--json").json
    assert made["hardware"] == "crimp-isaac"
    assert {row["name"]: row["crossbars"] for row in made["networks"]} == {"lenet5": 23, "lenet5-caffe": 125}
    finer = call("networks", "--crossbars", "--set", "array.b_cell=1", "--json").json
    assert all(a["crossbars"] > b["crossbars"] for a, b in zip(finer["networks"], made["networks"], strict=True))
    assert "crossbars" in call("networks", "--crossbars").out


def test_hardware_list_and_show(call) -> None:
    names = [row["name"] for row in call("hardware", "list", "--json").json["chips"]]
    for name in ("isaac", "crimp-isaac", "rram-40nm", "neurram", "neurosim-rram", "sot-mram", "stt-mram", "sram-cim",
                 "pcm", "fefet"):  # fmt: skip
        assert name in names
    shown = call("hardware", "show", "crimp-isaac", "--set", "array.b_adc=6", "--parts", "--json").json
    figures = {row["path"]: row for row in shown["figures"]}
    assert figures["array.b_adc"]["value"] == 6
    assert figures["array.b_adc"]["source"] == "set by the user"
    assert all(row["source"] for row in shown["figures"] if "." in row["path"])
    assert shown["parts"]
    text = call("hardware", "show", "crimp-isaac").out
    assert "array.b_adc" in text
    assert "CRIMP" in text


def test_version(call) -> None:
    assert call("--version").out == f"crossloom {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, call) -> None:
    made = call(*command.split(), "--help")
    assert made.code == 0
    assert "--json" in made.out
    assert "Usage" in made.out


def test_help_without_a_command(call) -> None:
    made = call()
    assert made.code == 0
    for command in COMMANDS[:8]:
        assert command in made.out


def test_help_loads_no_heavy_library() -> None:
    code = "import sys; from crossloom.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("torch", "numpy", "numba", "scipy", "lightning", "pydantic", "sklearn"):
        assert f"'{heavy}'" not in made.stderr, heavy


def test_the_module_runs_as_the_program() -> None:
    made = subprocess.run([sys.executable, "-m", "crossloom", "--version"], capture_output=True, text=True, check=True)
    assert made.stdout == f"crossloom {__version__}\n"


def test_shell_completion_knows_the_chips() -> None:
    asked = {
        **os.environ,
        "_CROSSLOOM_COMPLETE": "complete_bash",
        "COMP_WORDS": "crossloom cost -H sot",
        "COMP_CWORD": "3",
    }
    made = subprocess.run([Path(sys.executable).parent / "crossloom"], env=asked, capture_output=True, text=True)
    assert "sot-mram" in made.stdout.split()
    assert all(name.startswith("sot") for name in made.stdout.split())


def test_codesign_by_a_recipe_of_ones_own(call, tmp_path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nsteps:\n  - {name: tune, epochs: 1}\n  - {name: compact, map: compact}\n")
    words = ("codesign", "-n", "lenet5", "-d", "digits", "-r", recipe, "--epochs", 1, "--train-images", 100)
    more = ("--limit", 40, "--chips", 2, "--run-dir", tmp_path / "run", "-q")
    made = call(*words, *more, "--json")
    assert made.code == 0
    assert [c["name"] for c in made.json["candidates"]] == ["dense", "tune", "compact"]
    assert made.json["images"]["analog"] == 40 and len(made.json["chips"]["analog"]["values"]) == 2
    assert (tmp_path / "run" / "report.html").is_file()
    shown = call("recipes", recipe)
    assert "map: compact" in shown.out
    there = [r["name"] for r in call("recipes", "--json").json["recipes"]]
    assert there == ["aat", "admm-polarised", "admm-sot", "all-four", "crimp", "irr"]
