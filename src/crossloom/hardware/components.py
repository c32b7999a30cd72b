"""Components: what each action of a chip costs in energy, area, time and leakage, one sourced record per part.

The cost room counts actions and multiplies; nothing else about a part reaches it. A chip takes its components
from one *family* (a literature table or a model); mixing families is possible and warns, because published
figures agree with one another only within a source.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, model_validator

from crossloom.errors import InputError
from crossloom.hardware import registry
from crossloom.hardware.files import Tree, read, validate
from crossloom.hardware.schema import Calibration, Chip, Components, Invalid, Record, figure


class Action(StrEnum):
    """What a chip does, as counted. Every component that serves an action pays for each time it happens.

    The members' help texts in `ACTION_HELP` are the definitions that counting and components share.
    """

    ROW_DRIVE = "row_drive"
    ARRAY_READ = "array_read"
    SAMPLE_HOLD = "sample_hold"
    INTEGRATE = "integrate"
    ADC_CONVERSION = "adc_conversion"
    INPUT_WRITE = "input_write"
    BULK_AND = "bulk_and"
    POPCOUNT = "popcount"
    SHIFT_ADD = "shift_add"
    INPUT_REGISTER = "input_register"
    OUTPUT_REGISTER = "output_register"
    TRANSFORM_ADD = "transform_add"
    TRANSFORM_MULTIPLY = "transform_multiply"
    TRANSFORM_GATHER = "transform_gather"
    TILE_BUS = "tile_bus"
    BUFFER_READ = "buffer_read"
    BUFFER_WRITE = "buffer_write"
    NETWORK_HOP = "network_hop"
    POOL = "pool"
    ACTIVATION = "activation"
    DIGITAL_ADD = "digital_add"
    DIGITAL_MULTIPLY = "digital_multiply"
    CELL_WRITE = "cell_write"
    DRAM = "dram"


ACTION_HELP: dict[Action, str] = {
    Action.ROW_DRIVE: "one row driven with one input digit in one read (a zero digit drives nothing)",
    Action.ARRAY_READ: "one array read: one row group, one input digit, all columns",
    Action.SAMPLE_HOLD: "one column's current or charge sampled (once a read; once a pulse where digits are serial)",
    Action.INTEGRATE: "one sample added to a column's integrated charge (serial digits: 2^k times for bit k)",
    Action.ADC_CONVERSION: "one column converted in one read",
    Action.INPUT_WRITE: "one input bit written beside the weights of one array (AND readout)",
    Action.BULK_AND: "one bit of the weights ANDed with its input's bit (AND readout; a column at once)",
    Action.POPCOUNT: "one such result through the tree that counts ones (AND readout)",
    Action.SHIFT_ADD: "one converted code shifted and added to its accumulator",
    Action.INPUT_REGISTER: "one bit written to or read from a macro's input register",
    Action.OUTPUT_REGISTER: "one bit of a finished sum written to or read from the output registers (macro and tile)",
    Action.TRANSFORM_ADD: "one addition of the input transform P or of an offset correction",
    Action.TRANSFORM_MULTIPLY: "one multiplication by a constant in the input transform P",
    Action.TRANSFORM_GATHER: "one entry read from an index table (permutation, rename, sparsity)",
    Action.TILE_BUS: "one bit moved between a tile's buffer and one of its macros",
    Action.BUFFER_READ: "one bit read from a tile's buffer",
    Action.BUFFER_WRITE: "one bit written to a tile's buffer",
    Action.NETWORK_HOP: "one bit passed by one router to a neighbour",
    Action.POOL: "one value compared or added by a pooling unit",
    Action.ACTIVATION: "one value through an activation unit, requantisation included",
    Action.DIGITAL_ADD: "one addition outside the arrays (row blocks, residuals, bias)",
    Action.DIGITAL_MULTIPLY: "one multiplication outside the arrays (fixed-point rescaling, digital layers)",
    Action.CELL_WRITE: "one write pulse on one cell, the circuit's part (the cell's own is device.write_energy)",
    Action.DRAM: "one bit over the chip's edge: off-chip memory or chip-to-chip link",
}

MODES: dict[Action, tuple[str, str]] = {
    Action.INTEGRATE: ("digit_drive", "serial"),
    Action.INPUT_WRITE: ("readout", "and"),
    Action.BULK_AND: ("readout", "and"),
    Action.POPCOUNT: ("readout", "and"),
}
"""Actions of some arrays only: the field of the array and its value."""

ANALOG = (Action.ROW_DRIVE, Action.ARRAY_READ, Action.SAMPLE_HOLD, Action.ADC_CONVERSION)
"""Actions that arrays with an AND readout do without."""


def expected_actions(chip: Chip) -> set[Action]:
    """The actions that a chip's array can give rise to."""
    found = {a for a in Action if a not in MODES or getattr(chip.array, MODES[a][0]) == MODES[a][1]}
    return found - set(ANALOG) if chip.array.readout == "and" else found


Level = Literal["array", "macro", "tile", "chip"]
"""The level of the hierarchy a component belongs to."""


class Component(Record):
    """One part: how many there are, what it does, and what doing it costs."""

    level: Level = figure(typical="macro")
    """The level whose instances hold this part."""
    count: float | Literal["rows", "columns", "adcs", "on_demand", "entries"] = figure(
        1.0, typical="1", source="default: one per parent"
    )
    """Parts in one instance of the level; rows, columns and adcs follow the array; on_demand: as many as keep up with
    the work; entries: one for each entry of the index tables of P."""
    actions: tuple[Action, ...] = figure(min_length=1, typical="[adc_conversion]")
    """The actions that this part pays for."""
    energy: float = figure(unit="J", ge=0, typical="1e-15 … 1e-11")
    """Dynamic energy of one action."""
    area: float = figure(0.0, unit="m^2", ge=0, typical="1e-13 … 1e-7", source="default: counted in another part")
    """Area of one part."""
    latency: float = figure(0.0, unit="s", ge=0, le=1, typical="1e-10 … 1e-7", source="default: hidden in the cycle")
    """Time that one action occupies one part (the reciprocal of its rate)."""
    leakage: float = figure(0.0, unit="W", ge=0, typical="0 … 1e-3", source="default: counted in the energy")
    """Standby power of one part."""
    bits: int | None = figure(None, unit="bit", ge=1, le=64, typical="16 for an adder", source="default: no width")
    """Width for which the figures are stated; none where an action is one bit or width does not matter."""
    scaling: Literal["constant", "linear", "serial", "quadratic", "exponential", "table"] = figure(
        "constant", typical="linear for adders, quadratic for multipliers", source="default: constant"
    )
    """How energy and area follow the width: not, b, b², 2^b − 1 or the table; serial: energy and time follow b."""
    table_bits: tuple[int, ...] = figure((), typical="4, 6, 8, 10", source="default: none")
    """Widths of the table, rising."""
    table_energy: tuple[float, ...] = figure((), unit="J", typical="0.79e-12 …", source="default: none")
    """Energy at each width; only the ratios are used."""
    table_area: tuple[float, ...] = figure((), unit="m^2", typical="361e-12 …", source="default: none")
    """Area at each width; only the ratios are used."""
    cells: int | None = figure(None, ge=1, typical="16384 for a 128×128 array", source="default: any array")
    """Cells of the array for which the figures are stated; they scale linearly with the cells of the chip's array."""
    peak_rate: float | None = figure(None, unit="Hz", gt=0, typical="1.28e9 for an ADC", source="default: not stated")
    """Actions per second of one part at the source's peak; energy · peak_rate is the source's power."""
    source: str = figure(min_length=1, typical="ISAAC, ISCA 2016, Table I")
    """Where the figures come from, with the derivation."""

    @model_validator(mode="after")
    def _consistent(self) -> Component:
        if self.scaling != "constant" and self.bits is None:
            raise Invalid("bits", None, f"the width for which the figures hold, as scaling is {self.scaling}")
        widths = len(self.table_bits)
        if self.scaling == "table" and not (widths >= 2 and len(self.table_energy) == len(self.table_area) == widths):
            raise Invalid("table_bits", list(self.table_bits), "at least two widths with an energy and an area each")
        if any(b <= a for a, b in pairwise(self.table_bits)):
            raise Invalid("table_bits", list(self.table_bits), "rising widths")
        return self

    @property
    def fixed(self) -> bool:
        """True if every instance of the level holds the part, whatever there is to do."""
        return self.count not in ("on_demand", "entries")

    def at(self, bits: int) -> Component:
        """The same part at another width.

        Between the widths of a table, and beyond its ends, the logarithm is interpolated linearly.
        """
        if self.bits is None or self.scaling == "constant" or bits == self.bits:
            return self
        energy = area = bits / self.bits
        if self.scaling == "serial":
            times = {"energy": self.energy * energy, "latency": self.latency * energy}
            return self.model_copy(update={"bits": bits, **times})
        if self.scaling == "quadratic":
            energy = area = energy**2
        elif self.scaling == "exponential":
            energy = area = ((1 << bits) - 1) / ((1 << self.bits) - 1)
        elif self.scaling == "table":
            energy = self._ratio(self.table_energy, bits)
            area = self._ratio(self.table_area, bits)
        return self.model_copy(update={"bits": bits, "energy": self.energy * energy, "area": self.area * area})

    def _ratio(self, column: tuple[float, ...], bits: int) -> float:
        def value(at: int) -> float:
            upper = next((i for i, b in enumerate(self.table_bits) if b >= at), len(self.table_bits) - 1)
            right = max(upper, 1)
            b0, b1 = self.table_bits[right - 1 : right + 1]
            y0, y1 = (math.log(y) for y in column[right - 1 : right + 1])
            return y0 + (y1 - y0) * (at - b0) / (b1 - b0)

        return math.exp(value(bits) - value(self.bits or bits))


class Family(Record):
    """A set of components from one source, at one technology node."""

    name: str = figure(min_length=1, typical="isaac")
    """Name of the family."""
    description: str = figure("", typical="one sentence", source="default: none")
    """What it is and where it comes from."""
    feature_size: float | None = figure(None, unit="m", gt=0, typical="32e-9", source="default: follows the chip")
    """Node of the figures; none means that they already hold for the chip's node."""
    vdd: float | None = figure(None, unit="V", gt=0, typical="1.0", source="default: follows the chip")
    """Supply voltage of the figures; none means the chip's."""
    components: dict[str, Component] = Field(default_factory=dict)
    """The parts by name."""

    def scaled(self, feature_size: float, vdd: float) -> Family:
        """The family at another node and supply.

        Constant-field rules: area ∝ F², dynamic energy ∝ F·V², latency ∝ F, leakage ∝ F·V (Dennard et al., IEEE
        JSSC 9(5), 1974, with V free). Good to about a factor of two over two nodes, and exact at the family's own.
        """
        f = feature_size / self.feature_size if self.feature_size else 1.0
        v = vdd / self.vdd if self.vdd else 1.0
        if f == 1.0 and v == 1.0:
            return self
        parts = {
            name: c.model_copy(
                update={
                    "energy": c.energy * f * v**2,
                    "area": c.area * f**2,
                    "latency": c.latency * f,
                    "leakage": c.leakage * f * v,
                    "peak_rate": c.peak_rate / f if c.peak_rate else None,
                    "source": f"{c.source}; scaled by F ×{f:.4g}, V ×{v:.4g} (area F², energy F·V²)",
                }
            )
            for name, c in self.components.items()
        }
        return self.model_copy(update={"components": parts, "feature_size": feature_size, "vdd": vdd})


class MixedFamilies(UserWarning):
    """A chip takes components from more than one family."""


BUILDERS: dict[str, str] = {
    "analytical": "crossloom.hardware.analytical:family",
    "survey": "crossloom.hardware.survey:family",
    "cacti": "crossloom.hardware.external:cacti",
    "neurosim": "crossloom.hardware.external:neurosim",
}
"""Families that are computed for a chip: where the function is, imported when it is needed."""


def family_names() -> list[str]:
    """Names of all component families: our tables and models, and those of installed packages."""
    return sorted({*registry.known("components"), *BUILDERS})


def family(name: str) -> Family | Callable[[Chip], Family]:
    """A family of figures, or the function that computes one for a chip.

    Raises:
        InputError: an unknown family, or a malformed file.
    """
    if name in BUILDERS:
        module, _, function = BUILDERS[name].partition(":")
        builder: Callable[[Chip], Family] = getattr(importlib.import_module(module), function)
        return builder
    if not registry.is_known("components", name):
        raise InputError.choice("components.family", name, family_names())
    if registry.is_own("components", name):
        return _own_family(name)
    content = registry.find("components", name)
    return _figures(name, content) if isinstance(content, dict) else content


@cache
def _own_family(name: str) -> Family:
    content = registry.find("components", name)
    assert isinstance(content, dict)  # our own families are files
    return _figures(name, content)


def _figures(name: str, content: Mapping[str, Any]) -> Family:
    return validate(Family, _tree(name, content).values)


def _tree(name: str, content: Mapping[str, Any]) -> Tree:
    content = {"name": name, **content}
    parent = content.pop("extends", None)
    base = Tree()
    if parent is not None:
        inherited = registry.find("components", str(parent))
        if not isinstance(inherited, dict):
            raise InputError("components.extends", parent, "a family of figures, not a computed one")
        base = _tree(str(parent), inherited)
    return read(content, Family, base=base.values).over(base)


CELLS = "cells"
"""Name of the memory cells' own energy among the components, and in `components.calibration`."""


def components(chip: Chip, *, calibrated: bool = True) -> dict[str, Component]:
    """The parts of a chip by name, at its node, array size and converter widths, with counts as numbers.

    Energies of parts with a width (adders, multipliers, registers) stay at `bits`; use `Component.at` for another.
    `count` is a number, `on_demand` or `entries`. Without `calibrated` the factors of `components.calibration` are
    left out.

    Raises:
        InputError: an unknown family or part, a calibration of no part, or a family that leaves an action without a
            part (a part that is omitted by name is free on purpose).

    Warns:
        MixedFamilies: figures of more than one source.
    """
    wanted = chip.components
    parts = dict(_at_node(chip, wanted.family).components)
    if wanted.replace:
        warnings.warn(
            f"components of {chip.name!r}: {', '.join(wanted.replace)} mixed into {wanted.family}; "
            "published figures agree with one another only within one source",
            MixedFamilies,
            stacklevel=2,
        )
    for other in wanted.replace:
        parts |= _at_node(chip, other).components
    unserved = expected_actions(chip) - {action for part in parts.values() for action in part.actions}
    if unserved:
        raise InputError(
            "components.family",
            wanted.family,
            f"a family that serves every action; nothing pays for {', '.join(sorted(unserved))} "
            f"(to complete another family with it: components.replace=[{wanted.family}])",
        )
    for name in wanted.omit:
        if name not in parts:
            raise InputError.choice("components.omit", name, parts)
        del parts[name]
    for name in wanted.calibration:
        if name not in parts and name != CELLS:
            raise InputError.choice("components.calibration", name, [*parts, CELLS])
        if calibrated and name in parts:
            parts[name] = _calibrated(parts[name], wanted.calibration[name])
    return {name: _fit(part, chip) for name, part in parts.items()}


def cell_factor(chip: Chip, *, calibrated: bool = True) -> float:
    """Fitted factor on the cells' V²·G·t; 1 without calibration."""
    entry = chip.components.calibration.get(CELLS) if calibrated else None
    return entry.energy if entry is not None else 1.0


def _calibrated(part: Component, by: Calibration) -> Component:
    changed = {key: getattr(part, key) * getattr(by, key) for key in ("energy", "area", "latency", "leakage")}
    factors = ", ".join(f"{key} ×{getattr(by, key):.4g}" for key in changed if getattr(by, key) != 1.0)
    return part.model_copy(update={**changed, "source": f"{part.source}; calibrated: {factors} ({by.source})"})


def _at_node(chip: Chip, name: str) -> Family:
    found = family(name)
    return found.scaled(chip.node.feature_size, chip.node.vdd) if isinstance(found, Family) else found(chip)


def _fit(part: Component, chip: Chip) -> Component:
    """A part at the chip's array size and converter widths, its count as a number."""
    array = chip.array
    if Action.ADC_CONVERSION in part.actions:
        part = part.at(array.b_adc)
    elif Action.ROW_DRIVE in part.actions:
        part = part.at(array.b_dac)
    update: dict[str, Any] = {}
    if part.cells is not None:
        ratio = array.rows * array.columns / part.cells
        update |= {"energy": part.energy * ratio, "area": part.area * ratio, "leakage": part.leakage * ratio}
        update |= {"cells": array.rows * array.columns}
    counts = {"rows": array.rows, "columns": array.columns, "adcs": array.adcs}
    if part.count in counts:
        update["count"] = float(counts[str(part.count)])
    return part.model_copy(update=update) if update else part


def digest(wanted: Components) -> str:
    """What the figures of the chosen families add to a chip's hash.

    Raises:
        InputError: an unknown family.
    """
    content = []
    for name in (wanted.family, *wanted.replace):
        found = family(name)
        if isinstance(found, Family):
            content.append(found.model_dump(mode="json", exclude={"name", "description"}))
        else:
            content.append({"computed": name, "version": getattr(found, "version", 1)})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
