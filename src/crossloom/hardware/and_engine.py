"""Parts of an array that ANDs its columns with a bit plane of the input and counts the ones.

A column of bits and the plane of input bits lie on the same bitlines. Selecting both at once lets each bitline's
sense amplifier tell "both on" from the rest by its current; a tree of adders counts the ones. The input's plane is
written into the array before its columns take their turn.
"""

from __future__ import annotations

from crossloom.hardware.components import Action, Component
from crossloom.hardware.schema import Chip

SENSE_GATES = 12.0
"""NAND equivalents of a latched sense amplifier with its reference branch (ours: assumed, about 40 transistors)."""


def parts(chip: Chip) -> dict[str, Component]:
    """The array's own parts besides its cells."""
    from crossloom.hardware.analytical import GATES, Gates

    array, device = chip.array, chip.device
    gates = Gates(chip.node.feature_size, chip.node.vdd)
    rows = array.rows
    column_wire, row_wire = rows * array.wire_capacitance, array.columns * array.wire_capacitance
    # A tree that adds n bits has n − 1 adders, of one bit more at every level: fewer than 2n full adders.
    tree, levels = 2.0 * rows * GATES["full_adder"], max(rows - 1, 1).bit_length()
    cell = device.read_voltage**2 * device.read_pulse * (1 / device.r_on + 1 / device.r_off) / 2
    common = {"level": "array", "source": ""}

    def part(**figures: object) -> Component:
        return Component.model_validate(common | figures)

    return {
        "input_writer": part(
            actions=[Action.INPUT_WRITE], count=rows,
            energy=device.write_energy + 0.5 * row_wire * device.write_voltage**2,
            area=gates.area(8.0 + 4 * max(device.write_voltage / chip.node.vdd, 1.0)),
            leakage=gates.leakage(8.0), latency=device.write_pulse,
            source="analytical: device.write_energy and ½·C_wire·V_write² a bit; a plane's bits are written at once",
        ),
        "sense": part(
            actions=[Action.BULK_AND],
            energy=cell + gates.energy(SENSE_GATES) + column_wire * device.read_voltage**2 / rows,
            area=rows * gates.area(SENSE_GATES), leakage=rows * gates.leakage(SENSE_GATES),
            latency=device.read_pulse,
            source="analytical, a bit: V²·G·t of the input's cell (half of them on), a sense amplifier of 12 gates, "
            "and the bit's share of the selected line; the weights' V²·G·t is added from the real conductances",
        ),
        "counter": part(
            actions=[Action.POPCOUNT], energy=gates.energy(tree / rows), area=gates.area(tree),
            leakage=gates.leakage(tree), latency=gates.delay(8.0 * levels),
            source="analytical: adder tree over the array's bitlines, two full adders a bit, eight gate delays a level",
        ),
        "crossbar": part(
            actions=[Action.BULK_AND], energy=0.0, area=rows * (array.columns + 1) * device.cell_area_f2
            * chip.node.feature_size**2, leakage=rows * (array.columns + 1) * device.leakage,
            source="analytical: cells of the weights and of one plane of the input; their V²·G·t is added",
        ),
    }  # fmt: skip
