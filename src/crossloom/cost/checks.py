"""A chip's published figures beside ours, with and without the chip's fitted factors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from crossloom.cost.peak import Peak, peak
from crossloom.hardware import CELLS, Chip

CORES = 48
"""NeuRRAM's throughput is that of its 48 cores (Wan et al., Nature 2022)."""

POINT = re.compile(r"(throughput|efficiency)_o(\d+)_i(\d+)(_one_phase)?")
"""NeuRRAM's points: output bits, input bits, and whether all input bits are integrated at once."""

BANK_CELLS, WORD_CELLS = 1 << 25, 512
"""Cells of the 32 Mb banks of Angizi et al. (ISVLSI 2019), and of one write (ours: assumed)."""

ONE_PHASE_BITS = 3
"""Streamed input bits (a polarity apart) that NeuRRAM integrates at once; more go in two phases of equal length."""

SHARES = {
    "neurons": ("neuron_sample", "neuron_integrator", "neuron_adc", "shift_add"),
    "drivers": ("wordline",),
    "cells": ("crossbar",),
}
"""Components of NeuRRAM's area split."""


@dataclass(frozen=True)
class Check:
    """A published figure beside ours, SI units.

    Attributes:
        name, published, unit, condition, source: of the figure.
        ours: the model's, fitted factors included.
        raw: the model's without them.
    """

    name: str
    published: float
    ours: float
    unit: str
    condition: str
    source: str
    raw: float

    @property
    def ratio(self) -> float:
        """Ours ÷ published."""
        return self.ours / self.published

    @property
    def raw_ratio(self) -> float:
        """Ours without fitted factors ÷ published."""
        return self.raw / self.published


def checks(chip: Chip) -> list[Check]:
    """The chip's published peak figures beside ours, for those that this model speaks about."""
    ours, raw = _figures(chip, True), _figures(chip, False)
    return [
        Check(name, entry.value, ours[name], entry.unit, entry.condition, entry.source, raw[name])
        for name, entry in chip.published.items()
        if name in ours
    ]


def _figures(chip: Chip, calibrated: bool) -> dict[str, float]:
    """Our figures under the names that presets give published ones."""
    found = peak(chip, calibrated=calibrated)
    ours = {
        "macro_power": found.macro.power,
        "macro_area": found.macro.area,
        "macro_energy_efficiency": found.macro.per_joule,
        "tile_power": found.tile.power,
        "tile_area": found.tile.area,
        "peak_energy_efficiency": found.best.per_joule,
        "peak_area_efficiency": found.best.per_area,
    }
    if found.chip is not None:
        ours |= {"chip_power": found.chip.power, "chip_area": found.chip.area}
    device = chip.device
    ours |= {
        "bank_cell_area": BANK_CELLS * device.cell_area_f2 * chip.node.feature_size**2,
        "bank_read_time": device.read_pulse,
        "bank_write_time": device.write_pulse,
        "bank_write_energy": WORD_CELLS * device.write_energy,
    }
    whole = sum(found.area[name] for name in found.area if name != CELLS)
    for share, parts in SHARES.items():
        if all(part in found.area for part in parts):
            ours[f"area_share_{share}"] = sum(found.area[part] for part in parts) / whole

    @cache
    def at(output_bits: int, input_bits: int, one_phase: bool) -> Peak:
        return neurram_point(chip, output_bits, input_bits, one_phase, calibrated)

    for name in chip.published:
        if match := POINT.fullmatch(name):
            core = at(int(match[2]), int(match[3]), match[4] is not None).array
            ours[name] = CORES * core.rate if match[1] == "throughput" else core.per_joule
    return ours


def neurram_point(
    chip: Chip, output_bits: int, input_bits: int, one_phase: bool = False, calibrated: bool = True
) -> Peak:
    """NeuRRAM at one of its settings.

    Up to four signed input bits are integrated in one phase, more in two phases of equal length, the longer one
    first; the conversion of the lower phase leaves out what lies below the output's last bit.
    """
    streamed = max(input_bits - 1, 1)
    width = streamed if one_phase or streamed <= ONE_PHASE_BITS else -(-streamed // 2)
    return peak(chip.override({"array.b_dac": width}), input_bits, None, output_bits, calibrated=calibrated)
