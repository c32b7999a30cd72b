"""Converter ranges set from data: one Δ and p_min per layer, as plain data that travels with the chip."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Integer

from crossloom.errors import InputError
from crossloom.simulate.adc import Adc

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse")


@dataclass(frozen=True)
class Calibration:
    """The converters of a network's layers, by layer name."""

    converters: dict[str, Adc]

    def of(self, layer: str) -> Adc:
        """The converter of a layer.

        Raises:
            InputError: the record does not hold it.
        """
        if layer not in self.converters:
            raise InputError.choice("calibration", layer, self.converters)
        return self.converters[layer]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            name: {"bits": a.bits, "step": a.step, "low": a.low, "denominator": a.denominator}
            for name, a in self.converters.items()
        }

    @staticmethod
    def from_dict(record: Dictionary[str, Any]) -> Calibration:
        """The inverse of `to_dict`.

        Raises:
            InputError: a record that is not one of converters.
        """
        try:
            return Calibration({str(name): Adc(**{k: int(v) for k, v in a.items()}) for name, a in record.items()})
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            raise InputError("calibration", record, "bits, step, low and denominator per layer") from error


def fit(histogram: Integer[np.ndarray, " reads"], bits: int, method: Method, tail: float = 1e-4) -> Adc:
    """The converter for reads that were seen `histogram[p]` times each.

    `minmax` spans everything seen; `percentile` leaves out the fraction `tail` of reads, half at each end;
    `mse` takes, of the spans between quantiles of the reads, that of least mean squared error Σ (q(p) − p)².
    No step is below 1: reads are integers.

    Raises:
        InputError: nothing was seen, an unknown method or a tail outside 0 … 1.
    """
    if method not in METHODS:
        raise InputError.choice("calibration.method", method, METHODS)
    if not 0 <= tail < 1:
        raise InputError("calibration.tail", tail, "a fraction from 0 to below 1")
    seen = np.flatnonzero(histogram)
    if not len(seen):
        raise InputError("calibration", "no reads", "at least one batch")
    share = np.cumsum(histogram[seen]) / histogram.sum()

    def span(cut: float) -> Adc:
        low = int(seen[int(np.searchsorted(share, cut / 2, side="right"))])
        high = int(seen[min(int(np.searchsorted(share, 1 - cut / 2, side="left")), len(seen) - 1)])
        return Adc.of(bits, max(1.0, (high - low) / ((1 << bits) - 1)), low)

    if method == "minmax":
        return span(0.0)
    if method == "percentile":
        return span(tail)
    choices = [span(cut) for cut in (0.0, *np.geomspace(1e-7, 0.2, 64))]
    weight = histogram[seen].astype(np.float64)
    errors = [float(weight @ (a.p_min + a.delta * a.code(seen.astype(np.int64)) - seen) ** 2) for a in choices]
    return choices[int(np.argmin(errors))]
