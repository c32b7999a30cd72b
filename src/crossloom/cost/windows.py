"""Pixels that neighbouring windows of a convolution share: what a macro must fetch if it keeps the last window.

The windows of one output row follow each other in a macro. The value at kernel column j of a window was at column
j + stride ÷ dilation of the window before, if that lies in the kernel; a macro that keeps its window fetches the
others, and all of them where a row begins. Nothing is kept from row to row (that takes a line buffer, which is the
tile's own buffer).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Integer

from crossloom.cost.geometry import Geometry
from crossloom.weave import WovenLayer


def held_before(layer: WovenLayer) -> Integer[np.ndarray, " inputs"]:
    """Element of the window before that held the same pixel as each element of this one; −1 if none did."""
    geometry = layer.convolution
    index = np.arange(layer.inputs)
    if geometry is None or geometry.stride[1] % geometry.dilation[1]:
        return np.full(layer.inputs, -1, np.int64)
    shift, width = geometry.stride[1] // geometry.dilation[1], geometry.kernel[1]
    return np.where(index % width + shift < width, index + shift, -1)


def runs(layer: WovenLayer, shape: tuple[int, ...], copies: int) -> int:
    """Runs of adjacent windows of an image: its output rows, cut further where copies outnumber them."""
    if layer.convolution is None:
        return math.prod(shape[:-1])
    height, width = shape[-2:]
    return min(height * math.ceil(copies / height), height * width)


def fetched(layer: WovenLayer, held: Bool[np.ndarray, "macros inputs"], positions: int, starts: int) -> float:
    """Values that macros fetch for one image.

    Args:
        layer: whose inputs they are.
        held: elements of the window that each macro holds.
        positions: windows of an image.
        starts: of these, windows that begin a run.
    """
    before = held_before(layer)
    there = held & (before >= 0) & held[:, before]
    whole, new = float(held.sum()), float((held & ~there).sum())
    return starts * whole + (positions - starts) * new


def elements_by_macro(geometry: Geometry) -> Bool[np.ndarray, "macros inputs"]:
    """Elements of the input vector that each macro of one copy is fed with."""
    macros, index = np.unique(geometry.macro[0], return_inverse=True)
    found = np.zeros((len(macros), geometry.mapped.layer.inputs), bool)
    for macro, band in np.unique(np.stack([index, geometry.band], axis=1), axis=0):
        found[macro] |= geometry.support[band]
    return found
