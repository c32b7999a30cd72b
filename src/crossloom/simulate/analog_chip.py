"""One physical chip: every cell's conductance and every converter's errors, drawn from a seed.

A read of one column gives p = Σ_h x_h·g_h with g = G/ΔG − reference: currents in units of one level step times one
input step, less the current of the high-resistance floor. The converter then makes of v = (p − p_min)/Δ

    code = clip(⌊gain·v + offset + INL(clip(v, 0, 2^b − 1)) + noise + ½⌋, 0, 2^b − 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int8, Integer

from crossloom.errors import InputError
from crossloom.hardware import Chip, Device
from crossloom.hardware.schema import AdcErrors
from crossloom.mapping import LayerMapping
from crossloom.simulate.devices import Key, Levels, WriteVerify, conductances, temperature_factor

OnOff = Literal["device", "infinite"]
Reference = Literal["ideal", "cells", "none"]
Law = Literal["cell", "proportional", "root", "table"]


@dataclass(frozen=True)
class ReadNoise:
    """How the noise of one column read depends on what is read; p in level steps.

    `cell`: every cell's current has independent relative noise, so the read's variance is σ²·Σ x²G².
    `proportional`: σ·p. `root`: σ·√p. `table`: σ(p) linear between given points, constant beyond.

    Attributes:
        law: one of the four.
        sigma: σ of the first three laws; None takes the device's `read_noise`.
        table: (p, σ) points of the last, p rising.
        floor: a further independent standard deviation of every read, in level steps.
        exact: always sum x²G² cell by cell under law `cell`; otherwise the sum is estimated from the read itself and
            the number of active rows where that is good to 2 % of σ. Always look into the table under law `table`;
            otherwise a parabola stands for σ² where it is good to 2 % of σ at every whole partial sum.
    """

    law: Law = "cell"
    sigma: float | None = None
    table: tuple[tuple[float, float], ...] = ()
    floor: float = 0.0
    exact: bool = False

    def __post_init__(self) -> None:
        if self.law not in ("cell", "proportional", "root", "table"):
            raise InputError.choice("read_noise.law", self.law, ("cell", "proportional", "root", "table"))
        if (self.law == "table") != bool(self.table):
            raise InputError(
                "read_noise.table", self.table, "(partial sum, sigma) points with law table, and only then"
            )
        points = [p for p, _ in self.table]
        if points != sorted(set(points)) or any(s < 0 for _, s in self.table):
            raise InputError("read_noise.table", self.table, "rising partial sums and no negative sigma")
        if self.floor < 0 or (self.sigma is not None and self.sigma < 0):
            raise InputError("read_noise.sigma", (self.sigma, self.floor), "no negative standard deviation")


@dataclass(frozen=True)
class Conditions:
    """What the hardware file does not say: when, against what reference and how carefully written.

    Attributes:
        time: seconds after programming; None is the drift's reference time, at which nothing has drifted.
        on_off: `device` keeps the floor of the device's finite on/off ratio; `infinite` leaves it out, so that level 0
            conducts nothing and variation acts on the level's value (CRIMP's model).
        reference: what is subtracted from a column's current: `ideal`, a perfect high-resistance cell per row, of the
            chip's age and temperature; `cells`, columns of real high-resistance cells; `none`.
        reference_columns: how many columns the `cells` reference averages.
        write_verify: programming with read-back, or None.
        read_noise: the law of read noise.
    """

    time: float | None = None
    on_off: OnOff = "device"
    reference: Reference = "ideal"
    reference_columns: int = 1
    write_verify: WriteVerify | None = None
    read_noise: ReadNoise = field(default_factory=ReadNoise)

    def __post_init__(self) -> None:
        if self.on_off not in ("device", "infinite"):
            raise InputError.choice("on_off", self.on_off, ("device", "infinite"))
        if self.reference not in ("ideal", "cells", "none"):
            raise InputError.choice("reference", self.reference, ("ideal", "cells", "none"))
        if self.reference_columns < 1:
            raise InputError("reference_columns", self.reference_columns, "at least 1 column")
        if self.time is not None and not self.time > 0:
            raise InputError("time", self.time, "a positive number of seconds after programming")


@dataclass(frozen=True)
class AnalogChip:
    """One chip of a batch of chips.

    Attributes:
        device: the memory cell.
        temperature: of operation, K.
        seed: of the batch.
        index: of the chip within the batch.
        conditions: see there.
        readout: what stands between a programmed array and its reads (the wires of the parasitic rung), or None.
    """

    device: Device
    temperature: float = 300.0
    seed: int = 0
    index: int = 0
    conditions: Conditions = field(default_factory=Conditions)
    readout: Callable[[ProgrammedBlock, LayerMapping, AnalogChip], ProgrammedBlock] | None = None

    def __post_init__(self) -> None:
        if self.seed < 0 or self.index < 0:
            raise InputError("chip", (self.seed, self.index), "a seed and a chip index of 0 or more")

    @staticmethod
    def of(chip: Chip, seed: int = 0, index: int = 0, conditions: Conditions | None = None) -> AnalogChip:
        """Chip number `index` of the batch `seed` of a hardware description."""
        return AnalogChip(chip.device, chip.node.temperature, seed, index, conditions or Conditions())

    @property
    def time(self) -> float:
        """Seconds after programming."""
        time = self.conditions.time
        return self.device.drift.reference_time if time is None else time

    @property
    def noise_sigma(self) -> float:
        """σ of the read-noise law (0 under law `table`)."""
        noise = self.conditions.read_noise
        if noise.law == "table":
            return 0.0
        return self.device.read_noise if noise.sigma is None else noise.sigma

    @property
    def noisy_cells(self) -> bool:
        """True if a read is a random draw."""
        noise = self.conditions.read_noise
        return self.noise_sigma > 0 or noise.floor > 0 or any(s for _, s in noise.table)


@dataclass
class Clock:
    """Numbers the images that a run has seen, so that read noise does not depend on how a batch is split.

    Attributes:
        first_image: number of the first image of the tensor that kernels get next.
    """

    first_image: int = 0


@dataclass(frozen=True, eq=False)
class Converters:
    """The converters' errors as seen by each column.

    Attributes:
        gain: factor on v.
        offset: in steps.
        inl: (2, columns) amplitudes, in steps, of the bow 4u(1 − u) and the s-curve 12√3·u(u − ½)(u − 1),
            u = v/(2^b − 1).
        noise: standard deviation of one conversion, comparator noise included, in steps.
    """

    gain: Float[np.ndarray, " columns"]
    offset: Float[np.ndarray, " columns"]
    inl: Float[np.ndarray, "2 columns"]
    noise: float

    @property
    def linear(self) -> bool:
        """True without integral non-linearity."""
        return not self.inl.any()

    @property
    def ideal(self) -> bool:
        """True without static errors."""
        return self.linear and bool((self.gain == 1).all()) and not self.offset.any()


def inl_curve(inl: Float[np.ndarray, "2 ..."], u: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """INL in steps at u = v/(2^b − 1), 0 at both ends: a bow and an s-curve, each of peak 1 times its amplitude."""
    return np.asarray(inl[0] * (4 * u * (1 - u)) + inl[1] * (12 * np.sqrt(3.0) * u * (u - 0.5) * (u - 1)))


def converters(errors: AdcErrors, columns: int, columns_per_adc: int, key: Key) -> Converters:
    """Draw the converters of one array; neighbouring columns share one.

    Gain ~ N(1, gain_sigma²), offset ~ N(0, offset_sigma²); the INL is a random mixture of bow and s-curve scaled to
    the stated peak.
    """
    if not (errors.gain_sigma or errors.offset_sigma or errors.inl):
        return Converters(np.ones(columns), np.zeros(columns), np.zeros((2, columns)), errors.noise_sigma)
    count = -(-columns // columns_per_adc)
    of = np.arange(columns) // columns_per_adc
    rng = key.generator("converters")
    gain, offset = 1 + errors.gain_sigma * rng.standard_normal(count), errors.offset_sigma * rng.standard_normal(count)
    angle = rng.uniform(0, 2 * np.pi, count)
    inl = np.stack([np.cos(angle), np.sin(angle)])
    u = np.linspace(0, 1, 257)
    peak = np.abs(inl_curve(inl[:, :, None], u)).max(1)
    return Converters(gain[of], offset[of], (errors.inl * inl / peak)[:, of], errors.noise_sigma)


@dataclass(frozen=True, eq=False)
class ProgrammedBlock:
    """One array as it came out, all in nominal level steps.

    Attributes:
        conductance: G/ΔG of every cell, float64.
        reference: what is subtracted in every row.
        reference_squares: Σ G² of the reference's cells as averaged, which add their own read noise.
        flipped, signs: as programmed (`Cells`).
        converters: per column.
    """

    conductance: Float[np.ndarray, "rows columns"]
    reference: Float[np.ndarray, " rows"]
    reference_squares: Float[np.ndarray, " rows"]
    flipped: Bool[np.ndarray, " columns"]
    signs: Int8[np.ndarray, "groups columns"]
    converters: Converters

    @property
    def weights(self) -> Float[np.ndarray, "rows columns"]:
        """g = G/ΔG − reference: what a read multiplies by."""
        return np.asarray(self.conductance - self.reference[:, None])

    @property
    def squares(self) -> Float[np.ndarray, "rows columns"]:
        """What x²·σ² multiplies in a read's variance under law `cell`; every read reads the reference anew."""
        return np.asarray(self.conductance**2 + self.reference_squares[:, None])


def program_block(mapping: LayerMapping, block: int, copy: int, chip: AnalogChip) -> ProgrammedBlock:
    """Program one array of one copy of a layer on a chip."""
    array, conditions = mapping.array, chip.conditions
    cells = mapping.cells(mapping.blocks[block])
    levels = Levels.of(chip.device, array.b_cell, conditions.on_off == "infinite")
    key = Key(chip.seed, chip.index, (mapping.layer.name, copy, block))
    physics = (chip.device, levels)
    conductance = conductances(cells.levels, *physics, key, chip.time, chip.temperature, conditions.write_verify)
    rows = len(conductance)
    reference, squares = np.zeros(rows), np.zeros(rows)
    if conditions.reference == "ideal":
        heat = temperature_factor(chip.device, np.zeros(rows), chip.temperature)
        age = (chip.time / chip.device.drift.reference_time) ** -chip.device.drift.exponent
        reference = levels.floor * heat * age
    elif conditions.reference == "cells":
        blank = np.zeros((rows, conditions.reference_columns), np.uint8)
        place = Key(key.seed, key.chip, (*key.place, "reference"))
        real = conductances(blank, *physics, place, chip.time, chip.temperature, conditions.write_verify)
        reference, squares = real.mean(1), (real**2).sum(1) / real.shape[1] ** 2
    errors = converters(array.adc_errors, conductance.shape[1], array.columns_per_adc, key)
    made = ProgrammedBlock(conductance, reference, squares, cells.flipped, cells.signs, errors)
    return made if chip.readout is None else chip.readout(made, mapping, chip)


def row_groups(mapping: LayerMapping, block: int) -> list[slice]:
    """The runs of a block's rows that are driven at once."""
    rows, active = len(mapping.core_rows(mapping.blocks[block])), mapping.array.active_rows
    return [slice(first, min(first + active, rows)) for first in range(0, rows, active)]


def slice_gains(
    mapping: LayerMapping, signs: Int8[np.ndarray, "groups columns"]
) -> Integer[np.ndarray, "groups columns"]:
    """What one unit read from each row group of each physical column adds to its accumulator, int64."""
    gains = np.array([s.gain for s in mapping.code.slices], np.int64)
    return np.asarray(np.tile(gains, signs.shape[1] // len(gains)) * signs)
