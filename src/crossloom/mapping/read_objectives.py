"""What a read of value p costs: tables that reordering minimises the sum of.

With σ(p) the noise of a read and thresholds t_k = p_min + (k − ½)Δ between codes k − 1 and k, code k is made with
probability Φ((t_{k+1} − p)/σ) − Φ((t_k − p)/σ), the ends of the range taking what lies beyond them.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from crossloom.errors import InputError
from crossloom.hardware import Array

Objective = Literal["code-error", "squared-error", "variance", "skipped"]
"""What is minimised, as a mean over reads.

`code-error`: probability that the converter gives another code than without noise. `squared-error`: expected squared
error behind the converter, weighted by what it is worth in the accumulator. `variance`: variance of the read before
the converter, weighted the same way. `skipped`: fraction of reads that cannot be skipped because a row is driven.
"""


class Noise(Protocol):
    """How the noise of a read depends on it; `simulate.analog_chip.ReadNoise` is one.

    `proportional`: σ·p. `root`: σ·√p. `table`: σ(p) linear between (p, σ) points, constant beyond. `cell`: independent
    relative noise of every cell, which is σ·√p for 1-bit cells and digits. `floor` is added to the variance.
    """

    @property
    def law(self) -> str:
        """`cell`, `proportional`, `root` or `table`."""

    @property
    def sigma(self) -> float | None:
        """σ of the first three laws."""

    @property
    def table(self) -> tuple[tuple[float, float], ...]:
        """Points of the last."""

    @property
    def floor(self) -> float:
        """A further independent standard deviation, in level steps."""


def deviations(noise: Noise, top: int, binary: bool) -> Float[np.ndarray, " reads"]:
    """σ(p) for p = 0 … top, in units of one cell step times one digit step.

    Raises:
        InputError: a law without its σ, an unknown law, or law `cell` where a read does not say which cells made it.
    """
    p = np.arange(top + 1, dtype=np.float64)
    if noise.law == "table":
        points, sigmas = np.array(noise.table, np.float64).T
        sigma = np.interp(p, points, sigmas)
    elif noise.law in ("cell", "proportional", "root"):
        if noise.sigma is None:
            raise InputError("noise.sigma", None, f"a standard deviation for law {noise.law}")
        if noise.law == "cell" and not binary:
            raise InputError.choice("noise.law", "cell", ("proportional", "root", "table"))
        sigma = noise.sigma * (p if noise.law == "proportional" else np.sqrt(p))
    else:
        raise InputError.choice("noise.law", noise.law, ("cell", "proportional", "root", "table"))
    return np.asarray(np.sqrt(sigma**2 + noise.floor**2))


def converter(array: Array, given: tuple[float, float] | None) -> tuple[float, float]:
    """(Δ, p_min) of an array's converters; `given` where its range is calibrated.

    Raises:
        InputError: a calibrated range and none given, or a step that is not positive.
    """
    if given is not None:
        if not given[0] > 0:
            raise InputError("converter", given, "a positive step")
        return given
    if array.adc_range == "calibrated":
        raise InputError("converter", None, "(step, lowest read) of the layer, since array.adc_range is calibrated")
    return (1.0 if array.adc_range == "unit" else max(1.0, array.read_max / ((1 << array.b_adc) - 1))), 0.0


def code_probabilities(
    sigma: Float[np.ndarray, " reads"], bits: int, delta: float, low: float
) -> Float[np.ndarray, "reads codes"]:
    """Probability of every code for every read p = 0, 1, …; rounding is half up where there is no noise."""
    p = np.arange(len(sigma), dtype=np.float64)[:, None]
    thresholds = low + (np.arange(1, 1 << bits) - 0.5) * delta
    distance = p - thresholds
    spread = np.broadcast_to(sigma[:, None], distance.shape)
    quotient = np.divide(distance, spread, out=np.zeros_like(distance), where=spread > 0)
    above = np.where(spread > 0, ndtr(quotient), distance >= 0)
    return np.asarray(-np.diff(above, axis=1, prepend=1.0, append=0.0))


def objective_table(
    objective: str, array: Array, top: int, noise: Noise | None, given: tuple[float, float] | None = None
) -> Float[np.ndarray, " reads"]:
    """The cost of every read 0 … top.

    Raises:
        InputError: an unknown objective, an objective that needs noise and has none, and what `deviations` and
            `converter` raise.
    """
    if objective not in get_args(Objective):
        raise InputError.choice("reorder.objective", objective, get_args(Objective))
    if objective == "skipped":
        return np.minimum(np.arange(top + 1), 1).astype(np.float64)
    if noise is None:
        raise InputError("reorder.noise", None, f"the noise of a read, which objective {objective} depends on")
    sigma = deviations(noise, top, array.b_cell == array.b_dac == 1)
    if objective == "variance":
        return sigma**2
    delta, low = converter(array, given)
    chance = code_probabilities(sigma, array.b_adc, delta, low)
    codes = np.arange(chance.shape[1])
    if objective == "code-error":
        ideal = code_probabilities(np.zeros_like(sigma), array.b_adc, delta, low).argmax(1)
        return np.asarray(1.0 - chance[np.arange(top + 1), ideal])
    error = low + delta * codes[None, :] - np.arange(top + 1)[:, None]
    return np.asarray((chance * error**2).sum(1))
