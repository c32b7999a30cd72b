"""Data sets of other packages, the chips that commands look at, and what `networks` says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from crossloom.codesign import configure, data_names, default_data, open_data, run
from crossloom.codesign.targets import catalogue_entry, find, on_hardware, open_target, random_chip
from crossloom.errors import InputError
from crossloom.training import DataSet, Normalisation, Split, build_network, describe_networks

plugins = sys.modules["crossloom.codesign.plugins"]


def tiny(folder: Path, download: bool) -> DataSet:
    """Two classes of 8×8 images: dark and light."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(64) % 2
    images = torch.randint(0, 100, (64, 1, 8, 8), generator=generator) + 150 * labels[:, None, None, None]
    split = Split(images.to(torch.uint8), labels)
    return DataSet("tiny", ("dark", "light"), split, split, Normalisation((0.5,), (0.5,)))


class Point:
    name = "tiny"

    @staticmethod
    def load() -> object:
        return tiny


@pytest.fixture
def with_tiny(monkeypatch) -> None:
    def points(group: str, name: str | None = None) -> list[type[Point]]:
        return [Point] if group == "crossloom.data" and name in (None, "tiny") else []

    monkeypatch.setattr(plugins, "entry_points", points)


@pytest.mark.usefixtures("with_tiny")
def test_a_packages_data_set_goes_all_the_way(tmp_path) -> None:
    assert "tiny" in data_names()
    assert open_data("tiny").classes == ("dark", "light")
    result = run(configure("mlp", "tiny", epochs=8, finetune_epochs=1), tmp_path / "run")
    assert result.accuracy["crossbar"] == result.accuracy["integer"] > 0.9
    assert result.classes == ["dark", "light"]


def test_an_entry_point_that_gives_something_else(monkeypatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group, name=None: [Wrong])
    with pytest.raises(InputError, match=r"crossloom\.data:wrong"):
        open_data("wrong")
    with pytest.raises(InputError):
        default_data("resnet18")


class Wrong:
    name = "wrong"

    @staticmethod
    def load() -> object:
        return lambda folder, download: "a data set"


def test_every_network_is_described() -> None:
    for info in describe_networks():
        entry = catalogue_entry(info)
        assert entry["summary"]
        network = (
            build_network(info.name, entry["classes"], tuple(entry["image_shape"])) if info.name == "vgg8" else None
        )
        if network is not None:
            assert entry["parameters"] == sum(p.numel() for p in network.parameters())


def test_random_chips_are_the_same_every_time() -> None:
    one, two, other = (random_chip("lenet5", "crimp-isaac", seed=s).chip for s in (0, 0, 1))
    assert one.hash == two.hash != other.hash
    assert one.crossbars == other.crossbars


def test_the_same_program_on_another_chip() -> None:
    chip = random_chip("lenet5", "crimp-isaac").chip
    moved = on_hardware(chip, None, ["array.b_cell=1"])
    assert moved.program is chip.program
    assert moved.crossbars > chip.crossbars
    assert on_hardware(chip, "isaac", []).hardware.name == "isaac"
    with pytest.raises(InputError):
        on_hardware(chip, None, ["array.columns=3", "array.columns_per_adc=3"])


def test_targets(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert find("mine") == Path("runs/mine")
    with pytest.raises(InputError) as caught:
        find("mime")
    assert caught.value.nearest == "mine"
    with pytest.raises(InputError, match=r"no config\.yaml"):
        open_target("mine")
    (tmp_path / "runs" / "mine" / "config.yaml").write_text(configure("lenet5").to_yaml())
    with pytest.raises(InputError, match=r"no chip\.safetensors"):
        open_target("mine")
