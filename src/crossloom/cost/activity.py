"""What a calibration batch says about the digits that rows are driven with.

A row whose digit is zero is not driven: its driver and its cells spend nothing. A chip with zero-skipping also
leaves out reads in which no row has anything to drive.
"""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping, Mapping
from crossloom.simulate import input_vectors
from crossloom.weave import pieces


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """Statistics of one layer's digits.

    Attributes:
        density: drives of a row of P x per digit: how often the digit is not zero, or, where digits are serial, the
            mean number of its bits that are one.
        power: mean of (digit ÷ largest digit)², what the cells' V² follows; serial digits: the same as density.
        busy: per row band (a run of rows that arrays of this layer share, in the order of the blocks), the fraction
            of reads in which a window of `active_rows` rows has any digit to drive.
        reads: mean number of reads a vector takes when empty ones are skipped and all arrays of the layer wait for
            the slowest.
        vectors: how many input vectors were seen.
    """

    density: Float[np.ndarray, "digits rows"]
    power: Float[np.ndarray, "digits rows"]
    busy: tuple[Float[np.ndarray, "digits windows"], ...]
    reads: float
    vectors: int


@dataclass(frozen=True, eq=False)
class Activity:
    """Statistics of all layers, by layer name."""

    layers: dict[str, LayerActivity]


def bands(mapped: LayerMapping) -> list[np.ndarray]:
    """The runs of core rows that arrays of a layer hold, each once, in the order of the blocks."""
    first = {(block.groups, block.rows): block for block in reversed(mapped.blocks)}
    order = dict.fromkeys((block.groups, block.rows) for block in mapped.blocks)
    return [mapped.core_rows(first[key]) for key in order]


def windows(rows: np.ndarray, active_rows: int) -> list[np.ndarray]:
    """The rows of one array in the groups that are driven together."""
    return [rows[start : start + active_rows] for start in range(0, len(rows), active_rows)]


def layer_activity(mapped: LayerMapping, vectors: Integer[np.ndarray, "vectors inputs"]) -> LayerActivity:
    """Statistics of one layer from its input vectors (codes, before the input transform)."""
    streams = [stream.apply(np.asarray(vectors)) for stream in mapped.streams]
    largest = (1 << mapped.array.b_dac) - 1
    density, power = [], []
    found = bands(mapped)
    busy: list[list[list[float]]] = [[] for _ in found]
    reads = np.zeros((len(found), len(vectors)), np.int64)
    for digit in (digit for rows in streams for digit in pieces(rows, mapped.stream_digits)):
        driven = digit != 0
        serial = mapped.array.digit_drive == "serial"
        density.append(np.bitwise_count(digit).mean(0) if serial else driven.mean(0))
        power.append(density[-1] if serial else ((digit / largest) ** 2).mean(0))
        for i, band in enumerate(found):
            any_driven = [driven[:, window].any(1) for window in windows(band, mapped.array.active_rows)]
            busy[i].append([float(window.mean()) for window in any_driven])
            reads[i] += np.sum(any_driven, axis=0)
    slowest = float(reads.max(0).mean()) if found else 0.0
    return LayerActivity(
        np.stack(density), np.stack(power), tuple(np.asarray(b) for b in busy), slowest, len(vectors)
    )  # fmt: skip


def activity_of(mapping: Mapping, vectors: Dictionary[str, Integer[np.ndarray, "vectors inputs"]]) -> Activity:
    """Statistics from input vectors per layer name.

    Raises:
        InputError: a layer without vectors, an unknown layer, or vectors of the wrong length.
    """
    for name in vectors:
        if name not in mapping.layers:
            raise InputError.choice("activity layer", name, mapping.layers)
    found = {}
    for name, mapped in mapping.layers.items():
        given = np.asarray(vectors.get(name, np.zeros((0, 0))))
        if given.ndim != 2 or not len(given) or given.shape[1] != mapped.layer.inputs:
            raise InputError(f"activity of {name}", given.shape, f"(vectors, {mapped.layer.inputs}), at least one")
        found[name] = layer_activity(mapped, given)
    return Activity(found)


def measure(mapping: Mapping, images: torch.Tensor, vectors: int = 2048, seed: int = 0) -> Activity:
    """Run images through the integer rung and look at every layer's input vectors.

    Args:
        mapping: a placed program.
        images: real inputs (B, …).
        vectors: at most so many input vectors of each layer are looked at (`crossloom.simulate.input_vectors`).
        seed: of their draw.

    Raises:
        InputError: no images, or images of another shape than the program's input.
    """
    return activity_of(mapping, input_vectors(mapping, images, vectors, seed))
