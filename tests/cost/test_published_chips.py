"""Peak figures of chips with a published table, read as the tables stand in the papers."""

from __future__ import annotations

import pytest

from crossloom.cost import checks, peak
from crossloom.hardware import load

ISAAC_TABLE_I_TILE = {
    # Shafiee et al., ISCA 2016, Table I: power (mW), area (mm²) in one tile of 12 IMAs, 32 nm.
    "buffer": (20.7, 0.083),  # eDRAM buffer, 64 KB
    "bus": (7.0, 0.090),  # eDRAM-to-IMA bus
    "router": (42.0 / 4, 0.151 / 4),  # shared by four tiles
    "activation": (0.52, 0.0006),  # two sigmoid units
    "tile_adder": (0.05, 0.00006),  # S+A
    "pool": (0.4, 0.00024),  # max pool
    "tile_output_register": (1.68, 0.0032),  # OR, 3 KB
    "adc": (12 * 16.0, 12 * 0.0096),  # 8 ADCs of 8 bits, 1.2 GS/s
    "dac": (12 * 4.0, 12 * 0.00017),  # 8 × 128 DACs of 1 bit
    "sample_hold": (12 * 0.01, 12 * 0.00004),  # 8 × 128
    "crossbar": (12 * 2.4, 12 * 0.0002),  # 8 arrays of 128 × 128, 2 bits a cell
    "shift_add": (12 * 0.2, 12 * 0.00024),  # 4 S+A
    "input_register": (12 * 1.24, 12 * 0.0021),  # IR, 2 KB
    "output_register": (12 * 0.23, 12 * 0.00077),  # OR, 256 B
}

CRIMP_TILE = {
    # Huai et al., ACM TECS 2023: power (mW), area (mm²); 8-bit inputs and weights.
    "12 IMA": (294.84, 0.17256),
    "tile": (294.84 + 20.7 + 1.68 + 23.72 + 11.47, 0.17256 + 0.083 + 0.0032 + 0.02604 + 0.03865),
}


def test_isaac_table_i_part_by_part() -> None:
    found = peak(load("isaac"))
    for name, (milliwatts, square_millimetres) in ISAAC_TABLE_I_TILE.items():
        assert found.power[name] * 1e3 == pytest.approx(milliwatts, rel=1e-3), name
        assert found.area[name] * 1e6 == pytest.approx(square_millimetres, rel=1e-3), name


def test_isaac_tile_and_chip() -> None:
    """Tile 330 mW, 0.372 mm²; chip of 168 tiles and four links 65.8 W, 85.4 mm²."""
    found = peak(load("isaac"))
    assert found.tile.power == pytest.approx(0.330, rel=0.05)
    assert found.tile.area == pytest.approx(0.372e-6, rel=0.05)
    assert found.chip is not None
    assert found.chip.power == pytest.approx(65.8, rel=0.05)
    assert found.chip.area == pytest.approx(85.4e-6, rel=0.05)


def test_isaac_peak_efficiency() -> None:
    """479 GOPS/s/mm² and 627 … 644 GOPS/W at 16 bits."""
    found = peak(load("isaac"))
    assert (found.input_bits, found.weight_bits) == (16, 16)
    assert found.best.per_area == pytest.approx(479e9 * 1e6, rel=0.10)
    assert 0.9 * 627e9 <= found.best.per_joule <= 1.1 * 644e9


def test_counted_power_agrees_with_the_parts_own_peak_rates() -> None:
    """Two ways to the tile's power: counted actions in a pass, and each part at the rate its source states."""
    found = peak(load("isaac"))
    assert found.nameplate == pytest.approx(found.tile.power, rel=1e-3)


def test_crimp_variant_with_sparsity_table_and_multiplier() -> None:
    found = peak(load("crimp-isaac-fp"))
    assert 12 * found.macro.power * 1e3 == pytest.approx(CRIMP_TILE["12 IMA"][0], rel=0.05)
    assert 12 * found.macro.area * 1e6 == pytest.approx(CRIMP_TILE["12 IMA"][1], rel=0.05)
    assert found.tile.power * 1e3 == pytest.approx(CRIMP_TILE["tile"][0], rel=0.05)
    assert found.tile.area * 1e6 == pytest.approx(CRIMP_TILE["tile"][1], rel=0.05)


def test_leaving_out_sparsity_table_and_multiplier_saves_what_they_cost() -> None:
    with_both = load("crimp-isaac-fp")
    omitted = [*with_both.components.omit, "sparsity_table", "fp_multiplier"]
    without = peak(with_both.override({"components.omit": omitted}))
    assert peak(with_both).macro.area - without.macro.area == pytest.approx(0.00126e-6)
    assert peak(with_both).tile.area - without.tile.area == pytest.approx((12 * 0.00126 + 0.02604) * 1e-6)
    assert peak(with_both).macro.power - without.macro.power == pytest.approx(0.5e-3)


@pytest.mark.parametrize("name", ["isaac", "crimp-isaac-fp"])
def test_checks_of_the_preset_itself(name: str) -> None:
    found = checks(load(name))
    assert {"macro_power", "tile_area"} <= {check.name for check in found}
    for check in found:
        assert check.ratio == pytest.approx(1, abs=0.05), check


def test_fewer_bits_raise_the_peak_rate() -> None:
    """Half the input bits and half the weight bits: four times the operations a second."""
    chip = load("isaac")
    assert peak(chip, 8, 8).tile.rate == pytest.approx(4 * peak(chip).tile.rate)
    assert peak(load("crimp-isaac")).chip is None
    assert peak(load("crimp-isaac")).best == peak(load("crimp-isaac")).tile


def test_the_device_alone_separates_the_four_memories() -> None:
    """RRAM, SOT, STT and SRAM variants differ in cells, read and write circuits and the wires that follow the cells."""
    shared = ("adc", "sample_hold", "shift_add", "input_register", "output_register", "buffer")
    base = load("rram-binary")
    reference = peak(base)
    for name in ("sot-mram", "stt-mram", "sram-cim"):
        chip = load(name)
        other = peak(chip)
        for part in shared:
            assert other.area[part] == pytest.approx(reference.area[part]), (name, part)
        cells = chip.device.cell_area_f2 / base.device.cell_area_f2
        assert other.area["crossbar"] / reference.area["crossbar"] == pytest.approx(cells)
        energy = [
            d.read_voltage**2 * d.read_pulse * (1 / d.r_on + 1 / d.r_off) for d in (chip.device, base.device)
        ]  # fmt: skip
        per_operation = (other.power["cells"] / other.tile.rate) / (reference.power["cells"] / reference.tile.rate)
        assert per_operation == pytest.approx(energy[0] / energy[1])
