"""The `analog` rung: crossbar reads of one physical chip, cell by cell and converter by converter.

Each layer takes the fastest kernel that gives the plan's bits: the 16-bit lookup kernel on a CPU with a narrow grid,
else torch operations.
"""

from __future__ import annotations

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate.analog_lookup import LookupKernel, fits
from crossloom.simulate.analog_plan import plan
from crossloom.simulate.analog_tensor import TensorKernel
from crossloom.simulate.engine import Kernel, Settings, mapped
from crossloom.weave import WovenLayer


class AnalogEngine:
    """The analog crossbar."""

    rung = "analog"

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """A kernel for one layer.

        Raises:
            InputError: the layer is not mapped onto arrays, or no chip is given.
        """
        mapping, chip = mapped(target, "analog"), settings.analog
        if chip is None:
            raise InputError("analog", None, "the chip to simulate")
        adc = settings.converter(mapping)
        plans = [plan(mapping, adc, chip, copy) for copy in range(mapping.copies)]
        if settings.device.type == "cpu" and all(fits(mapping, p) for p in plans):
            return LookupKernel(mapping, plans, settings)
        return TensorKernel(mapping, plans, settings)
