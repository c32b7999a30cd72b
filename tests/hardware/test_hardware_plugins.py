"""Users' packages add chips, devices and component families by entry point."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import pytest

from crossloom.errors import InputError
from crossloom.hardware import Chip, Component, Family, components, device_names, family_names, load, names, registry

DEVICE = {"extends": "rram-isaac", "technology": "unobtainium", "r_on": {"value": 3, "unit": "kohm", "source": "bench"}}


def computed(chip: Chip) -> Family:
    parts = dict(components(load("isaac")))
    parts["adc"] = parts["adc"].model_copy(update={"energy": 1e-12 * chip.array.b_adc, "bits": chip.array.b_adc})
    return Family(name="mine", components=parts)


@pytest.fixture
def plugin(monkeypatch, tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text("extends: crimp-isaac\narray: {b_adc: 7}\ndevice: my-device\ncomponents: my-family\n")
    module = ModuleType("my_package")
    module.CHIP, module.DEVICE, module.computed, module.WRONG = path, DEVICE, computed, 3
    module.made = lambda: {"extends": "isaac", "hierarchy": {"tiles": 3}}
    module.TEXT = str(path)

    def broken():
        raise RuntimeError("the plug-in fell over")

    module.broken = broken
    monkeypatch.setitem(sys.modules, "my_package", module)
    points = EntryPoints(
        [
            EntryPoint("my-chip", "my_package:CHIP", "crossloom.hardware"),
            EntryPoint("my-text", "my_package:TEXT", "crossloom.hardware"),
            EntryPoint("my-made", "my_package:made", "crossloom.hardware"),
            EntryPoint("my-wrong", "my_package:WRONG", "crossloom.hardware"),
            EntryPoint("my-broken", "my_package:broken", "crossloom.hardware"),
            EntryPoint("my-missing", "no_such_package:CHIP", "crossloom.hardware"),
            EntryPoint("isaac", "my_package:CHIP", "crossloom.hardware"),
            EntryPoint("my-device", "my_package:DEVICE", "crossloom.devices"),
            EntryPoint("my-family", "my_package:computed", "crossloom.components"),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))


@pytest.mark.usefixtures("plugin")
class TestPlugins:
    def test_names_are_listed(self):
        assert {"my-chip", "my-made"} < set(names())
        assert "my-device" in device_names()
        assert "my-family" in family_names()

    @pytest.mark.parametrize("name", ["my-chip", "my-text"])
    def test_a_chip_with_its_device_and_family(self, name):
        chip = load(name)
        assert (chip.name, chip.array.b_adc, chip.array.rows) == (name, 7, 128)
        assert (chip.device.technology, chip.device.r_on, chip.device.r_off) == ("unobtainium", 3000.0, 20000.0)
        assert chip.sources["device.r_on"] == "bench"

    def test_a_computed_family(self):
        chip = load("my-chip", {"components.omit": []})
        part = components(chip)["adc"]
        assert isinstance(part, Component)
        assert part.energy == 7e-12

    def test_a_mapping_from_a_function(self):
        assert load("my-made").hierarchy.tiles == 3

    def test_our_own_names_cannot_be_taken_over(self):
        assert load("isaac").array.b_adc == 8

    @pytest.mark.parametrize("name", ["my-wrong", "my-broken", "my-missing"])
    def test_a_broken_plugin_is_named(self, name):
        with pytest.raises(InputError, match=f"crossloom.hardware:{name}"):
            load(name)


def test_the_real_entry_points_are_asked():
    assert registry._plugins("chips") == {} or all(
        p.group == "crossloom.hardware" for p in registry._plugins("chips").values()
    )
