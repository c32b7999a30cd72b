"""A chip at its peak: every array busy, every row driven, every column in use, at the rated bits.

This is the figure that papers print. Work of one pass of one array over H rows and N = ⌊W / columns of a weight⌋ sums:
H·D row drives, D·groups reads, conversions of all columns, H·b_x input bits and N·b_x output bits through the
registers (written and read), the bus, the buffer (written and read) and one router; one activation, one pooling and
one addition a sum. Those are the counts with which ISAAC's table was turned into energies per action, so ISAAC comes
out as printed. Parts that do none of this (a table of zeros, a link) run at their source's own peak rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from crossloom.cost.timing import read_time
from crossloom.hardware import Action, Chip, Component, columns_per_weight, components
from crossloom.weave import fields

CELLS = "cells"


@dataclass(frozen=True)
class Figures:
    """One level of the hierarchy with everything below it.

    Attributes:
        area: m².
        power: W, leakage included.
        rate: operations per second (a multiply-accumulate is two).
    """

    area: float
    power: float
    rate: float

    @property
    def per_joule(self) -> float:
        """Operations per joule; TOPS/W times 10¹²."""
        return self.rate / self.power if self.power else math.inf

    @property
    def per_area(self) -> float:
        """Operations per second and m²; TOPS/mm² times 10¹⁸."""
        return self.rate / self.area if self.area else math.inf


@dataclass(frozen=True)
class Peak:
    """Peak figures of a chip.

    Attributes:
        input_bits, weight_bits: rated widths.
        array, macro, tile: one of each, with all that it contains.
        chip: all tiles and the chip's own parts, or None if the chip has no fixed number of tiles.
        power, area: of one tile by component, W and m²; those of the chip's own parts under their names.
        nameplate: Σ energy × the source's peak rate of one tile, W, or None if a part states no rate.
    """

    input_bits: int
    weight_bits: int
    array: Figures
    macro: Figures
    tile: Figures
    chip: Figures | None
    power: dict[str, float]
    area: dict[str, float]
    nameplate: float | None

    @property
    def best(self) -> Figures:
        """Of the chip, or of a tile where the chip has no fixed size."""
        return self.chip or self.tile


@dataclass(frozen=True)
class Check:
    """A published figure beside ours, SI units."""

    name: str
    published: float
    ours: float
    unit: str
    condition: str
    source: str

    @property
    def ratio(self) -> float:
        """Ours ÷ published."""
        return self.ours / self.published


def _pass(chip: Chip, input_bits: int, weight_bits: int) -> tuple[dict[Action, float], float, float]:
    """(actions of one array in one pass, digits, multiply-accumulates)."""
    array = chip.array
    per_weight = columns_per_weight(array.encoding, weight_bits, array.b_cell)
    sums = array.columns // per_weight
    digits = len(fields(input_bits, array.b_dac, signed=False))
    reads = digits * math.ceil(array.rows / array.active_rows)
    conversions = reads * sums * per_weight
    moved = array.rows * input_bits + sums * input_bits
    work = {
        Action.ROW_DRIVE: array.rows * digits,
        Action.ARRAY_READ: reads,
        Action.SAMPLE_HOLD: conversions,
        Action.ADC_CONVERSION: conversions,
        Action.SHIFT_ADD: conversions,
        Action.INPUT_REGISTER: 2 * array.rows * input_bits,
        Action.OUTPUT_REGISTER: 2 * sums * input_bits,
        Action.TILE_BUS: moved,
        Action.BUFFER_READ: moved,
        Action.BUFFER_WRITE: moved,
        Action.NETWORK_HOP: moved,
        Action.ACTIVATION: sums,
        Action.POOL: sums,
        Action.DIGITAL_ADD: sums,
    }
    return {action: float(n) for action, n in work.items()}, reads, array.rows * sums


def peak(chip: Chip, input_bits: int | None = None, weight_bits: int | None = None) -> Peak:
    """Peak figures, at the rated bits unless others are given.

    Cells that are priced by conductance hold all levels equally often and see full digits.

    Raises:
        InputError: an unknown component.
    """
    precision = chip.precision
    input_bits = input_bits or precision.rated_inputs or precision.inputs
    weight_bits = weight_bits or precision.rated_weights or precision.weights
    parts = components(chip)
    work, reads, macs = _pass(chip, input_bits, weight_bits)
    used = int(work[Action.ADC_CONVERSION] / reads)
    once = reads * read_time(chip, parts.values(), used)
    in_macro = chip.hierarchy.arrays_per_macro
    in_tile = in_macro * chip.hierarchy.macros_per_tile
    instances = {"array": in_tile, "macro": chip.hierarchy.macros_per_tile, "tile": 1, "chip": 1}
    power: dict[str, float] = {}
    area: dict[str, float] = {}
    level: dict[str, str] = {name: part.level for name, part in parts.items()}
    for name, part in parts.items():
        dynamic, units = _running(part, work, in_tile / once, instances[part.level])
        power[name] = dynamic + units * part.leakage
        area[name] = units * part.area
    if chip.components.cell_energy == "conductance":
        device, array = chip.device, chip.array
        levels = device.conductances(array.b_cell)
        mean = sum(levels) / len(levels)
        squares = sum(
            (((1 << f.width) - 1) / ((1 << array.b_dac) - 1)) ** 2 for f in fields(input_bits, array.b_dac, False)
        )
        energy = array.rows * used * mean * device.read_voltage**2 * device.read_pulse * squares
        power[CELLS], area[CELLS], level[CELLS] = energy * in_tile / once, 0.0, "array"
    rate = 2 * macs / once

    def own(at: str, of: dict[str, float]) -> float:
        """Of the parts that one instance of a level holds itself."""
        return sum(value / instances[at] for name, value in of.items() if level[name] == at)

    array_figures = Figures(own("array", area), own("array", power), rate)
    macro = _stack(array_figures, in_macro, own("macro", area), own("macro", power))
    tile = _stack(macro, chip.hierarchy.macros_per_tile, own("tile", area), own("tile", power))
    whole = None
    if chip.hierarchy.tiles is not None:
        whole = _stack(tile, chip.hierarchy.tiles, own("chip", area), own("chip", power))
    inside = [p for p in parts.values() if p.level != "chip" and isinstance(p.count, float | int) and p.energy]
    nameplate = None
    if all(p.peak_rate is not None for p in inside):
        nameplate = sum(float(p.count) * instances[p.level] * p.energy * (p.peak_rate or 0.0) for p in inside)
    return Peak(input_bits, weight_bits, array_figures, macro, tile, whole, power, area, nameplate)


def _running(part: Component, work: dict[Action, float], passes: float, instances: int) -> tuple[float, float]:
    """(dynamic power, units) of a part in one tile that makes `passes` array passes a second."""
    actions = passes * sum(work.get(action, 0.0) for action in part.actions)
    if part.level == "chip" or not actions:
        units = 0.0 if part.count == "on_demand" else float(part.count) * instances
        return units * part.energy * (part.peak_rate or 0.0), units
    if part.count == "on_demand":
        units = float(instances * max(math.ceil(actions / instances * part.latency - 1e-9), 1))
    else:
        units = float(part.count) * instances
    return actions * part.energy, units


def _stack(inner: Figures, count: int, area: float, power: float) -> Figures:
    """`count` of one level and the next level's own parts."""
    return Figures(count * inner.area + area, count * inner.power + power, count * inner.rate)


def checks(chip: Chip) -> list[Check]:
    """The chip's published peak figures beside ours, for those that this model speaks about."""
    found = peak(chip)
    ours = {
        "macro_power": found.macro.power,
        "macro_area": found.macro.area,
        "tile_power": found.tile.power,
        "tile_area": found.tile.area,
        "peak_energy_efficiency": found.best.per_joule,
        "peak_area_efficiency": found.best.per_area,
    }
    if found.chip is not None:
        ours |= {"chip_power": found.chip.power, "chip_area": found.chip.area}
    return [
        Check(name, entry.value, ours[name], entry.unit, entry.condition, entry.source)
        for name, entry in chip.published.items()
        if name in ours
    ]
