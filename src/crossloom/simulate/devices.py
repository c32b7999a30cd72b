"""What cells really conduct: pure functions from target levels to conductances.

Conductances are in units of one level step ΔG = (G_top − G_0)/(2^b − 1) of the nominal device, so that an ideal cell
of level l conducts l + f, where f = G_0/ΔG is the floor that a finite on/off ratio leaves under every level. Every
random function takes a generator; `generator` derives one from names, so that a draw depends on what is drawn and
never on when, in what order or with what else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int8, UInt8

from crossloom.errors import InputError
from crossloom.hardware import Device
from crossloom.hardware.schema import Drift, Variation

HEALTHY, STUCK_HRS, STUCK_LRS = 0, 1, 2
"""Fault codes of `faults`."""


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A Philox generator for one draw, derived from the seed and the names of what is drawn.

    Raises:
        InputError: a negative seed.
    """
    if seed < 0:
        raise InputError("seed", seed, "0 or more")
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=16).digest()
    words = np.frombuffer(digest, np.uint32).tolist()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of a cell.

    Attributes:
        values: conductance above the floor of every level, in steps; exactly 0, 1, 2, … where levels are evenly spaced.
        floor: f, the conductance of level 0 in steps.
        step: ΔG in siemens.
    """

    values: Float[np.ndarray, " levels"]
    floor: float
    step: float

    @property
    def top(self) -> float:
        """The conductance range G_top − G_0 in steps."""
        return float(self.values[-1])

    @staticmethod
    def of(device: Device, bits: int, infinite_on_off: bool = False) -> Levels:
        """The levels of a device's cell of `bits` bits (`Device.conductances`).

        With `infinite_on_off` the floor is left out: level 0 conducts nothing, the steps stay.
        """
        targets = np.array(device.conductances(bits))
        step = (targets[-1] - targets[0]) / (len(targets) - 1)
        values = (targets - targets[0]) / step
        whole = np.rint(values)
        values = np.where(np.abs(values - whole) < 1e-9, whole, values)
        return Levels(values, 0.0 if infinite_on_off else float(targets[0] / step), float(step))


@dataclass(frozen=True)
class WriteVerify:
    """Write, read back, write again until the cell is close enough.

    Attributes:
        tolerance: largest accepted |G − target| as a fraction of the conductance range.
        tries: most writes of one cell; the last one stays, accepted or not.
    """

    tolerance: float
    tries: int

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise InputError("write_verify.tolerance", self.tolerance, "a positive fraction of the conductance range")
        if self.tries < 1:
            raise InputError("write_verify.tries", self.tries, "at least 1 write")


def spread(variation: Variation, target: Float[np.ndarray, "..."], levels: Levels) -> Float[np.ndarray, "..."]:
    """σ_G of the additive variation models at each target conductance, in steps.

    Gaussian: σ·(G_top − G_0). Polynomial: max(Σ a_k·G^k, 0) in the fit's unit, G held within the measured range.
    Table: linear between measured points, constant beyond.

    Raises:
        InputError: a model that is not additive.
    """
    if variation.model == "gaussian":
        return np.full_like(target, variation.sigma * levels.top)
    if variation.model == "polynomial":
        g = np.clip(target * levels.step, variation.g_min, variation.g_max) / variation.scale
        sigma = np.polynomial.polynomial.polyval(g, np.array(variation.coefficients))
        return np.asarray(np.maximum(sigma, 0) * (variation.scale / levels.step))
    if variation.model == "table":
        sigma = np.interp(target * levels.step, variation.conductance, variation.sigma)
        return np.asarray(sigma / levels.step)
    raise InputError.choice("device.variation.model", variation.model, ("gaussian", "polynomial", "table"))


def write(
    target: Float[np.ndarray, "..."], variation: Variation, levels: Levels, rng: np.random.Generator
) -> Float[np.ndarray, "..."]:
    """The conductance after one write of every cell, in steps.

    Log-normal: G = G_target·e^θ, θ ~ N(0, σ²). Others: G = max(G_target + σ_G(G_target)·N(0, 1), 0).
    """
    if variation.model == "none":
        return target.copy()
    draw = rng.standard_normal(target.shape)
    if variation.model == "lognormal":
        return np.asarray(target * np.exp(variation.sigma * draw))
    return np.asarray(np.maximum(target + spread(variation, target, levels) * draw, 0))


def program(
    target: Float[np.ndarray, "..."],
    variation: Variation,
    levels: Levels,
    rng: np.random.Generator,
    verify: WriteVerify | None = None,
) -> Float[np.ndarray, "..."]:
    """The conductance of every cell after programming, in steps.

    With `verify`, cells outside the tolerance are written again: accepted cells follow the variation's distribution
    truncated to target ± tolerance·(G_top − G_0).
    """
    conductance = write(target, variation, levels, rng)
    if verify is None:
        return conductance
    limit = verify.tolerance * levels.top
    for _ in range(verify.tries - 1):
        again = np.abs(conductance - target) > limit
        if not again.any():
            break
        conductance[again] = write(target[again], variation, levels, rng)
    return conductance


def faults(shape: tuple[int, ...], hrs: float, lrs: float, rng: np.random.Generator) -> Int8[np.ndarray, "..."]:
    """A fault code per cell: stuck at HRS with probability `hrs`, at LRS with probability `lrs`, independently."""
    if hrs == 0 and lrs == 0:
        return np.zeros(shape, np.int8)
    draw = rng.random(shape)
    return np.where(draw < hrs, STUCK_HRS, np.where(draw < hrs + lrs, STUCK_LRS, HEALTHY)).astype(np.int8)


def drift_factor(
    drift: Drift, time: float, shape: tuple[int, ...], rng: np.random.Generator
) -> Float[np.ndarray, "..."]:
    """G(t)/G(t₀) = (t/t₀)^(−ν) per cell, ν ~ N(exponent, exponent_sigma²).

    Raises:
        InputError: a time that is not positive.
    """
    if not time > 0:
        raise InputError("time", time, "a positive number of seconds after programming")
    ratio = time / drift.reference_time
    if ratio == 1 or (drift.exponent == 0 and drift.exponent_sigma == 0):
        return np.ones(shape)
    exponent = np.full(shape, drift.exponent)
    if drift.exponent_sigma:
        exponent += drift.exponent_sigma * rng.standard_normal(shape)
    return np.asarray(ratio**-exponent)


def temperature_factor(
    device: Device, fraction: Float[np.ndarray, "..."], temperature: float
) -> Float[np.ndarray, "..."]:
    """G(T)/G(T_ref) = 1/(1 + tcr·(T − T_ref)) of a cell at `fraction` of the way from G_0 to G_top.

    `tcr` runs linearly in conductance from tcr_off to tcr_on, the two that are measured.

    Raises:
        InputError: a resistance that the coefficient drives to 0 or below.
    """
    change = temperature - device.reference_temperature
    for name, tcr in (("device.tcr_on", device.tcr_on), ("device.tcr_off", device.tcr_off)):
        if 1 + tcr * change <= 0:
            raise InputError(name, tcr, f"a coefficient that leaves a positive resistance at {temperature:g} K")
    tcr = device.tcr_off + (device.tcr_on - device.tcr_off) * np.clip(fraction, 0, 1)
    return np.asarray(1 / (1 + tcr * change))


@dataclass(frozen=True)
class Key:
    """Names one set of cells of one chip, for every draw on it.

    Attributes:
        seed: of the experiment.
        chip: which chip of it.
        place: layer name, copy, array (block) and what else tells these cells from others.
    """

    seed: int
    chip: int
    place: tuple[str | int, ...]

    def generator(self, what: str) -> np.random.Generator:
        """The generator of one kind of draw on these cells."""
        return generator(self.seed, self.chip, *self.place, what)


def conductances(
    cells: UInt8[np.ndarray, "..."],
    device: Device,
    levels: Levels,
    key: Key,
    time: float,
    temperature: float,
    verify: WriteVerify | None = None,
) -> Float[np.ndarray, "..."]:
    """Conductance of programmed cells at a time and temperature, in steps of the nominal device.

    Written, then stuck cells set to exactly G_0 or G_top (they take no writes and do not drift), then drift, then
    temperature.
    """
    conductance = target = levels.values[cells] + levels.floor
    if device.variation.model != "none":
        conductance = program(target, device.variation, levels, key.generator("variation"), verify)
    if time != device.drift.reference_time and (device.drift.exponent or device.drift.exponent_sigma):
        conductance = conductance * drift_factor(device.drift, time, cells.shape, key.generator("drift"))
    if device.stuck_hrs or device.stuck_lrs:
        fault = faults(cells.shape, device.stuck_hrs, device.stuck_lrs, key.generator("faults"))
        for code, stuck in ((STUCK_HRS, levels.floor), (STUCK_LRS, levels.floor + levels.top)):
            conductance = np.where(fault == code, stuck, conductance)
            target = np.where(fault == code, stuck, target)
    if temperature != device.reference_temperature and (device.tcr_on or device.tcr_off):
        conductance = conductance * temperature_factor(device, (target - levels.floor) / levels.top, temperature)
    return np.asarray(conductance)
