"""Looking at what reaches the crossbars: input vectors of every layer, and converter ranges fitted to their reads."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Integer

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping, Mapping
from crossloom.simulate.calibration import Calibration, Method, fit
from crossloom.simulate.executor import Executor
from crossloom.simulate.unfold import Fold
from crossloom.weave import Node, Woven, pieces

IMAGES_PER_SHARE = 8
"""Vectors are drawn from images with so many times as many positions, to bound memory."""


def input_vectors(
    mapping: Mapping, images: torch.Tensor, vectors: int = 2048, seed: int = 0
) -> dict[str, Integer[np.ndarray, "vectors inputs"]]:
    """Input codes of every layer for real images, from the integer rung.

    Args:
        mapping: a placed program.
        images: real inputs (B, …).
        vectors: at most so many input vectors of each layer are kept, drawn without replacement from every part of
            the batch in equal shares.
        seed: of the draw.

    Raises:
        InputError: no images, or images of another shape than the program's input.
    """
    if not len(images):
        raise InputError("images", 0, "at least one image")
    generator = np.random.default_rng(seed)
    consumers: dict[str, list[Woven]] = {}
    for node in mapping.program.woven():
        consumers.setdefault(node.inputs[0], []).append(node)
    executor = Executor(mapping, "integer")
    share = math.ceil(vectors / math.ceil(len(images) / executor.images_at_once))
    seen: dict[str, list[np.ndarray]] = {name: [] for name in mapping.layers}

    def observe(node: Node, codes: torch.Tensor) -> None:
        for consumer in consumers.get(node.name, ()):
            batch = min(len(codes), math.ceil(IMAGES_PER_SHARE * share / mapping.program.positions(consumer)))
            kept = codes[torch.from_numpy(generator.permutation(len(codes))[:batch])].to(torch.int64)
            unfolded = Fold.of(consumer.layer, tuple(kept.shape)).vectors(kept).cpu().numpy()
            unfolded = unfolded.reshape(-1, consumer.layer.inputs)
            seen[consumer.layer.name].append(generator.permutation(unfolded)[:share])

    executor.observe(images, observe)
    return {name: np.concatenate(parts)[:vectors] for name, parts in seen.items()}


def read_histogram(mapped: LayerMapping, x: Integer[np.ndarray, "vectors inputs"]) -> Integer[np.ndarray, " reads"]:
    """How often each read value p occurs over all arrays, row groups, digits and columns of a layer.

    The products run in float32, exact because a read is below 2^24.
    """
    array = mapped.array
    top = ((1 << array.b_cell) - 1) * ((1 << array.b_dac) - 1) * array.active_rows
    histogram = np.zeros(top + 1, np.int64)
    z = mapped.layer.transform.apply(x)
    for block in mapped.blocks:
        levels, rows = mapped.cells(block).levels.astype(np.float32), mapped.core_rows(block)
        for digit in pieces(z[:, rows], mapped.digits):
            for first in range(0, len(rows), array.active_rows):
                driven = slice(first, first + array.active_rows)
                reads = digit[:, driven].astype(np.float32) @ levels[driven]
                histogram += np.bincount(reads.astype(np.int64).reshape(-1), minlength=top + 1)
    return histogram


def calibrate_converters(
    mapping: Mapping, images: torch.Tensor, method: Method = "mse", vectors: int = 256, seed: int = 0
) -> Calibration:
    """Converter ranges of every layer, fitted to the reads that real images cause on a perfect chip.

    Args:
        mapping: a placed program.
        images: real inputs (B, …).
        method: `minmax`, `percentile` or `mse` (see `fit`).
        vectors: input vectors looked at per layer.
        seed: of their draw.

    Raises:
        InputError: no images, or images of the wrong shape.
    """
    bits = mapping.chip.array.b_adc
    seen = input_vectors(mapping, images, vectors, seed)
    return Calibration({n: fit(read_histogram(m, seen[n]), bits, method) for n, m in mapping.layers.items()})
