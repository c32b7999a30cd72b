"""The `parasitic` rung: the analog rung with every array's conductances replaced by its exact transfer matrix.

The wires act on each programmed array as a whole: its cells as they came out, its blank cells and its reference column.
Converters and everything digital are the analog rung's. With perfect wires the two rungs are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate.analog import AnalogEngine
from crossloom.simulate.analog_chip import AnalogChip, ProgrammedBlock
from crossloom.simulate.devices import Levels, temperature_factor
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.simulate.parasitic import Wires
from crossloom.simulate.parasitic_array import of_block, physical
from crossloom.simulate.parasitic_cache import TransferCache
from crossloom.weave import WovenLayer

Solver = Callable[[Float64[np.ndarray, "rows columns"], Wires], Float64[np.ndarray, "columns rows"]]


def wired(
    made: ProgrammedBlock, mapping: LayerMapping, chip: AnalogChip, wires: Wires, solve: Solver
) -> ProgrammedBlock:
    """A programmed array as its wires let it be read, in nominal level steps.

    The reference, where there is one, is one column of the mean of the reference's cells, read through its own wires.
    A cell's read noise is taken to act on its effective conductance.

    Args:
        made: the array as programmed.
        mapping: the layer it belongs to.
        chip: the chip it is part of.
        wires: around its cells.
        solve: `effective_conductances` or a cache of it.
    """
    if wires.ideal:
        return made
    array, device = mapping.array, chip.device
    levels = Levels.of(device, array.b_cell, chip.conditions.on_off == "infinite")
    age = (chip.time / device.drift.reference_time) ** -device.drift.exponent
    blank = levels.floor * age * float(temperature_factor(device, np.zeros(1), chip.temperature)[0])
    rows, columns = made.conductance.shape
    subtracted = bool(made.reference.any())
    reference = made.reference * levels.step if subtracted else None
    whole = physical(made.conductance * levels.step, array, blank * levels.step, reference)
    transfer = solve(whole, wires) / levels.step
    conductance = of_block(transfer, rows, slice(0, columns))
    if not subtracted:
        return replace(made, conductance=conductance)
    seen = of_block(transfer, rows, slice(array.columns, None))[:, 0]
    left = np.divide(seen, made.reference, out=np.zeros(rows), where=made.reference > 0)
    return replace(made, conductance=conductance, reference=seen, reference_squares=made.reference_squares * left**2)


class ParasiticEngine:
    """The analog crossbar with resistive wires.

    Args:
        wires: around the cells of every array; None takes each array's own description.
        cache: of transfer matrices; None is the one on the user's disk.
    """

    rung = "parasitic"

    def __init__(self, wires: Wires | None = None, cache: TransferCache | None = None) -> None:
        self.wires = wires
        self.cache = cache or TransferCache()

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """A kernel for one layer: the analog rung's, planned from arrays as their wires let them be read.

        Raises:
            InputError: the layer is not mapped onto arrays, or no chip is given.
        """
        mapping, chip = mapped(target, "parasitic"), settings.analog
        if chip is None:
            raise InputError("analog", None, "the chip to simulate")
        return AnalogEngine().prepare(mapping, replace(settings, analog=replace(chip, readout=self.readout)))

    def readout(self, made: ProgrammedBlock, mapping: LayerMapping, chip: AnalogChip) -> ProgrammedBlock:
        """A programmed array behind its wires."""
        return wired(made, mapping, chip, self.wires or Wires.of(mapping.array), self.cache.effective_conductances)
