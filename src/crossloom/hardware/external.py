"""Parts from NeuroSim and CACTI through hwcomponents, where their binaries run.

Both families are incomplete: they take the places of some parts of another one (`components.replace: [cacti]`), which
warns that sources are mixed. Neither is ever needed. The binaries that the packages ship are built for a newer C
library than some systems have; what is missing is then named.
"""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Any

from crossloom.errors import InputError
from crossloom.hardware.components import Action, Component, Family
from crossloom.hardware.schema import Chip

BUFFER_BITS = 64 * 1024 * 8
"""A tile's buffer: ISAAC's 64 KB."""

ACCUMULATOR_BITS = 24
"""Width for which accumulating parts are asked; other widths follow in proportion."""

BINARIES = {"hwcomponents_cacti": "cacti/cacti", "hwcomponents_neurosim": "NeuroSim/main"}
"""Where each package keeps its program."""


def missing(package: str) -> str | None:
    """What keeps a package's program from running: in words, or None.

    A program that starts and complains about its arguments runs.
    """
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        return f"the package {package.replace('_', '-')}, which does not import ({error})"
    program = Path(str(module.__file__)).parent / BINARIES[package]
    try:
        done = subprocess.run(
            [program], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    except OSError as error:
        return f"the program {program}, which does not start ({error.strerror})"
    except subprocess.TimeoutExpired:
        return None
    lost = [line.split(": ", 2)[-1] for line in done.stderr.splitlines() if "not found (required by" in line]
    if lost:
        return f"the program {program}, which does not start ({lost[0].split(' (required')[0]})"
    return None


def _models(family: str, package: str) -> Any:
    """The package, if its program runs.

    Raises:
        InputError: it does not; the message says what is missing.
    """
    lost = missing(package)
    if lost is not None:
        raise InputError("components.replace", family, f"a family whose program runs here; missing: {lost}")
    return importlib.import_module(package)


def _part(action: list[Action], model: Any, energy: float, per: int, **more: Any) -> Component:
    """A component of a model: energy of one of `per` equal parts of what the model does in one action."""
    figures = {"actions": action, "energy": energy / per, "area": float(model.area), "leakage": float(model.leak_power)}
    return Component.model_validate(figures | more)


def cacti(chip: Chip) -> Family:
    """A tile's buffer as CACTI's SRAM.

    Raises:
        InputError: CACTI does not run here.
    """
    port = chip.hierarchy.port_bits
    sram = _models("cacti", "hwcomponents_cacti").SRAM(
        tech_node=chip.node.feature_size, width=port, depth=BUFFER_BITS // port, size=BUFFER_BITS
    )
    buffer = _part(
        [Action.BUFFER_READ, Action.BUFFER_WRITE], sram, float(sram.read().energy), port, level="tile",
        latency=1 / (port * chip.node.clock), source="hwcomponents-cacti: 64 KB SRAM, energy of a read ÷ port bits",
    )  # fmt: skip
    return Family(name="cacti", description="CACTI through hwcomponents-cacti", components={"buffer": buffer})


def neurosim(chip: Chip) -> Family:
    """Registers, shift-and-adds and adders as NeuroSim's.

    Raises:
        InputError: NeuroSim does not run here.
    """
    models, clock = _models("neurosim", "hwcomponents_neurosim"), chip.node.clock
    node = {"tech_node": chip.node.feature_size, "cycle_period": 1 / clock}
    array, hierarchy = chip.array, chip.hierarchy
    source = "hwcomponents-neurosim (DNN+NeuroSim V1.3 circuits)"
    width = {"bits": ACCUMULATOR_BITS, "scaling": "linear", "latency": 1 / clock, "source": source}
    # Its `read` is NeuroSim's energy of one operation; its `shift_add` calls what its base class does not have.
    shift_add = models.ShiftAdd(n_bits=array.b_adc, shift_register_n_bits=ACCUMULATOR_BITS, **node)
    adder = models.Adder(n_bits=ACCUMULATOR_BITS, **node)
    word = models.FlipFlop(n_bits=chip.precision.inputs, **node)
    total = models.FlipFlop(n_bits=ACCUMULATOR_BITS, **node)
    rows = array.rows * hierarchy.arrays_per_macro
    sums = array.columns // chip.columns_per_weight * hierarchy.arrays_per_macro

    def half(flip_flop: Any) -> float:
        """Of a write and a read, which are counted apart."""
        return float(flip_flop.read().energy + flip_flop.write().energy) / 2

    parts = {
        "shift_add": _part(
            [Action.SHIFT_ADD], shift_add, float(shift_add.read().energy), 1, level="array", count=array.adcs,
            **width,
        ),
        "tile_adder": _part(
            [Action.DIGITAL_ADD], adder, float(adder.add().energy), 1, level="tile", count="on_demand", **width
        ),
        "input_register": _part(
            [Action.INPUT_REGISTER], word, half(word), chip.precision.inputs, level="macro", count=rows, source=source
        ),
        "output_register": _part(
            [Action.OUTPUT_REGISTER], total, half(total), ACCUMULATOR_BITS, level="macro", count=sums, source=source
        ),
    }  # fmt: skip
    return Family(name="neurosim", description="NeuroSim through hwcomponents-neurosim", components=parts)


cacti.version = 1  # type: ignore[attr-defined]
neurosim.version = 1  # type: ignore[attr-defined]
