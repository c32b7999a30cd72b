"""A simple analytic family with node scaling: gates, wires and converters from first principles.

Everything follows from the feature size F, the supply V and the array's shape. The few constants below carry
their source; the formulas are in each part's `source`. It is meant for comparing chips and devices on equal
terms, and is good to a factor of about two against silicon; a chip with published figures should use those.
"""

from __future__ import annotations

import math
from typing import Any

from crossloom.hardware import and_engine
from crossloom.hardware.components import ANALOG, Action, Component, Family
from crossloom.hardware.schema import Chip

WIRE_CAPACITANCE = 0.2e-15 / 1e-6
"""Capacitance of on-chip wire, F/m. Ho, Mai, Horowitz, Proc. IEEE 89(4), 2001: about 0.2 fF/µm at every node."""

NAND_AREA = 300.0
"""Area of a two-input NAND gate with its share of wiring, in F² (ours: assumed, three 4F tracks by 25F)."""

GATE_WIDTH = 10.0
"""Total transistor width switched by one gate with its load, in F (ours: assumed, two 3F devices and a fan-out)."""

GATE_CAPACITANCE = 1.0e-15 / 1e-6
"""Gate capacitance per transistor width, F/m. ITRS and Horowitz: about 1 fF/µm at every node."""

ACTIVITY = 0.5
"""Fraction of gates that switch in one operation (ours: assumed)."""

GATES = {"full_adder": 6.0, "flip_flop": 6.0, "multiplexer": 3.0, "sram_bit": 0.5}
"""NAND equivalents (Weste and Harris, CMOS VLSI Design, 4th ed.: 28-T adder, 24-T flip-flop; 6-T cell at 146 F²)."""

WALDEN = 20e-15
"""ADC energy per conversion step, J, at 32 nm and 1 V. Murmann's ADC survey: SAR converters of 10 … 30 fJ/step."""

FANOUT_DELAY = 0.36e-9 / 1e-6
"""Fan-out-of-four inverter delay per drawn gate length, s/m. Ho, Mai, Horowitz 2001: 360 ps per µm."""

LEAKAGE = 1e-9
"""Leakage of one NAND gate at 1 V and 300 K, W: ITRS 2011, low operating power, 5 nA/µm (ours: assumed 0.2 µm off)."""


class Gates:
    """Energy, area, delay and leakage of logic at a node."""

    def __init__(self, feature_size: float, vdd: float) -> None:
        self.f, self.v = feature_size, vdd

    def energy(self, gates: float) -> float:
        """Switching energy in joules of `gates` NAND equivalents: a·N·C·V²."""
        return ACTIVITY * gates * GATE_CAPACITANCE * GATE_WIDTH * self.f * self.v**2

    def area(self, gates: float) -> float:
        """Area in m²."""
        return gates * NAND_AREA * self.f**2

    def delay(self, stages: float) -> float:
        """Delay in seconds of `stages` gates in a row."""
        return stages * FANOUT_DELAY * self.f

    def leakage(self, gates: float) -> float:
        """Leakage in watts."""
        return gates * LEAKAGE * self.v

    def wire(self, length: float) -> float:
        """Energy in joules of one transition on a wire of `length` metres: ½·C·V²."""
        return 0.5 * WIRE_CAPACITANCE * length * self.v**2


def adc(bits: int, feature_size: float, vdd: float) -> tuple[float, float]:
    """(energy in J, area in m²) of one SAR conversion of `bits`.

    Energy: Walden's figure of merit times 2^bits, plus bit-cycling logic; area: 2^bits unit capacitors and the
    logic. Both rise with every bit.
    """
    gates = Gates(feature_size, vdd)
    logic = 12.0 * bits
    energy = WALDEN * (feature_size / 32e-9) * vdd**2 * (1 << bits) + gates.energy(logic)
    # 8-bit: 256 unit capacitors of 0.5 fF at 2 fF/µm² and the logic.
    return energy, (1 << bits) * 0.25e-12 + gates.area(logic + 60.0)


def family(chip: Chip) -> Family:
    """The parts of a chip by formula, at its node, supply and array."""
    node, array, device = chip.node, chip.array, chip.device
    f, v = node.feature_size, node.vdd
    gates = Gates(f, v)
    pitch = math.sqrt(device.cell_area_f2) * f
    row_wire, column_wire = array.columns * array.wire_capacitance, array.rows * array.wire_capacitance
    inputs, accumulator = chip.precision.inputs, 24
    macro_rows = array.rows * chip.hierarchy.arrays_per_macro
    macro_columns = array.columns // chip.columns_per_weight * chip.hierarchy.arrays_per_macro
    adc_energy, adc_area = adc(array.b_adc, f, v)
    array_area = array.rows * array.columns * pitch**2
    buffer_bits = 64 * 1024 * 8
    buffer_side = math.sqrt(gates.area(buffer_bits * GATES["sram_bit"]))
    macro_side = math.sqrt(2 * chip.hierarchy.arrays_per_macro * array_area)
    tile_side = 2 * math.sqrt(chip.hierarchy.macros_per_tile) * macro_side
    adder = GATES["full_adder"]
    port = 1 / (chip.hierarchy.port_bits * node.clock)

    def part(level: str, actions: list[Action], energy: float, source: str, **more: Any) -> Component:
        return Component.model_validate(
            {"level": level, "actions": actions, "energy": energy, "source": f"analytical: {source}"} | more
        )

    def register(bits: float) -> dict[str, float]:
        size = bits * GATES["flip_flop"]
        return {"area": gates.area(size), "leakage": gates.leakage(size)}

    driver = (1 << array.b_dac) - 1
    parts = {
        "row_driver": part(
            "array", [Action.ROW_DRIVE],
            driver * (row_wire * device.read_voltage**2 + gates.energy(8)),
            "C_wire·V_read² of the wordline and 8 gates of a level shifter, per step of the digit",
            count=array.rows, area=driver * gates.area(8), leakage=driver * gates.leakage(8),
            latency=gates.delay(4) + 2.2 * array.driver_resistance * row_wire,
        ),
        "crossbar": part(
            "array", [Action.ARRAY_READ],
            array.columns * column_wire * device.read_voltage**2,
            "C_wire·V_read² of every bitline; the cells' V²·G·t is added from the real conductances",
            area=array_area, latency=device.read_pulse, leakage=array.rows * array.columns * device.leakage,
        ),
        "sample_hold": part(
            "array", [Action.SAMPLE_HOLD], 10e-15 * v**2, "10 fF hold capacitor charged to V",
            count=array.columns, area=5e-12 * (f / 32e-9),
        ),
        "adc": part(
            "array", [Action.ADC_CONVERSION], adc_energy,
            "SAR: 20 fJ/step·2^b·F/32 nm·V² and logic; 2^b capacitors of 0.25 µm² and logic; b cycles of 8 FO4",
            count=array.adcs, area=adc_area, latency=array.b_adc * gates.delay(8), bits=array.b_adc,
            leakage=gates.leakage(12.0 * array.b_adc),
        ),
        "column_multiplexer": part(
            "array", [Action.ADC_CONVERSION], gates.energy(GATES["multiplexer"]), "one transmission gate and decoder",
            count=array.columns, area=gates.area(GATES["multiplexer"]),
            leakage=gates.leakage(GATES["multiplexer"]),
        ),
        "shift_add": part(
            "array", [Action.SHIFT_ADD],
            gates.energy(accumulator * (adder + GATES["flip_flop"] + GATES["multiplexer"])),
            "24 full adders, flip-flops and shift multiplexers; one per converter",
            count=array.adcs,
            area=gates.area(accumulator * (adder + GATES["flip_flop"] + GATES["multiplexer"])),
            leakage=gates.leakage(accumulator * (adder + GATES["flip_flop"] + GATES["multiplexer"])),
            latency=gates.delay(8), bits=accumulator, scaling="linear",
        ),
        "input_register": part(
            "macro", [Action.INPUT_REGISTER], gates.energy(GATES["flip_flop"]), "one flip-flop a bit, one word a row",
            **register(macro_rows * inputs),
        ),
        "output_register": part(
            "macro", [Action.OUTPUT_REGISTER], gates.energy(GATES["flip_flop"]), "flip-flops, 24 bits a weight column",
            **register(macro_columns * accumulator),
        ),
        "buffer": part(
            "tile", [Action.BUFFER_READ, Action.BUFFER_WRITE],
            gates.wire(2 * buffer_side) + gates.energy(8),
            "64 KB SRAM: one bit over its two sides and 8 gates; hierarchy.port_bits a clock", latency=port,
            area=gates.area(buffer_bits * GATES["sram_bit"]) * 1.5,
            leakage=gates.leakage(buffer_bits * GATES["sram_bit"]) * 0.1,
        ),
        "bus": part(
            "tile", [Action.TILE_BUS], gates.wire(tile_side), "a transition on one of port_bits wires across the tile",
            area=chip.hierarchy.port_bits * 4 * f * tile_side, latency=port,
        ),
        "router": part(
            "tile", [Action.NETWORK_HOP],
            gates.wire(tile_side) + gates.energy(3 * GATES["flip_flop"] + 5 * GATES["multiplexer"]),
            "a wire across one tile, three flip-flops and a five-way multiplexer a bit",
            area=gates.area(chip.hierarchy.link_bits * 5 * (8 * GATES["flip_flop"] + 5 * GATES["multiplexer"])),
            leakage=gates.leakage(chip.hierarchy.link_bits * 5 * (8 * GATES["flip_flop"] + 5 * GATES["multiplexer"])),
            latency=3 / (chip.hierarchy.network_clock or node.clock),
        ),
        "activation": part(
            "tile", [Action.ACTIVATION], gates.energy(accumulator * (adder + GATES["multiplexer"])),
            "24-bit add for rounding, shift and clip", count="on_demand",
            area=gates.area(accumulator * (adder + GATES["multiplexer"])), latency=1 / node.clock,
            leakage=gates.leakage(accumulator * (adder + GATES["multiplexer"])),
        ),
        "pool": part(
            "tile", [Action.POOL], gates.energy(inputs * (adder + GATES["multiplexer"])), "compare and select",
            count="on_demand", area=gates.area(inputs * (adder + GATES["multiplexer"])), latency=1 / node.clock,
            leakage=gates.leakage(inputs * (adder + GATES["multiplexer"])), bits=inputs, scaling="linear",
        ),
        "tile_adder": part(
            "tile", [Action.DIGITAL_ADD], gates.energy(accumulator * adder), "24 full adders", count="on_demand",
            area=gates.area(accumulator * adder), latency=1 / node.clock, leakage=gates.leakage(accumulator * adder),
            bits=accumulator, scaling="linear",
        ),
        "tile_multiplier": part(
            "tile", [Action.DIGITAL_MULTIPLY], gates.energy(16 * 16 * (adder + 1)), "16 × 16 full adders and AND gates",
            count="on_demand", area=gates.area(16 * 16 * (adder + 1)), latency=1 / node.clock,
            leakage=gates.leakage(16 * 16 * (adder + 1)), bits=16, scaling="quadratic",
        ),
        "transform_adder": part(
            "macro", [Action.TRANSFORM_ADD], gates.energy(inputs * adder), "one full adder a bit", count="on_demand",
            area=gates.area(inputs * adder), latency=1 / node.clock, leakage=gates.leakage(inputs * adder),
            bits=inputs, scaling="linear",
        ),
        "transform_multiplier": part(
            "macro", [Action.TRANSFORM_MULTIPLY], gates.energy(inputs**2 * (adder + 1) / 2),
            "b² full adders and AND gates, halved because the factor is a constant", count="on_demand",
            area=gates.area(inputs**2 * (adder + 1) / 2), latency=1 / node.clock,
            leakage=gates.leakage(inputs**2 * (adder + 1) / 2), bits=inputs, scaling="quadratic",
        ),
        "transform_table": part(
            "macro", [Action.TRANSFORM_GATHER], 10 * (gates.wire(macro_side) + gates.energy(8)),
            "a 10-bit index out of an SRAM table; area and leakage of its entry", count="entries",
            area=gates.area(10 * GATES["sram_bit"]) * 1.5, leakage=gates.leakage(10 * GATES["sram_bit"]) * 0.1,
            bits=10, scaling="linear",
        ),
        "write_driver": part(
            "array", [Action.CELL_WRITE],
            0.5 * (row_wire + column_wire) * device.write_voltage**2, "½·C·V_write² of the row's and the column's wire",
            count=array.columns, area=gates.area(4 * max(device.write_voltage / v, 1.0)),
        ),
        "off_chip": part(
            "chip", [Action.DRAM], 15e-12, "LPDDR4, 15 pJ/bit with its interface (ours: assumed, data sheets 10 … 20)"
        ),
    }  # fmt: skip
    if array.readout == "and":
        parts = {name: made for name, made in parts.items() if not set(made.actions) & set(ANALOG)}
        parts |= and_engine.parts(chip)
    if array.digit_drive == "serial":
        parts["integrator"] = part(
            "array", [Action.INTEGRATE], 50e-15 * v**2 + gates.energy(4), "50 fF integration capacitor and 4 gates",
            count=array.columns, area=25e-12 * (f / 32e-9), latency=1 / node.clock,
        )  # fmt: skip
    return Family(name="analytical", description="Formulas at the chip's own node", components=parts)


family.version = 4  # type: ignore[attr-defined]
