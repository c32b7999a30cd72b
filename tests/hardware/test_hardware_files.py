"""Hardware files: units, sources, overrides, extension, round trips, and every way to get them wrong."""

import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.hardware import Chip, describe, load, loads, names, schema_reference
from crossloom.hardware.files import leaves
from crossloom.hardware.units import to_si

PLAIN = """
name: mine
node: {feature_size: 32e-9, vdd: 1.0, clock: 1e9}
device: rram-isaac
array: {rows: 64, columns: 64, encoding: offset, b_cell: 2, b_dac: 1, b_adc: 7, adc_range: full,
        columns_per_adc: 8, active_rows: 64}
hierarchy: {arrays_per_macro: 4, macros_per_tile: 2}
components: isaac
"""


def failure(*overrides, chip="crimp-isaac"):
    with pytest.raises(InputError) as caught:
        load(chip, overrides)
    return caught.value


class TestUnits:
    def test_figures_become_si(self):
        chip = load("crimp-isaac", {"device.r_on": {"value": 6, "unit": "kohm"}, "node.temperature": "85 degC"})
        assert chip.device.r_on == 6000.0
        assert chip.node.temperature == pytest.approx(358.15, abs=1e-9)

    @pytest.mark.parametrize(
        ("value", "unit", "expected", "si"),
        [
            (2.3, "nm", "m", 2.3e-9),
            (4, "um^2", "m^2", 4e-12),
            (4, "µm²", "m^2", 4e-12),
            (10, "year", "s", 315576000.0),
            (3, "percent", "1", 0.03),
            (25, "uS", "S", 25e-6),
            (0.5, "1/K", "1/K", 0.5),
            (1, "fJ", "J", 1e-15),
        ],
    )
    def test_conversion(self, value, unit, expected, si):
        assert to_si(value, unit, expected, "x") == pytest.approx(si, rel=1e-13)

    @settings(deadline=None)
    @given(st.floats(1e-3, 1e6).map(lambda x: float(f"{x:.6g}")))
    def test_a_quantity_and_its_si_value_give_the_same_chip(self, kiloohms):
        written = load("crimp-isaac", {"device.r_on": 1.0, "device.r_off": f"{kiloohms + 1} kohm"})
        plain = load("crimp-isaac", {"device.r_on": 1.0, "device.r_off": float(f"{(kiloohms + 1) * 1000:.14g}")})
        assert written.hash == plain.hash

    @pytest.mark.parametrize("override", ["device.r_on=6 ns", "device.r_on={value: 6, unit: ns}"])
    def test_a_wrong_unit_names_the_expected_one(self, override):
        error = failure(override)
        assert (error.field, error.value) == ("device.r_on.unit", "ns")
        assert "ohm" in error.expected

    def test_an_unknown_unit_is_refused(self):
        assert failure("device.read_pulse=6 bananas").field == "device.read_pulse.unit"

    def test_a_count_takes_no_unit(self):
        assert failure("array.b_adc=6 kohm").field == "array.b_adc"

    def test_a_number_without_point_in_its_exponent_is_a_number(self):
        assert loads(PLAIN).node.feature_size == 32e-9


class TestErrors:
    @pytest.mark.parametrize(
        ("override", "field", "nearest"),
        [
            ("array.b_adc=0", "array.b_adc", "1"),
            ("array.b_adc=99", "array.b_adc", "16"),
            ("array.b_cell=3", "array.b_cell", "2"),
            ("array.b_cell=5", "array.b_cell", "4"),
            ("device=sot-mram", "array.b_cell", "1"),
            ("array.rows=64", "array.active_rows", "64"),
            ("array.columns=64", "array.columns_per_adc", "64"),
            ("b_adc=6", "b_adc", "array.b_adc"),
            ("array.adc_bits=6", "array.adc_bits", "array.b_adc"),
            ("aray.rows=6", "aray", "array"),
            ("device.variation.sigm=1", "device.variation.sigm", "device.variation.sigma"),
            ("array.encoding=ofset", "array.encoding", "offset"),
            ("array.encoding=binary", "array.encoding", "offset"),
            ("device.variation.model=gauss", "device.variation.model", "gaussian"),
            ("device=sot", "device", "sot-mram"),
            ("components.family=isac", "components.family", "isaac"),
            ("hierarchy.tiles=0", "hierarchy.tiles", "1"),
        ],
    )
    def test_the_field_is_named_and_the_nearest_choice_offered(self, override, field, nearest):
        error = failure(override)
        assert error.field == field
        assert error.nearest == nearest

    @pytest.mark.parametrize(
        "override",
        [
            "array.b_adc=true",
            "array.b_adc=6.5",
            "array.b_adc=six",
            "array.b_adc=",
            "array.b_adc=nan",
            "array.b_adc=.inf",
            "array.b_adc=[6]",
            "array.b_adc={unit: bit}",
            "array.b_adc={value: 6, units: bit}",
            "array.b_adc.value.value=6",
            "array=6",
            "array",
            "=6",
            "device.r_off=1",
            "device.stuck_lrs=1.5",
            "device.level_conductances=[1e-6, 2e-6]",
            "device.level_conductances=[4e-6, 3e-6, 2e-6, 1e-6]",
            "device.variation={model: table, conductance: [1e-6, 2e-6], sigma: [1e-7]}",
            "device.variation={model: table, conductance: [2e-6, 1e-6], sigma: [1e-7, 1e-7]}",
            "device.variation={model: polynomial, coefficients: [1], g_min: 3e-6, g_max: 2e-6}",
        ],
    )
    def test_a_bad_value_is_refused(self, override):
        assert failure(override).expected

    def test_flip_needs_all_rows_together(self):
        assert failure("array.active_rows=64").field == "array.flip"
        assert load("crimp-isaac", ["array.active_rows=64", "array.flip=false"]).array.active_rows == 64

    def test_rows_that_share_a_sign_fill_the_array(self):
        error = failure("array.flip=false", "array.encoding=polarised", "array.active_rows=9")
        assert error.field == "array.active_rows"
        assert error.nearest == "8"

    def test_flip_needs_offset_encoding(self):
        assert failure("array.encoding=differential").field == "array.flip"

    def test_one_weight_must_fit_the_columns(self):
        assert failure("array.columns_per_adc=1", "array.columns=3").field == "array.columns"

    def test_eight_bits_in_two_bit_cells_are_legal_in_every_encoding(self):
        for encoding, columns in (("offset", 4), ("differential", 8), ("twos_complement", 5), ("polarised", 4)):
            chip = load("crimp-isaac", {"array.flip": False, "array.encoding": encoding})
            assert chip.columns_per_weight == columns

    def test_cell_bits_that_leave_a_ragged_sign_code_are_refused(self):
        error = failure("array.flip=false", "precision.weights=6", "array.encoding=differential", "array.b_cell=4")
        assert error.field == "array.b_cell"
        assert error.nearest == "3"

    def test_an_unknown_preset_suggests_one(self):
        with pytest.raises(InputError) as caught:
            load("crimp")
        assert caught.value.nearest == "crimp-isaac"

    @pytest.mark.parametrize("name", ["missing.yaml", "no/such/chip.yaml"])
    def test_a_missing_file_is_named(self, name):
        with pytest.raises(InputError, match=r"No such file"):
            load(name)

    @pytest.mark.parametrize(
        "text",
        [
            "[1, 2",
            "- a\n- b",
            "just text",
            "",
            "name: a\nname: b",
            "1: 2",
            "name: !!python/object:os.system {}",
            "a: *b",
        ],
    )
    def test_malformed_yaml_is_one_clear_error(self, tmp_path, text):
        path = tmp_path / "chip.yaml"
        path.write_text(text)
        with pytest.raises(InputError):
            load(path)

    def test_a_binary_file_is_refused(self, tmp_path):
        path = tmp_path / "chip.yaml"
        path.write_bytes(b"\xff\xfe\x00name")
        with pytest.raises(InputError, match="UTF-8"):
            load(path)

    def test_a_folder_is_refused(self, tmp_path):
        with pytest.raises(InputError):
            load(tmp_path)

    @pytest.mark.parametrize("section", ["node", "device", "array", "hierarchy", "components"])
    def test_a_missing_section_is_named(self, section):
        content = yaml.safe_load(PLAIN)
        del content[section]
        with pytest.raises(InputError) as caught:
            loads(yaml.safe_dump(content))
        assert caught.value.field == section

    def test_a_missing_figure_is_named_with_its_unit(self):
        content = yaml.safe_load(PLAIN)
        del content["node"]["vdd"]
        with pytest.raises(InputError) as caught:
            loads(yaml.safe_dump(content))
        assert caught.value.field == "node.vdd"
        assert "in V" in caught.value.expected

    def test_a_newer_format_version_is_refused(self):
        with pytest.raises(InputError, match="version"):
            loads("version: 99\n" + PLAIN)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["value", "unit", "source", "model", "rows", "x"]), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        st.sampled_from(
            ["array", "array.rows", "device", "device.variation", "components", "published", "name", "node"]
        ),
    )
    def test_any_value_gives_a_chip_or_an_input_error(self, value, path):
        try:
            chip = load("crimp-isaac", {path: value})
        except InputError:
            return
        assert chip.hash == loads(chip.to_yaml()).hash


class TestOverridesAndExtension:
    def test_texts_and_mapping_agree(self):
        text = load("crimp-isaac", ["array.b_adc=6", "device.r_on=2 kohm"])
        mapping = load("crimp-isaac", {"array.b_adc": 6, "device.r_on": 2000.0})
        assert text.hash == mapping.hash == load("crimp-isaac").override(["array.b_adc=6", "device.r_on=2 kohm"]).hash

    def test_an_override_is_its_own_source(self):
        assert load("crimp-isaac", ["array.b_adc=6"]).sources["array.b_adc"] == "set by the user"

    def test_a_device_is_swapped_whole(self):
        chip = load("rram-binary", ["device=sot-mram", "device.read_pulse=1 ns"])
        assert chip.device.technology == "SOT-MRAM"
        assert chip.device.read_pulse == 1e-9
        assert chip.device.variation.model == "gaussian"
        assert load("rram-binary", ["device=sot-mram"]).hash == load("sot-mram").hash

    def test_nothing_of_the_old_device_stays(self):
        chip = load("crimp-isaac", ["device=rram-40nm"])
        assert chip.device.variation.model == "none"
        assert chip.sources["device.variation.model"].startswith("default")

    def test_another_variation_model_replaces_the_old_one_whole(self):
        chip = load("crimp-isaac", {"device.variation": {"model": "gaussian", "sigma": 0.02}})
        assert chip.device.variation.model_dump() == {"model": "gaussian", "sigma": 0.02}

    def test_a_file_extends_a_preset_and_another_file(self, tmp_path):
        (tmp_path / "base.yaml").write_text("extends: crimp-isaac\narray: {b_adc: 7}\n")
        (tmp_path / "chip.yaml").write_text(
            'extends: base.yaml\ndevice: {r_on: {value: 2, unit: kohm, source: "mine"}}\n'
        )
        chip = load(tmp_path / "chip.yaml")
        assert (chip.name, chip.array.b_adc, chip.array.rows, chip.device.r_on) == ("chip", 7, 128, 2000.0)
        assert chip.sources["device.r_on"] == "mine"
        assert chip.sources["array.rows"].startswith("CRIMP")

    def test_a_circle_is_refused(self, tmp_path):
        (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
        (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
        with pytest.raises(InputError, match="circle"):
            load(tmp_path / "a.yaml")

    def test_a_section_source_covers_its_leaves(self):
        chip = loads(PLAIN.replace("array: {rows: 64", 'array: {source: "bench", rows: {value: 64, source: "ruler"}'))
        assert chip.sources["array.rows"] == "ruler"
        assert chip.sources["array.columns"] == "bench"

    def test_a_figure_without_source_has_none(self):
        assert "array.rows" not in loads(PLAIN).sources


class TestHashAndRoundTrip:
    @pytest.mark.parametrize("name", names())
    def test_what_is_written_reads_back_equal(self, name, tmp_path):
        chip = load(name)
        path = tmp_path / "copy.yaml"
        path.write_text(chip.to_yaml())
        copy = load(path)
        assert copy == chip
        assert copy.hash == chip.hash
        assert copy.sources == chip.sources
        assert copy.to_yaml() == chip.to_yaml()

    def test_key_order_does_not_matter(self):
        content = yaml.safe_load(PLAIN)
        turned = {k: dict(reversed(v.items())) if isinstance(v, dict) else v for k, v in reversed(content.items())}
        assert loads(yaml.safe_dump(turned, sort_keys=False)).hash == loads(PLAIN).hash

    def test_every_process_gives_the_same_hash(self):
        script = "from crossloom.hardware import load; print(load('crimp-isaac').hash)"
        seen = {
            subprocess.run(
                [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
            ).stdout.strip()
            for seed in ("1", "2")
        }
        assert seen == {load("crimp-isaac").hash}

    def test_names_and_words_are_no_part_of_it(self):
        chip = load("crimp-isaac")
        assert chip.override({"name": "other", "description": "other"}).hash == chip.hash

    @pytest.mark.parametrize("override", ["array.b_adc=7", "device.read_noise=0.01", "components.omit=[]"])
    def test_any_figure_changes_it(self, override):
        assert load("crimp-isaac", [override]).hash != load("crimp-isaac").hash

    def test_integers_and_equal_floats_agree(self):
        assert load("crimp-isaac", {"device.r_on": 1333}).hash == load("crimp-isaac", {"device.r_on": 1333.0}).hash

    def test_a_chip_cannot_be_changed(self):
        with pytest.raises(ValueError, match="frozen"):
            load("crimp-isaac").array.rows = 3


class TestReference:
    def test_every_field_says_what_it_means(self):
        for path, info in leaves(Chip):
            assert info.description, path

    def test_every_leaf_stands_in_the_reference(self):
        text = schema_reference()
        for path, info in leaves(Chip):
            assert f"| `{path.rsplit('.', 1)[-1]}` |" in text
            assert info.description.replace("\n", " ").replace("|", "\\|") in text

    def test_a_description_lists_every_figure_once(self):
        rows = describe(load("neurram"))
        paths = [row.path for row in rows]
        assert len(paths) == len(set(paths))
        by_path = {row.path: row for row in rows}
        assert by_path["device.r_off"].value == 1e6
        assert by_path["device.r_off"].unit == "ohm"
        assert by_path["published.efficiency_o3_i1"].value == 43.08e12
        assert by_path["device.variation.g_max"].unit == "S"
