"""The main job: what it leaves, that it resumes to the same numbers, that the rungs agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from crossloom.codesign import Result, RunConfig, configure, run
from crossloom.codesign.evaluation import Outputs, outputs
from crossloom.codesign.job import Job
from crossloom.compiled import CompiledChip
from crossloom.errors import InputError
from crossloom.training import build_network, load_dataset, load_weights, save_weights

SMALL = {"epochs": 2, "finetune_epochs": 1, "train_images": 400}
STAGES = ("train", "quantise", "compile", "evaluate", "result")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return configure("lenet5", "digits", **SMALL)


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return run(config, folder, command=["test"]), folder


def test_the_record_is_complete_and_consistent(whole: tuple[Result, Path], config: RunConfig) -> None:
    result, folder = whole
    assert result == Result.load(folder)
    assert set(result.accuracy) == {"float", "integer", "crossbar"}
    assert result.images == {"float": 360, "integer": 360, "crossbar": 360}
    chip = CompiledChip.load(folder / "chip.safetensors")
    assert (result.crossbars, result.chip_hash) == (chip.crossbars, chip.hash)
    assert result.crossbars == sum(row["crossbars"] for row in result.layers)
    assert result.config_hash == config.hash == RunConfig.load(folder / "config.yaml").hash
    assert result.hardware_hash == config.hardware.hash == chip.hardware.hash
    assert min(result.area_m2, result.energy_j, result.latency_s) > 0
    assert result.cost["energy_j"] == result.energy_j
    assert set(result.versions) == {"crossloom", "torch", "numpy", "python"}
    assert {"train", "quantise", "compile", "float", "integer", "crossbar", "cost"} <= set(result.timings)
    assert result.seed == 0
    assert result.command == ["test"]


def test_accuracies_are_those_of_the_kept_logits(whole: tuple[Result, Path]) -> None:
    result, folder = whole
    labels = load_dataset("digits").test.labels.numpy()
    for rung, accuracy in result.accuracy.items():
        kept = load_file(folder / "logits" / f"{rung}.safetensors")
        np.testing.assert_array_equal(kept["labels"].numpy(), labels)
        right = sum(int(np.argmax(row)) == label for row, label in zip(kept["logits"].numpy(), labels, strict=True))
        assert accuracy == right / len(labels)


def test_the_crossbar_rung_equals_the_integer_rung_logit_for_logit(whole: tuple[Result, Path]) -> None:
    result, folder = whole
    integer, crossbar = (load_file(folder / "logits" / f"{r}.safetensors")["logits"] for r in ("integer", "crossbar"))
    assert torch.equal(integer, crossbar)
    assert len(integer.unique()) > 100
    assert result.agreement["integer=crossbar"].equal
    assert not result.agreement["float=integer"].equal


def test_the_float_rung_is_the_network_as_trained(whole: tuple[Result, Path]) -> None:
    _, folder = whole
    data = load_dataset("digits")
    network = build_network("lenet5", 10, data.image_shape).eval()
    load_weights(network, folder / "float" / "weights.safetensors")
    with torch.no_grad():
        expected = network(data.normalisation(data.test.images))
    kept = load_file(folder / "logits" / "float.safetensors")["logits"]
    np.testing.assert_allclose(kept.numpy(), expected.double().numpy(), rtol=1e-4, atol=1e-4)


def test_a_complete_run_is_not_done_again(whole: tuple[Result, Path], config: RunConfig, monkeypatch) -> None:
    result, folder = whole
    monkeypatch.setattr(Job, "data", property(lambda _: pytest.fail("read the data")))
    assert run(config, folder) == result


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_stopped_at_any_stage_resumes_to_the_same_numbers(
    stage: str, config: RunConfig, whole: tuple[Result, Path], tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "run"
    original = getattr(Job, stage)
    calls = []

    def stopping(self: Job, *arguments: object) -> object:
        calls.append(stage)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Job, stage, stopping)
    with pytest.raises(KeyboardInterrupt):
        run(config, folder)
    assert not (folder / "result.json").exists()
    assert_whole(folder)
    before = json.loads((folder / "state.json").read_text())["stages"]
    again = run(config, folder)
    for done, seconds in before.items():
        assert again.timings.get(done, seconds) == seconds, f"{done} was done twice"
    assert_same_numbers(again, whole[0])


def assert_same_numbers(one: Result, other: Result) -> None:
    for name in ("accuracy", "images", "agreement", "crossbars", "area_m2", "energy_j", "latency_s", "cost",
                 "config_hash", "hardware_hash", "chip_hash", "data_fingerprint"):  # fmt: skip
        assert getattr(one, name) == getattr(other, name), name


def assert_whole(folder: Path) -> None:
    """Every file in a run's folder can be read, and nothing temporary is left."""
    assert not list(folder.rglob("*.part"))
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.rglob("*.safetensors"):
        load_file(path)
    for path in folder.rglob("*.ckpt"):
        torch.load(path, weights_only=True)


def test_another_configuration_in_the_same_folder_is_refused(whole: tuple[Result, Path]) -> None:
    _, folder = whole
    other = configure("lenet5", "digits", **{**SMALL, "epochs": 3})
    with pytest.raises(InputError) as caught:
        run(other, folder)
    assert "training.epochs is 2, here 3" in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert Result.load(folder) == whole[0]


def test_fresh_starts_over_and_keeps_foreign_files(config: RunConfig, tmp_path, whole: tuple[Result, Path]) -> None:
    folder = tmp_path / "run"
    quick = configure("lenet5", "digits", **{**SMALL, "epochs": 1}, rungs=("integer",))
    run(quick, folder)
    (folder / "notes.txt").write_text("mine")
    result = run(config, folder, fresh=True)
    assert_same_numbers(result, whole[0])
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_things_in_it_is_refused(config: RunConfig, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        run(config, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "dear"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "config_hash": 3, "stages": 4}'])
def test_a_damaged_state_is_refused(text: str, config: RunConfig, tmp_path) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(InputError, match=r"state\.json"):
        run(config, tmp_path)


def test_an_interrupted_start_is_started_again(config: RunConfig, tmp_path, monkeypatch) -> None:
    from crossloom.codesign import folder

    quick = configure("lenet5", "digits", epochs=1, finetune_epochs=0, train_images=100, rungs=("integer",))
    first = run(quick, tmp_path)
    monkeypatch.setattr(folder.shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(quick, tmp_path, fresh=True)
    monkeypatch.undo()
    assert (tmp_path / "float" / "weights.safetensors").exists()
    again = run(quick, tmp_path)
    assert_same_numbers(first, again)
    assert again.timings["train"] != first.timings["train"]


def test_two_processes_cannot_work_in_one_folder(config: RunConfig, tmp_path) -> None:
    from crossloom.codesign.folder import locked

    with locked(tmp_path / "run"), pytest.raises(InputError, match="no other process"):
        run(config, tmp_path / "run")


def test_a_leftover_of_a_killed_process_is_swept(tmp_path) -> None:
    quick = configure("lenet5", "digits", epochs=1, finetune_epochs=0, train_images=100, rungs=("integer",))
    run(quick, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    leftover = tmp_path / "run" / "float" / ".weights.safetensors.abc.part"
    leftover.write_bytes(b"half")
    run(quick, tmp_path / "run")
    assert not leftover.exists()


def test_changed_data_is_refused(tmp_path, monkeypatch) -> None:
    module = sys.modules["crossloom.codesign.job"]
    quick = configure("lenet5", "digits", epochs=1, finetune_epochs=0, train_images=100, rungs=("integer",))
    run(quick, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    real = module.open_data
    monkeypatch.setattr(module, "open_data", lambda *a: real(*a).normalised("unit"))
    with pytest.raises(InputError, match="images that the run was started with"):
        run(quick, tmp_path / "run")


def test_given_weights_are_compiled_after_training(tmp_path) -> None:
    data = load_dataset("digits")
    network = build_network("mlp", 10, data.image_shape, seed=3).eval()
    save_weights(network, tmp_path / "w.safetensors")
    config = configure("mlp", "digits", weights=tmp_path / "w.safetensors", images={"crossbar": 7})
    result = run(config, tmp_path / "run")
    with torch.no_grad():
        expected = (network(data.normalisation(data.test.images)).argmax(1) == data.test.labels).double().mean()
    assert result.accuracy["float"] == float(expected)
    assert result.images == {"float": 360, "integer": 360, "crossbar": 7}
    assert "crossbar rung on the first 7 of 360 test images" in result.notes
    assert not (tmp_path / "run" / "float").exists()
    save_weights(build_network("mlp", 10, data.image_shape, seed=4), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="SHA-256"):
        run(config, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_leave_nothing(value: float, tmp_path) -> None:
    network = build_network("mlp", 10, (1, 32, 32))
    with torch.no_grad():
        next(network.parameters())[0, 0] = value
    save_weights(network, tmp_path / "w.safetensors")
    config = configure("mlp", "digits", weights=tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="NaN or infinity"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_outputs_go_on_where_they_stopped(whole: tuple[Result, Path], tmp_path) -> None:
    _, folder = whole
    chip, data = CompiledChip.load(folder / "chip.safetensors"), load_dataset("digits")
    path = tmp_path / "integer.safetensors"
    ticks: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        ticks.append((done, total))
        if done >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outputs(chip, "integer", data, path=path, tick=stop)
    kept = Outputs.load(path, "integer", chip.hash)
    assert kept is not None
    assert kept.images == 200
    ticks.clear()
    made = outputs(chip, "integer", data, path=path, tick=lambda *a: ticks.append(a))
    assert ticks[0] == (200, 360)
    assert torch.equal(made.logits, outputs(chip, "integer", data).logits)
    assert Outputs.load(path, "integer", "another chip") is None
    assert Outputs.load(path, "crossbar", chip.hash) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert Outputs.load(path, "integer", chip.hash) is None
    assert torch.equal(outputs(chip, "integer", data, path=path).logits, made.logits)


def test_a_damaged_record_is_refused(tmp_path, whole: tuple[Result, Path]) -> None:
    with pytest.raises(InputError, match="complete run"):
        Result.load(tmp_path)
    text = (whole[1] / "result.json").read_text()
    content = json.loads(text)
    content["crossbars"] = "many"
    for broken in (text[:-20], json.dumps(content), "[]"):
        (tmp_path / "result.json").write_text(broken)
        with pytest.raises(InputError, match=r"result\.json"):
            Result.load(tmp_path)
