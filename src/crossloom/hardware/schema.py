"""The chip as data: what each field means, its SI unit, its range, a typical value and where that comes from.

The schema is the one description: validation, the reference page, `hardware show` and the tests read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

VERSION = 1
"""Version of the hardware file format; raised when an older reader would misread a file."""

Encoding = Literal["offset", "differential", "twos_complement", "polarised", "binary"]
"""How signed weights are held by unsigned cells; the rules are `crossloom.weave.weight_code`'s."""


def figure(default: Any = ..., *, unit: str = "1", typical: str = "", source: str = "", **limits: Any) -> Any:
    """A field with its unit, a typical value and the source of that value or of the default."""
    return Field(default, json_schema_extra={"unit": unit, "typical": typical, "source": source}, **limits)


class Invalid(ValueError):
    """A rule between fields is broken; carries what an `InputError` needs."""

    def __init__(self, field: str, value: Any, expected: str, nearest: Any = None) -> None:
        self.field, self.value, self.expected, self.nearest = field, value, expected, nearest
        super().__init__(f"{field}: got {value!r}; expected {expected}")


class Record(BaseModel):
    """Base of all hardware records: immutable, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Node(Record):
    """Technology node and operating point."""

    feature_size: float = figure(unit="m", gt=0, le=1e-5, typical="22e-9 … 130e-9")
    """Feature size F of the CMOS process."""
    vdd: float = figure(unit="V", gt=0, le=10, typical="0.8 … 1.8")
    """Supply voltage of the digital logic."""
    clock: float = figure(unit="Hz", gt=0, le=1e11, typical="10e6 … 1e9")
    """Clock of the digital periphery."""
    temperature: float = figure(300.0, unit="K", gt=0, le=700, typical="300", source="ours: assumed, room temperature")
    """Temperature of the chip in operation."""


class NoVariation(Record):
    """Cells take exactly the conductance they are programmed to."""

    model: Literal["none"] = figure("none")
    """Name of the model."""


class LogNormalVariation(Record):
    """G = G_target · e^θ with θ ~ N(0, sigma²), one draw per cell (CRIMP's model)."""

    model: Literal["lognormal"] = figure("lognormal")
    """Name of the model."""
    sigma: float = figure(ge=0, le=5, typical="0.1 … 0.5", source="CRIMP, ACM TECS 2023 (its ε)")
    """Standard deviation of θ = ln(G / G_target)."""


class GaussianVariation(Record):
    """G = G_target + (G_on − G_off) · N(0, sigma²), clipped at 0, one draw per cell."""

    model: Literal["gaussian"] = figure("gaussian")
    """Name of the model."""
    sigma: float = figure(ge=0, le=1, typical="0.01 … 0.05", source="AIHWKit and CrossSim use the same form")
    """Standard deviation as a fraction of the conductance range."""


class PolynomialVariation(Record):
    """σ_G = max(Σ_k coefficients[k] · G^k, 0), G and σ_G in units of `scale`; measured on a real device."""

    model: Literal["polynomial"] = figure("polynomial")
    """Name of the model."""
    coefficients: tuple[float, ...] = figure(min_length=1, typical="4.782, -0.009107", source="Milo et al., IRPS 2021")
    """Polynomial coefficients, constant term first, in powers of `scale`."""
    scale: float = figure(1e-6, unit="S", gt=0, typical="1e-6", source="default: measured fits are stated in µS")
    """The conductance unit in which the polynomial is written."""
    g_min: float = figure(0.0, unit="S", ge=0, typical="0 … 50e-6", source="default: no lower end")
    """Lowest measured conductance; below it σ_G of this point is used."""
    g_max: float = figure(unit="S", gt=0, typical="39e-6 … 225e-6", source="the measured range")
    """Highest measured conductance; above it σ_G of this point is used."""

    @model_validator(mode="after")
    def _ordered(self) -> PolynomialVariation:
        if self.g_min >= self.g_max:
            raise Invalid("g_min", self.g_min, f"less than g_max = {self.g_max}")
        return self


class TableVariation(Record):
    """σ_G interpolated linearly between measured points, constant beyond the ends."""

    model: Literal["table"] = figure("table")
    """Name of the model."""
    conductance: tuple[float, ...] = figure(unit="S", min_length=2, typical="5e-6 … 225e-6", source="measured")
    """Target conductances, strictly rising."""
    sigma: tuple[float, ...] = figure(unit="S", min_length=2, typical="1e-6 … 5e-6", source="measured")
    """Standard deviation of the programmed conductance at each target."""

    @model_validator(mode="after")
    def _matching(self) -> TableVariation:
        if len(self.sigma) != len(self.conductance):
            raise Invalid("sigma", list(self.sigma), f"{len(self.conductance)} values, one per conductance")
        if any(b <= a for a, b in pairwise(self.conductance)):
            raise Invalid("conductance", list(self.conductance), "strictly rising conductances")
        if min(self.sigma) < 0:
            raise Invalid("sigma", list(self.sigma), "no negative standard deviation")
        return self


Variation = Annotated[
    NoVariation | LogNormalVariation | GaussianVariation | PolynomialVariation | TableVariation,
    Field(discriminator="model"),
]
"""Programming (write) variation: how far a cell's conductance lies from its target."""


class Drift(Record):
    """Power-law drift G(t) = G(t₀) · (t / t₀)^(−ν), ν ~ N(exponent, exponent_sigma²) per cell."""

    exponent: float = figure(0.0, ge=-1, le=1, typical="0.03 … 0.06 for PCM, 0 for RRAM", source="default: no drift")
    """Mean drift exponent ν."""
    exponent_sigma: float = figure(0.0, ge=0, le=1, typical="0.01", source="default: no spread")
    """Standard deviation of ν from cell to cell."""
    reference_time: float = figure(1.0, unit="s", gt=0, typical="1 … 20", source="default: one second")
    """t₀, the time after programming at which the programmed conductance is defined."""


class Device(Record):
    """One memory cell: what it can hold, how it is read and written, and how it fails."""

    technology: str = figure(min_length=1, typical="RRAM")
    """Technology in words: RRAM, PCM, STT-MRAM, SOT-MRAM, FeFET, SRAM, …"""
    r_on: float = figure(unit="ohm", gt=0, typical="2e3 … 250e3")
    """Low-resistance state (LRS), the highest level."""
    r_off: float = figure(unit="ohm", gt=0, typical="1.5 … 1000 times r_on")
    """High-resistance state (HRS), level 0."""
    max_bits: int = figure(unit="bit", ge=1, le=8, typical="1 for MRAM and SRAM, 2 … 4 for RRAM, PCM, FeFET")
    """Most bits that one cell holds reliably."""
    level_conductances: tuple[float, ...] | None = figure(
        None, unit="S", typical="none: evenly spaced", source="default: levels evenly spaced in conductance"
    )
    """Target conductance of each of the 2^b_cell levels, rising; none means evenly spaced from 1/r_off to 1/r_on."""
    read_voltage: float = figure(unit="V", gt=0, le=5, typical="0.1 … 0.5")
    """Voltage across a driven cell during a read."""
    read_pulse: float = figure(unit="s", gt=0, le=1, typical="1e-9 … 100e-9")
    """How long a cell is driven in one read."""
    write_voltage: float = figure(unit="V", gt=0, le=30, typical="0.3 … 3")
    """Voltage of a write pulse."""
    write_pulse: float = figure(unit="s", gt=0, le=1, typical="1e-9 … 100e-9")
    """Length of one write pulse."""
    write_energy: float = figure(unit="J", ge=0, le=1, typical="10e-15 … 100e-12")
    """Energy of one write pulse on one cell."""
    write_pulses: float = figure(1.0, ge=1, le=1e6, typical="1 … 100", source="default: one pulse, no verification")
    """Mean number of pulses that write-verify takes for one cell."""
    endurance: float = figure(ge=1, typical="1e6 … 1e16")
    """Writes that a cell survives."""
    retention: float = figure(unit="s", gt=0, typical="3.15e8 (ten years)")
    """How long a written level is kept."""
    cell_area_f2: float = figure(unit="F^2", gt=0, typical="4 … 150")
    """Area of one cell with its selector, in squares of the feature size."""
    leakage: float = figure(0.0, unit="W", ge=0, le=1, typical="0, or 1e-9 for SRAM", source="default: non-volatile")
    """Standby power of one cell."""
    variation: Variation = figure(NoVariation(), typical="lognormal, sigma 0.1", source="default: ideal programming")
    """Programming variation."""
    read_noise: float = figure(0.0, ge=0, le=1, typical="0.005 … 0.02", source="default: none")
    """Standard deviation of a cell's current from read to read, relative to the current."""
    drift: Drift = figure(Drift(), source="default: no drift")
    """Change of conductance with time."""
    tcr_on: float = figure(0.0, unit="1/K", ge=-0.1, le=0.1, typical="1e-3 (metallic filament)", source="default: none")
    """Temperature coefficient of r_on: r_on(T) = r_on · (1 + tcr_on · (T − reference_temperature))."""
    tcr_off: float = figure(0.0, unit="1/K", ge=-0.1, le=0.1, typical="-1e-3 (hopping)", source="default: none")
    """Temperature coefficient of r_off, same form."""
    reference_temperature: float = figure(300.0, unit="K", gt=0, le=700, typical="300", source="default: 300 K")
    """Temperature at which the resistances were measured."""
    stuck_hrs: float = figure(0.0, ge=0, le=1, typical="0 … 0.0904", source="default: none; 9.04 % in CRIMP")
    """Fraction of cells stuck at the high-resistance state (level 0)."""
    stuck_lrs: float = figure(0.0, ge=0, le=1, typical="0 … 0.0175", source="default: none; 1.75 % in CRIMP")
    """Fraction of cells stuck at the low-resistance state (top level)."""

    @model_validator(mode="after")
    def _consistent(self) -> Device:
        if self.r_off <= self.r_on:
            raise Invalid("r_off", self.r_off, f"more than r_on = {self.r_on:g} ohm")
        if self.stuck_hrs + self.stuck_lrs > 1:
            raise Invalid("stuck_lrs", self.stuck_lrs, f"at most {1 - self.stuck_hrs:g}, the cells not stuck at HRS")
        levels = self.level_conductances
        if levels is not None and (levels[0] < 0 or any(b <= a for a, b in pairwise(levels))):
            raise Invalid("level_conductances", list(levels), "rising conductances from 0 S up")
        return self

    @property
    def on_off(self) -> float:
        """Resistance ratio r_off / r_on."""
        return self.r_off / self.r_on

    def conductances(self, bits: int) -> tuple[float, ...]:
        """Target conductance in siemens of each of the 2^bits levels, lowest first.

        Without `level_conductances` they are evenly spaced from 1/r_off to 1/r_on.
        """
        count = 1 << bits
        if self.level_conductances is not None:
            return self.level_conductances
        low, high = 1 / self.r_off, 1 / self.r_on
        return tuple(low + (high - low) * level / (count - 1) for level in range(count))


class AdcErrors(Record):
    """Static and random errors of one analog-to-digital converter, in steps (LSB)."""

    offset_sigma: float = figure(0.0, unit="LSB", ge=0, le=100, typical="0 … 1", source="default: none")
    """Standard deviation of the offset, one draw per converter."""
    gain_sigma: float = figure(0.0, ge=0, le=1, typical="0 … 0.02", source="default: none")
    """Standard deviation of the relative gain error, one draw per converter."""
    inl: float = figure(0.0, unit="LSB", ge=0, le=100, typical="0 … 1", source="default: none")
    """Peak integral non-linearity."""
    noise_sigma: float = figure(0.0, unit="LSB", ge=0, le=100, typical="0 … 0.5", source="default: none")
    """Standard deviation of the noise of one conversion."""


class Array(Record):
    """One crossbar array and the converters at its edge."""

    rows: int = figure(unit="row", ge=1, le=65536, typical="64 … 512")
    """Rows H (wordlines) that hold weights."""
    columns: int = figure(unit="column", ge=1, le=65536, typical="64 … 512")
    """Columns W (bitlines) that hold weights."""
    encoding: Encoding = figure(typical="offset")
    """How signed weights are held: offset, differential, twos_complement, polarised (one sign a read) or binary."""
    b_cell: int = figure(unit="bit", ge=1, le=8, typical="1 or 2")
    """Bits used in each cell."""
    b_dac: int = figure(unit="bit", ge=1, le=8, typical="1 (bit-serial)")
    """Bits of one input digit."""
    b_adc: int = figure(unit="bit", ge=1, le=16, typical="3 … 8")
    """Bits of the analog-to-digital converters."""
    adc_range: Literal["full", "unit", "calibrated"] = figure(typical="full")
    """What the converter's codes span: every possible sum, steps of one that clip, or a range fitted per layer."""
    columns_per_adc: int = figure(unit="column", ge=1, le=65536, typical="8 … 128")
    """Columns that share one converter."""
    active_rows: int = figure(unit="row", ge=1, le=65536, typical="the same as rows")
    """Most rows that are driven at once."""
    flip: bool = figure(False, typical="true for ISAAC", source="ISAAC, ISCA 2016; default: not flipped")
    """Columns whose cells sum to more than half are stored inverted, so that sums need one bit less."""
    digit_drive: Literal["level", "serial"] = figure("level", typical="serial for NeuRRAM", source="default: one level")
    """A digit of several bits is one level on the row, or its bits in turn, bit k sampled and integrated 2^k times."""
    readout: Literal["analog", "and"] = figure("analog", typical="and for SOT-MRAM engines", source="default: analog")
    """Columns are summed as currents and converted, or ANDed with the input's bit plane and their ones counted."""
    cycle: float | None = figure(None, unit="s", gt=0, le=1, typical="100e-9 (ISAAC)", source="default: from the parts")
    """Fixed time of one read of all columns (the pipeline's beat); none means the sum of its parts."""
    wire_resistance: float = figure(0.0, unit="ohm", ge=0, le=1e6, typical="1 … 5", source="default: ideal wires")
    """Resistance of one wire segment between neighbouring cells, along rows and along columns."""
    wire_capacitance: float = figure(
        0.2e-15, unit="F", ge=0, le=1e-9, typical="0.1e-15 … 0.5e-15", source="ours: assumed, 0.2 fF/µm, 1 µm pitch"
    )
    """Capacitance of one wire segment between neighbouring cells."""
    driver_resistance: float = figure(0.0, unit="ohm", ge=0, le=1e9, typical="100 … 2e3", source="default: ideal")
    """Output resistance of a row driver."""
    sense_resistance: float = figure(0.0, unit="ohm", ge=0, le=1e9, typical="0 … 1e3", source="default: virtual ground")
    """Input resistance of the column's sense circuit."""
    adc_errors: AdcErrors = figure(AdcErrors(), source="default: ideal converters")
    """Errors of the converters."""

    @model_validator(mode="after")
    def _consistent(self) -> Array:
        if self.active_rows > self.rows:
            raise Invalid("active_rows", self.active_rows, f"at most rows = {self.rows}", self.rows)
        if self.columns_per_adc > self.columns:
            raise Invalid("columns_per_adc", self.columns_per_adc, f"at most columns = {self.columns}", self.columns)
        if self.flip and self.active_rows != self.rows:
            raise Invalid(
                "flip",
                True,
                f"false, or active_rows = rows = {self.rows}: a flipped column's sum is bounded by "
                "half only when all rows are read together",
                False,
            )
        if self.flip and self.encoding not in ("offset", "binary"):
            raise Invalid("flip", True, f"false with {self.encoding} encoding (its columns are not dense)", False)
        if self.encoding == "polarised" and self.rows % self.active_rows:
            divisors = [n for n in range(1, self.rows + 1) if self.rows % n == 0]
            raise Invalid(
                "active_rows",
                self.active_rows,
                f"a divisor of rows = {self.rows} with polarised encoding: weights that are read at once share a sign",
                min(divisors, key=lambda n: abs(n - self.active_rows)),
            )
        if self.readout == "and":
            self._digital()
        return self

    @property
    def fragment(self) -> int | None:
        """Rows whose weights share one sign; None where every weight has its own."""
        return self.active_rows if self.encoding == "polarised" else None

    def _digital(self) -> None:
        """What counting ones demands."""
        if (self.b_cell, self.b_dac) != (1, 1):
            raise Invalid("readout", "and", "b_cell = b_dac = 1: an AND joins single bits", "analog")
        if not self.lossless:
            raise Invalid("b_adc", self.b_adc, f"at least {self.lossless_b_adc} bits: a count of ones is exact")

    @property
    def adcs(self) -> int:
        """Converters of one array."""
        return -(-self.columns // self.columns_per_adc)

    @property
    def read_max(self) -> int:
        """The largest sum that one read can give, in units of one cell step times one input step."""
        top = (1 << self.b_cell) - 1
        rows = self.active_rows * top
        return (rows // 2 if self.flip else rows) * ((1 << self.b_dac) - 1)

    @property
    def lossless_b_adc(self) -> int:
        """Fewest converter bits with which every possible sum has its own code."""
        return self.read_max.bit_length()

    @property
    def lossless(self) -> bool:
        """True if the converter gives every possible sum its own code."""
        return self.b_adc >= self.lossless_b_adc and self.adc_range != "calibrated"


class Precision(Record):
    """Bits of numbers, where a network does not bring its own."""

    inputs: int = figure(8, unit="bit", ge=1, le=16, typical="8", source="default: 8-bit networks")
    """Bits of activations, b_x."""
    weights: int = figure(8, unit="bit", ge=1, le=16, typical="8", source="default: 8-bit networks")
    """Bits of weights, b_w."""
    power_of_two: bool = figure(False, typical="true for CRIMP", source="default: fixed-point multipliers")
    """Scales are 2^n, so that rescaling is a shift."""
    rated_inputs: int | None = figure(None, unit="bit", ge=1, le=32, typical="16 for ISAAC", source="default: inputs")
    """Input bits at which the published peak figures are stated; none means `inputs`."""
    rated_weights: int | None = figure(None, unit="bit", ge=1, le=32, typical="16 for ISAAC", source="default: weights")
    """Weight bits at which the published peak figures are stated; none means `weights`."""
    rated_density: float = figure(1.0, gt=0, le=1, typical="0.5", source="default: every row driven")
    """Fraction of rows that are driven in a read at the published peak figures."""
    rated_signed: bool = figure(False, typical="true for NeuRRAM", source="default: unsigned inputs")
    """At the published peak figures inputs have a sign, given as the polarity of the drive: one bit less to stream."""


class Hierarchy(Record):
    """How arrays make macros, macros make tiles and tiles make the chip, and the network between tiles."""

    arrays_per_macro: int = figure(unit="array", ge=1, le=65536, typical="8 (ISAAC's IMA)")
    """Arrays that share one input register and one shift-and-add."""
    macros_per_tile: int = figure(ge=1, le=65536, typical="12 (ISAAC)")
    """Macros that share one buffer and one router port."""
    tiles: int | None = figure(None, ge=1, typical="168 (ISAAC)", source="default: as many as the network needs")
    """Tiles on the chip; none means as many as the network needs."""
    network: Literal["mesh", "h_tree", "bus"] = figure("mesh", typical="mesh", source="default: 2-D mesh as in ISAAC")
    """How tiles are connected."""
    link_bits: int = figure(
        32, unit="bit", ge=1, le=65536, typical="32", source="default: flit size of ISAAC, ISCA 2016, Table I"
    )
    """Bits that one link moves in one network cycle."""
    port_bits: int = figure(
        256, unit="bit", ge=1, le=65536, typical="256", source="default: eDRAM port of ISAAC, ISCA 2016, Table I"
    )
    """Bits that a tile's buffer, and its bus to the macros, move in one clock; read by computed component families."""
    network_clock: float | None = figure(None, unit="Hz", gt=0, le=1e11, typical="1e9", source="default: node.clock")
    """Clock of the network; none means the node's."""
    pipelined: bool = figure(True, typical="true", source="default: layers work on successive images at once")
    """Layers work on different images at the same time."""
    window_reuse: bool = figure(
        False, typical="true for NeuroSim", source="default: ISAAC, ISCA 2016: registers are filled anew every pass"
    )
    """Input registers keep a convolution's window and fetch only the pixels that the next one in its row adds."""


class Calibration(Record):
    """Factors fitted to silicon, laid over one part's figures; reports print what comes out with and without them."""

    energy: float = figure(1.0, gt=0, typical="0.5 … 2", source="default: as the family says")
    """Factor on the energy of an action."""
    area: float = figure(1.0, gt=0, typical="0.5 … 2", source="default: as the family says")
    """Factor on the area."""
    latency: float = figure(1.0, gt=0, typical="0.5 … 2", source="default: as the family says")
    """Factor on the time of an action."""
    leakage: float = figure(1.0, gt=0, typical="0.5 … 2", source="default: as the family says")
    """Factor on the standby power."""
    source: str = figure(min_length=1, typical="fitted to …")
    """What was fitted to which figures."""


class Components(Record):
    """Where the area and the energy of each action come from."""

    family: str = figure(min_length=1, typical="isaac")
    """The component family: isaac, crimp, aladdin40, mnsim, analytical, survey, …; one family per chip."""
    cell_energy: Literal["included", "conductance"] = figure(
        "conductance", typical="conductance", source="default: computed from the cells"
    )
    """Energy of the cells in a read: included in the family's array_read, or added as V²·G·t of the real cells."""
    replace: tuple[str, ...] = figure((), typical="none", source="default: the family as it stands")
    """Other families whose components replace those of the same name; mixing families warns."""
    omit: tuple[str, ...] = figure((), typical="none", source="default: nothing left out")
    """Names of the family's components that this chip does without."""
    calibration: dict[str, Calibration] = Field(default_factory=dict)
    """Fitted factors by component name, or `cells` for the cells' V²·G·t; none by default."""


class Published(Record):
    """A figure published for this chip, kept as a check on the model; no estimate ever reads it."""

    value: float = figure(typical="36.4e12")
    """The figure in SI (operations per joule for TOPS/W, operations per second and m² for TOPS/mm²)."""
    unit: str = figure(typical="1/J")
    """Its SI unit."""
    condition: str = figure("", typical="1-bit inputs, 1-bit weights", source="default: none")
    """At what bit widths or on what work."""
    source: str = figure(min_length=1, typical="a paper's table")
    """Where it was published."""


def columns_per_weight(encoding: Encoding, weight_bits: int, cell_bits: int) -> int:
    """Physical columns of one weight (the length of `weave.weight_code(...).slices`)."""
    if weight_bits == 1 and encoding != "differential":
        return 1
    if encoding == "differential":
        return 2 * -(-max(weight_bits - 1, 1) // cell_bits)
    if encoding == "polarised":
        return -(-(weight_bits - 1) // cell_bits)
    if encoding == "twos_complement":
        return -(-(weight_bits - 1) // cell_bits) + 1
    return -(-weight_bits // cell_bits)


class Chip(Record):
    """A whole chip: the one object that mapping, simulation, cost and export read.

    Every number an output of Crossloom rests on is a field of this record; `hash` stands for all of them.
    """

    name: str = figure(min_length=1, typical="crimp-isaac")
    """Name of the chip; no part of the hash."""
    description: str = figure("", typical="one sentence", source="default: none")
    """What it is, in a sentence; no part of the hash."""
    node: Node
    """Technology node and operating point."""
    device: Device
    """The memory cell."""
    array: Array
    """The crossbar array."""
    precision: Precision = figure(Precision(), source="default: 8-bit networks")
    """Default bits."""
    hierarchy: Hierarchy
    """Macros, tiles, chip and network."""
    components: Components
    """Energy, area and latency of the parts."""
    published: dict[str, Published] = Field(default_factory=dict)
    """Published figures of the chip, as checks; no part of the hash."""

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _component_digest: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _consistent(self) -> Chip:
        array, device, weights = self.array, self.device, self.precision.weights
        if array.b_cell > device.max_bits:
            raise Invalid(
                "array.b_cell",
                array.b_cell,
                f"at most device.max_bits = {device.max_bits} for this {device.technology} cell",
                device.max_bits,
            )
        if array.encoding == "binary" and weights != 1:
            raise Invalid("array.encoding", "binary", f"offset, as weights have {weights} bits", "offset")
        if not self._divides(array.encoding, weights, array.b_cell):
            valid = [b for b in range(1, device.max_bits + 1) if self._divides(array.encoding, weights, b)]
            raise Invalid(
                "array.b_cell",
                array.b_cell,
                f"cell bits that divide precision.weights = {weights} evenly ({array.encoding} encoding): "
                + ", ".join(map(str, valid)),
                min(valid, key=lambda b: (abs(b - array.b_cell), b)),
            )
        need = columns_per_weight(array.encoding, weights, array.b_cell)
        if array.columns < need:
            raise Invalid(
                "array.columns", array.columns, f"at least {need}, the columns of one {weights}-bit weight", need
            )
        levels = device.level_conductances
        if levels is not None and len(levels) != 1 << array.b_cell:
            raise Invalid(
                "device.level_conductances", list(levels), f"{1 << array.b_cell} levels for b_cell = {array.b_cell}"
            )
        return self

    @staticmethod
    def _divides(encoding: Encoding, weight_bits: int, cell_bits: int) -> bool:
        """Whether slices come out even.

        Offset codes cut all b_w bits. A sign of its own (all but offset codes) leaves b_w − 1 bits of
        magnitude, so either b_w or b_w − 1 may be the multiple: 8 bits in 2-bit cells is legal (2+2+2+1).
        """
        if weight_bits == 1:
            return True
        if encoding in ("differential", "twos_complement", "polarised"):
            return weight_bits % cell_bits == 0 or (weight_bits - 1) % cell_bits == 0
        return weight_bits % cell_bits == 0

    @property
    def columns_per_weight(self) -> int:
        """Physical columns that one weight of the default width takes."""
        return columns_per_weight(self.array.encoding, self.precision.weights, self.array.b_cell)

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each figure comes from, by dotted path."""
        return dict(self._sources)

    @property
    def hash(self) -> str:
        """SHA-256, hex, of all figures in canonical order, component figures included.

        The name, the description, sources and published checks are left out: they change no result.
        """
        content = self.model_dump(mode="json", exclude={"name", "description", "published"})
        whole = {"version": VERSION, "chip": content, "components": self._component_digest}
        return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def override(self, overrides: Mapping[str, Any] | Iterable[str]) -> Chip:
        """The same chip with some fields changed: `{"array.b_adc": 6}` or `["device.r_on=6 kohm"]`.

        Raises:
            InputError: an unknown field or a value that does not fit.
        """
        from crossloom.hardware.load import override

        return override(self, overrides)

    def to_yaml(self) -> str:
        """The chip as a hardware file with units and sources; `load` gives back an equal chip."""
        from crossloom.hardware.load import dump

        return dump(self)
