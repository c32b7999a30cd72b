"""The configuration: complete, hashed, written and read without loss, clear about what is wrong."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.codesign import Machine, RunConfig, configure
from crossloom.errors import InputError
from crossloom.training import build_network, save_weights


@pytest.fixture(scope="module")
def base() -> RunConfig:
    return configure("lenet5", "digits")


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    epochs=st.integers(1, 500),
    finetune=st.integers(0, 50),
    images=st.dictionaries(st.sampled_from(["float", "integer", "crossbar"]), st.integers(1, 10000)),
    b_adc=st.integers(1, 12),
)
def test_round_trip_through_yaml_and_json(seed: int, epochs: int, finetune: int, images: dict, b_adc: int) -> None:
    config = configure(
        "mlp", "digits", seed=seed, epochs=epochs, finetune_epochs=finetune, images=images,
        overrides=[f"array.b_adc={b_adc}"],
    )  # fmt: skip
    for again in (RunConfig.from_yaml(config.to_yaml()), RunConfig.from_yaml(json.dumps(config.plain()))):
        assert again == config
        assert again.hash == config.hash


def test_the_hash_changes_with_everything_that_decides_numbers(base: RunConfig) -> None:
    others = [
        configure("mlp", "digits"),
        configure("lenet5", "mnist"),
        configure("lenet5", "digits", "isaac"),
        configure("lenet5", "digits", overrides=["array.b_adc=6"]),
        configure("lenet5", "digits", seed=1),
        configure("lenet5", "digits", epochs=3),
        configure("lenet5", "digits", finetune_epochs=0),
        configure("lenet5", "digits", train_images=100),
        configure("lenet5", "digits", normalisation="unit"),
        configure("lenet5", "digits", images={"crossbar": 5}),
        configure("lenet5", "digits", rungs=("float",)),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == len(others) + 1


def test_the_hash_leaves_out_the_machine_and_paths(base: RunConfig, tmp_path) -> None:
    machine = Machine(device="cpu", threads=1, data_dir=str(tmp_path), download=False)
    assert configure("lenet5", "digits", machine=machine).hash == base.hash
    copy = tmp_path / "copy.yaml"
    copy.write_text(base.chip().to_yaml(), encoding="utf-8")
    assert configure("lenet5", "digits", copy).hash == base.hash
    network = build_network("lenet5", 10, (1, 32, 32))
    hashes = set()
    for name in ("a.safetensors", "b.safetensors"):
        save_weights(network, tmp_path / name)
        hashes.add(configure("lenet5", "digits", weights=tmp_path / name).hash)
    assert len(hashes) == 1
    with torch.no_grad():
        next(network.parameters()).add_(1)
    save_weights(network, tmp_path / "a.safetensors")
    assert configure("lenet5", "digits", weights=tmp_path / "a.safetensors").hash not in hashes


def test_weights_replace_training(tmp_path) -> None:
    save_weights(build_network("lenet5", 10, (1, 32, 32)), tmp_path / "w.safetensors")
    config = configure("lenet5", "digits", weights=tmp_path / "w.safetensors")
    assert config.training is None
    assert config.finetuning is None
    tuned = configure("lenet5", "digits", weights=tmp_path / "w.safetensors", finetune_epochs=2)
    assert tuned.finetuning is not None
    assert tuned.finetuning.epochs == 2


def test_weights_are_trained_on_where_epochs_are_given(tmp_path) -> None:
    save_weights(build_network("lenet5", 10, (1, 32, 32)), tmp_path / "w.safetensors")
    config = configure("lenet5", "digits", weights=tmp_path / "w.safetensors", epochs=8)
    assert config.training is not None
    assert config.training.epochs == 8
    assert config.finetuning is not None
    assert config.finetuning.epochs == 2
    scratch = configure("lenet5", "digits", epochs=8)
    assert config.training == scratch.training
    assert config.hash != scratch.hash


def test_a_changed_chip_is_refused(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: crimp-isaac\n", encoding="utf-8")
    config = configure("lenet5", "digits", file)
    assert config.chip().hash == config.hardware.hash
    file.write_text("extends: crimp-isaac\narray: {b_adc: 6}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"hardware\.hash"):
        config.chip()


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"trainin": {}}, "trainin", "training"),
        ({"version": 2}, "version", "1, the version"),
        ({"data": {"name": "digits", "normalization": "unit"}}, "data.normalization", "normalisation"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 5}, "training.seed", "a run has one seed"),
        ({"training": None}, "network.weights", "needs trained weights"),
        ({"evaluation": {"rungs": ["float", "crosbar"]}}, "evaluation.rungs.1", "crossbar"),
        ({"evaluation": {"images": {"float": 0}}}, "images.float", "at least 1"),
        ({"hardware": {"name": "isaac", "hash": "12"}}, "hardware.hash", "pattern"),
        ({"network": {}}, "network.name", "required"),
    ],
)
def test_wrong_configurations_name_the_field(base: RunConfig, change: dict, field: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        RunConfig.from_plain({**base.plain(), **change})
    assert field in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "field", "nearest"),
    [
        ({"network": "lenet6"}, "network", "lenet5"),
        ({"data": "minst"}, "data", "mnist"),
        ({"hardware": "crimp-isac"}, "hardware", "crimp-isaac"),
        ({"normalisation": "imagnet"}, "normalisation", "imagenet"),
        ({"overrides": ["array.b_adcs=6"]}, "array.b_adcs", "array.b_adc"),
        ({"finetune_epochs": -1}, "finetune_epochs", None),
        ({"epochs": 0}, "training.epochs", None),
        ({"weights": "/nowhere/at/all.safetensors"}, "weights", None),
        ({"network": "resnet18", "data": None}, "data", None),
    ],
)
def test_wrong_choices_suggest_the_nearest(arguments: dict, field: str, nearest: str | None) -> None:
    with pytest.raises(InputError) as caught:
        configure(**{"network": "lenet5", "data": "digits", **arguments})
    assert caught.value.field == field
    assert caught.value.nearest == nearest


def test_files_that_are_no_configuration(tmp_path) -> None:
    with pytest.raises(InputError, match="readable"):
        RunConfig.load(tmp_path / "none.yaml")
    for text in ("", "- a\n- b\n", "{", "seed: 1\nseed: 2\n"):
        (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(InputError):
            RunConfig.load(tmp_path / "bad.yaml")


@pytest.mark.parametrize("changes", [{"chips": 3}, {"noise": [0.1]}, {"chips": 3, "noise": [0.2]}, {"recipe": "aat"}])
def test_what_chips_and_recipes_add_is_read_back(changes, base: RunConfig) -> None:
    config = configure("lenet5", "digits", **changes)
    assert RunConfig.from_yaml(config.to_yaml()).hash == config.hash != base.hash
    assert RunConfig.from_yaml(base.to_yaml()).hash == base.hash
