"""Rows that an array has to spare hold copies of the others, so that the errors of single cells average out.

A layer of R rows in arrays of H ≥ 2R rows leaves more rows idle than it uses. Driving every input on m rows that hold
the same weights gives m times the product, and Q's shift takes the m out again: what a perfect chip computes stays the
same bit for bit, no array, read or converter is added, and of independent errors of cells (programming variation,
stuck-at faults, read noise) a share of 1/m is left in variance. It needs no knowledge of the chip. Cell currents grow
m-fold. The scheme is ours; no publication of the four says it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossloom.errors import InputError
from crossloom.mapping.blocks import LayerMapping
from crossloom.weave import InputTransform, Rescale, WovenLayer, fitting_copies

LONGEST_SHIFT = 62
"""Bits that a shift may have and leave int64 whole."""


def copies(mapping: LayerMapping, most: int | None = None) -> int:
    """How often the rows of a layer fit into one read of one array: a power of two, so that Q needs no multiplier.

    Args:
        mapping: the layer on the chip's arrays. Groups of a convolution share arrays already and have one copy.
        most: at most so many.

    Raises:
        InputError: `most` below 1.
    """
    if most is not None and most < 1:
        raise InputError("repeat.most", most, "at least 1 copy of every row", "2")
    groups, rows, _ = mapping.layer.core.shape
    if groups > 1:
        return 1
    room = min(mapping.row_capacity, mapping.array.active_rows)
    fitting = fitting_copies(rows, room if most is None else min(room, most * rows))
    rescale = mapping.layer.output.rescale
    longest = int(rescale.shift[rescale.multiplier > 0].max(initial=0))  # a factor of 0 needs no shift at all
    return min(fitting, 1 << max(LONGEST_SHIFT - longest, 0))


def repeated(mapping: LayerMapping, most: int | None = None) -> WovenLayer:
    """The layer with every row stored in as many copies as `copies` says; itself where that is one.

    Args:
        mapping: the layer on the chip's arrays.
        most: copies of a row at most; None: as many as fit.

    Raises:
        InputError: `most` below 1.
    """
    layer, count = mapping.layer, copies(mapping, most)
    if count == 1:
        return layer
    output, rows = layer.output, layer.core.shape[1]
    shift = np.minimum(output.rescale.shift + (count.bit_length() - 1), LONGEST_SHIFT)
    longer = Rescale(output.rescale.multiplier, shift)
    output = replace(output, bias=output.bias * count, rescale=longer)
    layer = replace(layer, output=output, weight_scale=layer.weight_scale / count)
    order = InputTransform.select(rows, np.tile(np.arange(rows), count))
    return layer.with_rows(order, np.tile(layer.core, (1, count, 1)))
