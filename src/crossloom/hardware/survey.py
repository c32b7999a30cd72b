"""Components from the field's shared library: `hwcomponents-adc` (ADC survey) and `hwcomponents-library`.

Computed for a chip when asked for, through those packages; their units carry their own papers. The converter is
the survey's regression (Andrulis et al., arXiv 2404.06553), digital parts are Aladdin's and ISAAC's, scaled to the
chip's node by the library. One library, so no mixing warning.
"""

from __future__ import annotations

import importlib
from typing import Any

from crossloom.errors import InputError
from crossloom.hardware.components import Action, Component, Family
from crossloom.hardware.schema import Chip

DEFAULT_CYCLE = 100e-9
"""Read cycle where the chip states none, s: ISAAC's, at which the library's ISAAC parts are stated."""

MINIMUM_ADC_BITS = 4
"""The survey's regression covers converters of at least this many bits."""


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise InputError(
            "components.family", "survey", f"the package {package}, which does not import ({error})"
        ) from error


def family(chip: Chip) -> Family:
    """The library's parts at the chip's node and array.

    Raises:
        InputError: the packages do not import, or the converter has fewer bits than the survey covers.
    """
    if chip.array.b_adc < MINIMUM_ADC_BITS:
        raise InputError(
            "array.b_adc",
            chip.array.b_adc,
            f"at least {MINIMUM_ADC_BITS} bits for the ADC survey",
            str(MINIMUM_ADC_BITS),
        )
    isaac, aladdin = _load("hwcomponents_library.library.isaac"), _load("hwcomponents_library.library.aladdin")
    array, node = chip.array, {"tech_node": chip.node.feature_size}
    cycle = array.cycle or DEFAULT_CYCLE
    rate = array.columns_per_adc / cycle
    adc = _load("hwcomponents_adc").ADC(n_bits=array.b_adc, throughput=rate, **node)
    dac = isaac.IsaacDAC(resolution=array.b_dac, **node)
    shift_add, adder = isaac.IsaacShiftAdd(width=16, **node), aladdin.AladdinAdder(width=16, **node)
    multiplier = aladdin.AladdinMultiplier(width=16, **node)
    register = aladdin.AladdinRegister(width=1, **node)
    buffer, bus = isaac.IsaacEDRAM(width=256, depth=2048, **node), isaac.IsaacEDRAMBus(width=1, **node)
    router = isaac.IsaacRouterSharedByFour(width=256, **node)
    rows = array.rows * chip.hierarchy.arrays_per_macro
    sums = array.columns // chip.columns_per_weight * chip.hierarchy.arrays_per_macro

    def part(level: str, action: list[Action], model: Any, energy: float, source: str, **more: Any) -> Component:
        figures = {"level": level, "actions": action, "energy": float(energy), "source": source}
        figures |= {"area": float(model.area), "leakage": float(model.leak_power)} if model is not None else {}
        return Component.model_validate(figures | more)

    library = "hwcomponents-library"
    parts = {
        "adc": part(
            "array", [Action.ADC_CONVERSION], adc, adc.convert().energy,
            f"hwcomponents-adc at {rate:.4g} samples/s (Andrulis et al., arXiv 2404.06553)",
            count=array.adcs, latency=1 / rate, bits=array.b_adc,
        ),
        "dac": part(
            "array", [Action.ROW_DRIVE], dac, dac.read().energy, f"{library} IsaacDAC",
            count=array.rows, bits=array.b_dac,
        ),
        "sample_hold": part(
            "array", [Action.SAMPLE_HOLD], None, 0.9765625e-15,
            "ISAAC, ISCA 2016, Table I: 10 µW × 100 ns ÷ 1024", count=array.columns, area=0.0390625e-12,
        ),
        "crossbar": part(
            "array", [Action.ARRAY_READ], None, 0.0,
            "the cells' V²·G·t is added from the real conductances; area from device.cell_area_f2",
            area=array.rows * array.columns * chip.device.cell_area_f2 * chip.node.feature_size**2,
            leakage=array.rows * array.columns * chip.device.leakage, latency=chip.device.read_pulse,
        ),
        "shift_add": part(
            "macro", [Action.SHIFT_ADD], shift_add, shift_add.read().energy, f"{library} IsaacShiftAdd, 16 bit",
            count="on_demand", bits=16, scaling="linear", latency=float(shift_add.read().latency),
        ),
        "input_register": part(
            "macro", [Action.INPUT_REGISTER], register, register.read().energy,
            f"{library} AladdinRegister, one word a row", count=rows * chip.precision.inputs,
        ),
        "output_register": part(
            "macro", [Action.OUTPUT_REGISTER], register, register.read().energy,
            f"{library} AladdinRegister, 24 bits a weight column", count=sums * 24,
        ),
        "buffer": part(
            "tile", [Action.BUFFER_READ, Action.BUFFER_WRITE], buffer, buffer.read().energy / 256,
            f"{library} IsaacEDRAM, 64 KB, 256-bit port",
        ),
        "bus": part(
            "tile", [Action.TILE_BUS], bus, bus.read().energy, f"{library} IsaacEDRAMBus, 256 bits a macro",
            count=256 * chip.hierarchy.macros_per_tile,
        ),
        "router": part(
            "tile", [Action.NETWORK_HOP], router, router.read().energy / 256, f"{library} IsaacRouterSharedByFour",
        ),
        "activation": part(
            "tile", [Action.ACTIVATION], adder, adder.add().energy, f"{library} AladdinAdder, 16 bit: round and clip",
            count="on_demand", latency=float(adder.add().latency),
        ),
        "pool": part(
            "tile", [Action.POOL], adder, adder.add().energy, f"{library} AladdinAdder, 16 bit: compare",
            count="on_demand", latency=float(adder.add().latency),
        ),
        "tile_adder": part(
            "tile", [Action.DIGITAL_ADD], adder, adder.add().energy, f"{library} AladdinAdder, 16 bit",
            count="on_demand", bits=16, scaling="linear", latency=float(adder.add().latency),
        ),
        "transform_adder": part(
            "macro", [Action.TRANSFORM_ADD], adder, adder.add().energy, f"{library} AladdinAdder, 16 bit",
            count="on_demand", bits=16, scaling="linear", latency=float(adder.add().latency),
        ),
        "tile_multiplier": part(
            "tile", [Action.DIGITAL_MULTIPLY], multiplier, multiplier.multiply().energy,
            f"{library} AladdinMultiplier, 16 bit", count="on_demand", bits=16, scaling="quadratic",
            latency=float(multiplier.multiply().latency),
        ),
        "transform_multiplier": part(
            "macro", [Action.TRANSFORM_MULTIPLY], multiplier, multiplier.multiply().energy,
            f"{library} AladdinMultiplier, 16 bit", count="on_demand", bits=16, scaling="quadratic",
            latency=float(multiplier.multiply().latency),
        ),
        "transform_table": part(
            "macro", [Action.TRANSFORM_GATHER], register, 16 * register.read().energy,
            f"{library} AladdinRegister, 16 bits an entry", count="entries", bits=16, scaling="linear",
            area=16 * float(register.area), leakage=16 * float(register.leak_power),
        ),
        "write_driver": part(
            "array", [Action.CELL_WRITE], None, 0.0,
            "ours: assumed, because the library has no write circuit: device.write_energy is the whole",
        ),
        "off_chip": part(
            "chip", [Action.DRAM], None, 15e-12, "LPDDR4 with its interface (ours: assumed, data sheets 10 … 20 pJ/bit)"
        ),
    }  # fmt: skip
    return Family(name="survey", description="hwcomponents-adc and hwcomponents-library", components=parts)


family.version = 1  # type: ignore[attr-defined]
