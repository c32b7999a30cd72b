"""Component families: ISAAC's and CRIMP's tables rebuilt from energies and rates, scaling, mixing, providers."""

import math
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.hardware import (
    ACTION_HELP,
    Action,
    Component,
    MixedFamilies,
    components,
    describe_components,
    expected_actions,
    family,
    family_names,
    load,
)
from crossloom.hardware.analytical import adc

COMPLETE = ["analytical", "crimp", "isaac", "survey"]


def power(chip, level, only=None):
    """Peak power in watts of the parts of one instance of a level: count · energy · rate."""
    parts = {k: p for k, p in components(chip).items() if p.level == level and (only is None or k in only)}
    return sum(p.count * p.energy * p.peak_rate for p in parts.values() if p.peak_rate)


def area(chip, level, only=None):
    """Area in m² of the parts of one instance of a level that the source lists."""
    parts = {k: p for k, p in components(chip).items() if p.level == level and (only is None or k in only)}
    return sum(p.count * p.area for p in parts.values() if p.fixed)


class TestIsaacTable:
    """ISAAC Table I: powers in mW and areas in mm², 12 IMAs a tile, 168 tiles a chip."""

    @pytest.mark.parametrize(
        ("part", "level", "number", "milliwatts", "mm2"),
        [
            ("adc", "array", 8, 16, 0.0096),
            ("dac", "array", 8, 4, 0.00017),
            ("sample_hold", "array", 8, 0.01, 0.00004),
            ("crossbar", "array", 8, 2.4, 0.0002),
            ("shift_add", "macro", 1, 0.2, 0.00024),
            ("input_register", "macro", 1, 1.24, 0.0021),
            ("output_register", "macro", 1, 0.23, 0.00077),
            ("buffer", "tile", 1, 20.7, 0.083),
            ("bus", "tile", 1, 7, 0.090),
            ("router", "tile", 4, 42, 0.151),
            ("activation", "tile", 1, 0.52, 0.0006),
            ("tile_adder", "tile", 1, 0.05, 0.00006),
            ("pool", "tile", 1, 0.4, 0.00024),
            ("tile_output_register", "tile", 1, 1.68, 0.0032),
        ],
    )
    def test_each_line(self, part, level, number, milliwatts, mm2):
        chip = load("isaac")
        assert number * power(chip, level, {part}) == pytest.approx(milliwatts * 1e-3, rel=1e-6)
        assert number * area(chip, level, {part}) == pytest.approx(mm2 * 1e-6, rel=1e-6)

    def test_totals(self):
        chip = load("isaac")
        macro = 8 * power(chip, "array") + power(chip, "macro")
        tile = 12 * macro + power(chip, "tile")
        assert macro == pytest.approx(chip.published["macro_power"].value, rel=1e-3)
        assert tile == pytest.approx(chip.published["tile_power"].value, rel=1e-3)
        assert 168 * tile + power(chip, "chip") == pytest.approx(chip.published["chip_power"].value, rel=1e-3)
        macro = 8 * area(chip, "array") + area(chip, "macro")
        tile = 12 * macro + area(chip, "tile")
        assert macro == pytest.approx(chip.published["macro_area"].value, rel=1e-3)
        assert tile == pytest.approx(chip.published["tile_area"].value, rel=1e-3)
        assert 168 * tile + area(chip, "chip") == pytest.approx(chip.published["chip_area"].value, rel=1e-3)

    def test_crimp_totals(self):
        chip = load("crimp-isaac-fp")
        macro = 8 * power(chip, "array") + power(chip, "macro")
        assert macro == pytest.approx(chip.published["macro_power"].value, rel=1e-3)
        assert 12 * macro + power(chip, "tile") == pytest.approx(chip.published["tile_power"].value, rel=1e-3)
        macro = 8 * area(chip, "array") + area(chip, "macro")
        assert macro == pytest.approx(chip.published["macro_area"].value, rel=1e-3)
        assert 12 * macro + area(chip, "tile") == pytest.approx(chip.published["tile_area"].value, rel=1e-3)


class TestFamilies:
    def test_all_are_known(self):
        assert set(family_names()) >= {*COMPLETE, "aladdin40", "mnsim"}

    @pytest.mark.parametrize("name", COMPLETE)
    def test_a_whole_family_serves_every_action(self, name):
        chip = load("crimp-isaac", {"components": name})
        parts = components(chip)
        assert {action for part in parts.values() for action in part.actions} == expected_actions(chip)
        for part in parts.values():
            assert math.isfinite(part.energy)
            assert part.source

    @pytest.mark.parametrize("name", ["aladdin40", "mnsim"])
    def test_half_a_family_alone_is_refused(self, name):
        with pytest.raises(InputError, match="nothing pays for"):
            components(load("crimp-isaac", {"components": name}))

    @pytest.mark.parametrize("name", ["aladdin40", "mnsim"])
    def test_half_a_family_completes_another_and_mixing_warns(self, name):
        chip = load("isaac", {"components.replace": [name]})
        with pytest.warns(MixedFamilies):
            mixed = components(chip)
        replaced = family(name).components
        assert set(mixed) == set(components(load("isaac")))
        for part in replaced:
            assert mixed[part].source.startswith(replaced[part].source)

    def test_one_family_does_not_warn(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            components(load("isaac"))

    def test_an_unknown_part_cannot_be_omitted(self):
        with pytest.raises(InputError) as caught:
            components(load("isaac", {"components.omit": ["buss"]}))
        assert caught.value.nearest == "bus"

    def test_the_survey_refuses_what_it_does_not_cover(self):
        with pytest.raises(InputError) as caught:
            components(load("crimp-isaac", {"components": "survey", "array.b_adc": 3}))
        assert caught.value.field == "array.b_adc"

    def test_survey_converter_is_the_librarys(self):
        """1.85 pJ and 6313 µm² at 8 bits, 32 nm, 1.2 GS/s."""
        chip = load("isaac", {"components": "survey", "array.cycle": 128 / 1.2e9})
        part = components(chip)["adc"]
        assert part.energy == pytest.approx(1.85e-12, rel=2e-3)
        assert part.area == pytest.approx(6313e-12, rel=1e-3)

    def test_every_action_is_defined_in_words(self):
        assert set(ACTION_HELP) == set(Action)

    def test_rows_carry_their_source(self):
        parts = components(load("isaac"))
        rows = describe_components(parts)
        assert len(rows) == 4 * len(parts)
        assert all(row.source and row.unit for row in rows)


class TestScaling:
    def test_isaac_converter_widths(self):
        """The library's 4-, 6-, 8- and 10-bit converters, relative to 8 bits."""
        base = components(load("isaac"))["adc"]
        for bits, energy, size in ((4, 0.79, 361), (6, 1.20, 627), (10, 2.38, 3002)):
            part = components(load("isaac", {"array.b_adc": bits}))["adc"]
            assert part.energy / base.energy == pytest.approx(energy / 1.667)
            assert part.area / base.area == pytest.approx(size / 1200)

    @pytest.mark.parametrize("name", COMPLETE)
    @settings(deadline=None)
    @given(st.integers(4, 15))
    def test_more_converter_bits_never_cost_less(self, name, bits):
        less = components(load("isaac", {"components": name, "array.b_adc": bits}))["adc"]
        more = components(load("isaac", {"components": name, "array.b_adc": bits + 1}))["adc"]
        assert more.energy >= less.energy
        assert more.area >= less.area

    @given(st.integers(1, 15))
    def test_analytical_converter_rises(self, bits):
        assert all(b > a for a, b in zip(adc(bits, 40e-9, 1.0), adc(bits + 1, 40e-9, 1.0), strict=True))

    @pytest.mark.parametrize(
        ("scaling", "ratio"), [("constant", 1), ("linear", 2), ("quadratic", 4), ("exponential", 255 / 15)]
    )
    def test_laws(self, scaling, ratio):
        part = Component(
            level="tile", actions=(Action.POOL,), energy=1e-12, area=1e-12, bits=4, scaling=scaling, source="test"
        )
        assert part.at(8).energy == pytest.approx(ratio * 1e-12)
        assert part.at(8).area == pytest.approx(ratio * 1e-12)
        assert part.at(4) is part

    def test_node(self):
        base, scaled = components(load("isaac")), components(load("isaac", {"node.feature_size": "16 nm"}))
        assert scaled["buffer"].area == pytest.approx(base["buffer"].area / 4)
        assert scaled["buffer"].energy == pytest.approx(base["buffer"].energy / 2)
        assert "scaled" in scaled["buffer"].source

    def test_array_size(self):
        small = components(load("isaac"))["crossbar"]
        large = components(load("isaac", {"array.columns": 256}))["crossbar"]
        assert large.area == pytest.approx(2 * small.area)
        assert large.energy == pytest.approx(2 * small.energy)

    def test_counts_follow_the_array(self):
        parts = components(load("isaac", {"array.columns": 256, "array.columns_per_adc": 64}))
        assert (parts["adc"].count, parts["dac"].count, parts["sample_hold"].count) == (4, 128, 256)

    @pytest.mark.parametrize("field", ["node.feature_size=64 nm", "node.vdd=1.3 V"])
    def test_larger_nodes_and_voltages_cost_more(self, field):
        base, more = (components(load("isaac", ["components=analytical", *extra])) for extra in ([], [field]))
        for name in ("shift_add", "activation", "tile_multiplier", "buffer", "adc"):
            assert more[name].energy > base[name].energy


class TestBadRecords:
    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"scaling": "linear"}, "bits"),
            ({"scaling": "table", "bits": 8}, "table_bits"),
            ({"energy": -1.0}, "energy"),
            ({"actions": ("dance",)}, "actions"),
            ({"source": ""}, "source"),
        ],
    )
    def test_refused(self, change, field):
        good = {"level": "tile", "actions": ("pool",), "energy": 1e-12, "source": "test"}
        Component.model_validate(good)
        with pytest.raises(ValueError, match=field):
            Component.model_validate(good | change)
