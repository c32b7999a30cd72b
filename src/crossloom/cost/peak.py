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
from crossloom.hardware import CELLS, Action, Chip, Component, cell_factor, columns_per_weight, components
from crossloom.weave import fields


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
class Rating:
    """At which widths a peak is stated.

    Attributes:
        inputs, weights: bits.
        signed: inputs have a sign, given by the polarity of the drive: one bit less to stream.
        density: fraction of rows driven.
        outputs: bits of the finished sums: the conversion of a lower digit leaves out what lies below their last bit.
            None means the converters' full width for every digit.
    """

    inputs: int
    weights: int
    signed: bool = False
    density: float = 1.0
    outputs: int | None = None

    def digits(self, chip: Chip) -> list[int]:
        """Widths of the input digits, highest first; a shorter one is the lowest."""
        streamed = max(self.inputs - 1, 1) if self.signed else self.inputs
        return sorted((f.width for f in fields(streamed, chip.array.b_dac, signed=False)), reverse=True)

    def conversion_bits(self, chip: Chip) -> list[int]:
        """Bits of the conversion of each digit."""
        found, below = [], 0
        for width in self.digits(chip):
            found.append(chip.array.b_adc if self.outputs is None else max(self.outputs - below, 1))
            below += width
        return found


def _pass(chip: Chip, rating: Rating, used: int) -> dict[Action, float]:
    """Actions of one array in one pass, conversions and counts left out, with `used` columns."""
    array, digits = chip.array, rating.digits(chip)
    sums = used // columns_per_weight(array.encoding, rating.weights, array.b_cell)
    groups = math.ceil(array.rows / array.active_rows)
    columns = groups * used
    moved = array.rows * rating.inputs + sums * rating.inputs
    work: dict[Action, float] = {
        Action.SHIFT_ADD: columns * len(digits),
        Action.INPUT_REGISTER: 2 * array.rows * rating.inputs,
        Action.OUTPUT_REGISTER: 2 * sums * rating.inputs,
        Action.TILE_BUS: moved,
        Action.BUFFER_READ: moved,
        Action.BUFFER_WRITE: moved,
        Action.NETWORK_HOP: moved,
        Action.ACTIVATION: sums,
        Action.POOL: sums,
        Action.DIGITAL_ADD: sums,
    }
    pulses = sum(digits) if array.digit_drive == "serial" else len(digits)
    if array.readout == "and":
        work |= {
            Action.INPUT_WRITE: array.rows * len(digits),
            Action.BULK_AND: array.rows * columns * len(digits),
            Action.POPCOUNT: array.rows * columns * len(digits),
        }
    else:
        work |= {
            Action.ROW_DRIVE: array.rows * rating.density * pulses,
            Action.ARRAY_READ: groups * len(digits),
            Action.SAMPLE_HOLD: columns * pulses,
            Action.ADC_CONVERSION: columns * len(digits),
        }
    if array.digit_drive == "serial":
        work[Action.INTEGRATE] = columns * sum((1 << width) - 1 for width in digits)
    return {action: float(n) for action, n in work.items()}


def peak(
    chip: Chip,
    input_bits: int | None = None,
    weight_bits: int | None = None,
    output_bits: int | None = None,
    *,
    density: float | None = None,
    calibrated: bool = True,
) -> Peak:
    """Peak figures, at the rated bits unless others are given.

    Cells that are priced by conductance hold weights of all values (`mean_conductance`); driven rows see full digits.

    Args:
        chip: the hardware.
        input_bits: width of the inputs; default the chip's rated one.
        weight_bits: width of the weights; default the chip's rated one.
        output_bits: see `Rating.outputs`.
        density: fraction of rows driven; default the chip's rated one.
        calibrated: with the chip's fitted factors.

    Raises:
        InputError: an unknown component.
    """
    precision, array = chip.precision, chip.array
    rating = Rating(
        input_bits or precision.rated_inputs or precision.inputs,
        weight_bits or precision.rated_weights or precision.weights,
        precision.rated_signed,
        density or precision.rated_density,
        output_bits,
    )
    parts = components(chip, calibrated=calibrated)
    per_weight = columns_per_weight(array.encoding, rating.weights, array.b_cell)
    used = array.columns // per_weight * per_weight
    work = _pass(chip, rating, used)
    macs = array.rows * (used // per_weight)
    groups = math.ceil(array.rows / array.active_rows)
    once, converting = 0.0, dict.fromkeys(parts, 0.0)
    for width, bits in zip(rating.digits(chip), rating.conversion_bits(chip), strict=True):
        sized = {n: p.at(bits) if Action.ADC_CONVERSION in p.actions else p for n, p in parts.items()}
        once += groups * read_time(chip, sized.values(), used, width)
        for name, part in sized.items():
            if Action.ADC_CONVERSION in part.actions:
                converting[name] += groups * used * part.energy
    in_macro = chip.hierarchy.arrays_per_macro
    in_tile = in_macro * chip.hierarchy.macros_per_tile
    instances = {"array": in_tile, "macro": chip.hierarchy.macros_per_tile, "tile": 1, "chip": 1}
    power: dict[str, float] = {}
    area: dict[str, float] = {}
    level: dict[str, str] = {name: part.level for name, part in parts.items()}
    for name, part in parts.items():
        dynamic, units = _running(part, work, in_tile / once, instances[part.level])
        if converting[name]:  # conversions of several widths, and whatever else the part does
            others = sum(work.get(action, 0.0) for action in part.actions if action != Action.ADC_CONVERSION)
            dynamic = (converting[name] + others * part.energy) * in_tile / once
        power[name] = dynamic + units * part.leakage
        area[name] = units * part.area
    if chip.components.cell_energy == "conductance":
        one_read = array.rows * used * mean_conductance(chip) * chip.device.read_voltage**2 * chip.device.read_pulse
        energy = one_read * _full_reads(chip, rating) * cell_factor(chip, calibrated=calibrated)
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
    return Peak(rating.inputs, rating.weights, array_figures, macro, tile, whole, power, area, nameplate)


def mean_conductance(chip: Chip) -> float:
    """Of a cell in siemens if all weights are equally frequent: every level as often, but of a differential pair one
    cell is at the lowest.
    """
    levels = chip.device.conductances(chip.array.b_cell)
    mean = sum(levels) / len(levels)
    return (levels[0] + mean) / 2 if chip.array.encoding == "differential" else mean


def _full_reads(chip: Chip, rating: Rating) -> float:
    """Reads of a pass in which a cell sees the full voltage, on average."""
    digits = rating.digits(chip)
    if chip.array.readout == "and":
        return float(len(digits))
    if chip.array.digit_drive == "serial":
        return rating.density * sum(digits)
    return rating.density * sum((((1 << width) - 1) / ((1 << chip.array.b_dac) - 1)) ** 2 for width in digits)


def _running(part: Component, work: dict[Action, float], passes: float, instances: int) -> tuple[float, float]:
    """(dynamic power, units) of a part in one tile that makes `passes` array passes a second."""
    actions = passes * sum(work.get(action, 0.0) for action in part.actions)
    if part.level == "chip" or not actions:
        units = float(part.count) * instances if part.fixed else 0.0
        return units * part.energy * (part.peak_rate or 0.0), units
    if part.count == "on_demand":
        units = float(instances * max(math.ceil(actions / instances * part.latency - 1e-9), 1))
    else:
        units = float(part.count) * instances
    return actions * part.energy, units


def _stack(inner: Figures, count: int, area: float, power: float) -> Figures:
    """`count` of one level and the next level's own parts."""
    return Figures(count * inner.area + area, count * inner.power + power, count * inner.rate)
