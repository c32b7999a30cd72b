"""Our own chips, devices and their published figures."""

from importlib import resources
from itertools import pairwise

import pytest

from crossloom.hardware import columns_per_weight, components, describe, device_names, load, names
from crossloom.hardware.load import Chip
from crossloom.weave import weight_code

EXPECTED = {
    "isaac", "crimp-isaac", "crimp-isaac-fp", "rram-40nm", "neurram", "neurosim-rram", "neurosim-sram", "rram-binary",
    "sot-mram-and", "sot-mram", "stt-mram", "sram-cim", "pcm", "fefet",
}  # fmt: skip

PAPER_WORDS = ("ISCA", "TECS", "ESSCIRC", "JSSC", "Frontiers", "Nature", "IRPS", "ISVLSI", "IEDM", "ICECS", "arXiv")
"""A source is one of these venues, a tool's stated defaults, or an assumption that says so."""


def test_all_presets_are_there():
    assert set(names()) >= EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
class TestEveryPreset:
    def test_every_figure_has_a_source(self, name):
        for row in describe(load(name)):
            if row.path in ("name", "description"):
                assert row.value
            else:
                assert row.source, row.path

    def test_every_source_is_published_or_owns_up(self, name):
        for path, source in load(name).sources.items():
            known = any(word in source for word in PAPER_WORDS) or "NeuroSim V1." in source
            assert known or source.startswith(("ours: ", "default: ", "ISAAC-class")), (path, source)

    def test_a_figure_not_defaulted_is_not_called_a_default(self, name):
        chip = load(name)
        for section in ("node", "array", "device", "hierarchy"):
            record = getattr(chip, section)
            for field in type(record).model_fields:
                if type(record).model_fields[field].is_required():
                    assert not chip.sources[f"{section}.{field}"].startswith("default"), field

    def test_its_components_serve_every_action(self, name):
        parts = components(load(name))
        assert all(part.source for part in parts.values())
        assert all(not part.fixed or part.count > 0 for part in parts.values())


@pytest.mark.parametrize("name", device_names())
def test_every_device_fits_a_one_bit_chip(name):
    chip = load("rram-binary", {"device": name})
    for path, source in chip.sources.items():
        assert source, path
    levels = chip.device.conductances(1)
    assert levels == pytest.approx((1 / chip.device.r_off, 1 / chip.device.r_on))


class TestFigures:
    """Numbers as the papers state them."""

    def test_crimp(self):
        chip = load("crimp-isaac")
        a, h = chip.array, chip.hierarchy
        assert (a.rows, a.columns, a.b_cell, a.b_dac, a.b_adc) == (128, 128, 2, 1, 8)
        assert a.columns // chip.columns_per_weight == 32
        assert (h.arrays_per_macro, h.macros_per_tile, h.tiles) == (8, 12, None)
        assert (chip.precision.inputs, chip.precision.weights, chip.precision.power_of_two) == (8, 8, True)
        assert chip.node.feature_size == 32e-9
        assert a.cycle == 100e-9
        assert a.flip
        assert a.read_max == 192
        assert a.lossless

    def test_isaac(self):
        chip = load("isaac")
        assert (chip.hierarchy.tiles, chip.precision.rated_inputs, chip.precision.rated_weights) == (168, 16, 16)
        assert (chip.device.r_on, chip.device.r_off, chip.device.read_voltage) == (1333, 20000, 0.2)

    def test_rram_40nm(self):
        chip = load("rram-40nm")
        a, d = chip.array, chip.device
        assert (a.rows, a.columns, a.active_rows, a.b_adc, a.adc_range, a.b_cell) == (256, 256, 7, 3, "unit", 1)
        assert (chip.node.feature_size, chip.node.vdd, chip.node.clock) == (40e-9, 0.9, 100e6)
        assert (d.r_on, d.on_off, d.read_voltage, d.read_pulse, d.cell_area_f2) == (6000, 150, 0.5, 10e-9, 48)
        assert a.read_max == 7
        assert a.lossless
        assert chip.published["macro_energy_efficiency"].value == 36.4e12

    def test_neurosim(self):
        chip = load("neurosim-rram")
        a, d = chip.array, chip.device
        assert (a.rows, a.columns, a.b_cell, a.b_adc, a.columns_per_adc) == (128, 128, 2, 5, 8)
        assert (chip.precision.inputs, chip.precision.weights, chip.node.feature_size) == (8, 8, 22e-9)
        assert (d.r_on, d.on_off, d.read_voltage, d.read_pulse) == (6000, 150, 0.5, 10e-9)
        assert not a.lossless
        sram = load("neurosim-sram")
        assert (sram.array.b_cell, sram.device.technology, sram.device.cell_area_f2) == (1, "SRAM", 280)
        assert sram.node == chip.node

    def test_neurram(self):
        chip = load("neurram")
        assert (chip.array.rows, chip.array.columns, chip.array.encoding) == (256, 256, "differential")
        assert chip.device.r_off == 1e6
        v = chip.device.variation
        assert v.coefficients == (1.053, 0.2374, -1.167e-2, 1.536e-4)
        assert (v.scale, v.g_max) == (1e-6, 39e-6)
        points = [(3, 1, 2.122, 43.08), (4, 2, 1.793, 40.33), (5, 3, 1.165, 23.09), (6, 4, 0.744, 15.95)]
        points += [(7, 5, 0.525, 11.03), (8, 6, 0.418, 8.26), (9, 7, 0.344, 7.75), (10, 8, 0.264, 6.44)]
        for out, inp, tops, tops_per_watt in points:
            assert chip.published[f"throughput_o{out}_i{inp}"].value == pytest.approx(tops * 1e12)
            assert chip.published[f"efficiency_o{out}_i{inp}"].value == pytest.approx(tops_per_watt * 1e12)

    def test_measured_rram_error(self):
        v = load("rram-binary", {"device": "rram-milo"}).device.variation
        assert v.coefficients == (4.782, -0.009107)
        assert (v.g_min, v.g_max) == (50e-6, 225e-6)

    def test_sot(self):
        d = load("sot-mram").device
        assert (d.r_on, d.r_off / d.r_on - 1, d.max_bits) == (2000, 1.5, 1)
        assert (d.read_pulse, d.write_pulse) == (2.85e-9, 2.59e-9)
        assert 1e10 <= d.endurance <= 1e15

    @pytest.mark.parametrize(
        ("chip", "array_mm2", "write_ns", "write_nj"),
        [
            ("sot-mram", 7.06, 2.59, 0.66),
            ("stt-mram", 2.14, 5.29, 0.67),
            ("rram-binary", 3.92, 19.8, 2.9),
            ("sram-cim", 10.38, 2.7, 0.38),
        ],
    )
    def test_the_32_megabit_banks(self, chip, array_mm2, write_ns, write_nj):
        loaded = load(chip)
        cell = loaded.device.cell_area_f2 * loaded.node.feature_size**2
        assert cell * 2**25 == pytest.approx(array_mm2 * 1e-6, rel=2e-3)
        assert loaded.device.write_pulse == pytest.approx(write_ns * 1e-9)
        assert loaded.device.write_energy * 512 == pytest.approx(write_nj * 1e-9)

    @pytest.mark.parametrize("name", ["sot-mram", "stt-mram", "sram-cim"])
    def test_technology_variants_differ_in_the_device_alone(self, name):
        mine, base = load(name).model_dump(), load("rram-binary").model_dump()
        for section in ("node", "array", "precision", "hierarchy", "components"):
            assert mine[section] == base[section]
        assert mine["device"] != base["device"]


@pytest.mark.parametrize("encoding", ["offset", "differential", "twos_complement", "polarised"])
@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("cell", range(1, 9))
def test_columns_of_a_weight_are_those_of_the_code(encoding, bits, cell):
    assert columns_per_weight(encoding, bits, cell) == weight_code(encoding, bits, cell).columns


def test_presets_are_package_data():
    folder = resources.files("crossloom.hardware") / "chips"
    assert {item.name for item in folder.iterdir()} >= {f"{name}.yaml" for name in EXPECTED}


def test_level_conductances_are_used_as_given():
    given = (1e-6, 5e-6, 7e-6, 20e-6)
    chip = load("crimp-isaac", {"device.level_conductances": list(given)})
    assert chip.device.conductances(2) == given


def test_even_levels_are_evenly_spaced():
    device = load("crimp-isaac").device
    g = device.conductances(2)
    assert g[0] == 1 / device.r_off
    assert g[-1] == pytest.approx(1 / device.r_on)
    assert [b - a for a, b in pairwise(g)] == pytest.approx([(g[-1] - g[0]) / 3] * 3)


@pytest.mark.parametrize(
    ("rows", "cell", "dac", "flip", "bits"),
    [(128, 2, 1, True, 8), (128, 2, 1, False, 9), (7, 1, 1, False, 3), (128, 1, 2, False, 9)],
)
def test_lossless_bits_by_brute_force(rows, cell, dac, flip, bits):
    array = load("crimp-isaac", {
        "array.rows": rows, "array.active_rows": rows, "array.b_cell": cell, "array.b_dac": dac, "array.flip": flip,
    }).array if rows == 128 else load("rram-40nm").array  # fmt: skip
    top = (2**cell - 1) * (2**dac - 1)
    sums = range(rows * top // 2 + 1) if flip else range(rows * top + 1)
    assert array.read_max == max(sums)
    assert array.lossless_b_adc == bits == min(b for b in range(1, 20) if 2**b >= len(sums))


def test_chip_is_exported():
    assert isinstance(load("isaac"), Chip)
