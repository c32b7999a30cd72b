"""Fetches with window reuse equal those of a macro that remembers the pixels of its last window."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crossloom.cost import count, estimate
from crossloom.hardware import Action
from crossloom.mapping import Mapping, map_program
from crossloom.weave import Convolution, InputTransform, Woven

from .conftest import image, layer, program, small_chip


def network(
    kernel: int, stride: int, dilation: int, channels: int, side: int, copies: int = 1, kept: list[int] | None = None,
    reuse: bool = True,
) -> Mapping:  # fmt: skip
    """One convolution of a square image; `kept` are the rows of P if it selects."""
    rng = np.random.default_rng(0)
    x = image(channels, side)
    geometry = Convolution((kernel, kernel), (stride, stride), (1, 1, 1, 1), (dilation, dilation))
    transform = InputTransform.select(channels * kernel**2, kept) if kept is not None else None
    made = layer(rng, "conv", channels * kernel**2, 6, convolution=geometry, transform=transform, input_format=x.format)
    made.core[made.core == 0] = 1
    node = Woven(
        name="conv", inputs=("x",), format=made.output.format, shape=(6, *geometry.output_size(side, side)), layer=made
    )
    return map_program(program([x, node]), small_chip(hierarchy__window_reuse=reuse), {"conv": copies})


def walk(mapping: Mapping) -> int:
    """Values that the macros of every copy fetch: each remembers the (channel, y, x) of its last window."""
    mapped, node = mapping.layers["conv"], next(iter(mapping.program.woven()))
    geometry = node.layer.convolution
    assert geometry is not None
    height, width = node.shape[1:]
    source = node.layer.transform.matrix().indices
    per_row = math.ceil(mapped.copies / height)  # copies that share an output row, if there are so many
    fetches = 0
    parts: dict[int, set[int]] = {}
    for array in mapping.arrays:
        if array.copy == 0:
            rows = mapped.core_rows(mapped.blocks[array.block])
            parts.setdefault(array.tile * 1000 + array.macro, set()).update(source[rows].tolist())
    for elements in parts.values():
        for y in range(height):
            starts = {round(i * width / min(per_row, width)) for i in range(min(per_row, width))}
            last: set[tuple[int, int, int]] = set()
            for x in range(width):
                seen = set()
                for element in elements:
                    channel, i, j = np.unravel_index(element, (node.layer.in_channels, *geometry.kernel))
                    pixel = (
                        int(channel),
                        y * geometry.stride[0] + int(i) * geometry.dilation[0],
                        x * geometry.stride[1] + int(j) * geometry.dilation[1],
                    )
                    seen.add(pixel)
                fetches += len(seen - (set() if x in starts else last))
                last = seen
    return fetches


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.integers(1, 4), stride=st.integers(1, 3), dilation=st.integers(1, 2), channels=st.integers(1, 5),
    side=st.integers(7, 9), copies=st.integers(1, 12),
)  # fmt: skip
def test_fetches_equal_a_walk(kernel: int, stride: int, dilation: int, channels: int, side: int, copies: int) -> None:
    mapping = network(kernel, stride, dilation, channels, side, copies)
    found = count(mapping)
    assert found.total(Action.BUFFER_READ) == pytest.approx(8 * walk(mapping))


def test_pruned_rows_share_only_what_is_left() -> None:
    """Column 1 of the kernel is gone: nothing of a window is found in the next one, two columns apart at stride 1."""
    left = [9 * c + 3 * i + j for c in range(2) for i in range(3) for j in (0, 2)]
    mapping = network(3, 1, 1, 2, 8, kept=left)
    assert count(mapping).total(Action.BUFFER_READ) == 8 * walk(mapping) == 8 * 64 * len(left)


@settings(max_examples=12, deadline=None)
@given(kernel=st.integers(1, 4), stride=st.integers(1, 3), channels=st.integers(1, 5), copies=st.integers(1, 9))
@example(kernel=4, stride=3, channels=1, copies=7)
def test_reuse_never_adds_and_leaves_the_arrays_alone(kernel: int, stride: int, channels: int, copies: int) -> None:
    anew, kept = (network(kernel, stride, 1, channels, 8, copies, reuse=reuse) for reuse in (False, True))
    one, two = count(anew), count(kept)
    side = (8 + 2 - kernel) // stride + 1  # windows of a row
    apart = stride >= kernel or math.ceil(copies / side) >= side  # windows that do not overlap, or one a copy
    for action in (Action.BUFFER_READ, Action.TILE_BUS, Action.INPUT_REGISTER):
        assert two.total(action) <= one.total(action)
        assert (two.total(action) == one.total(action)) == apart
    for action in (Action.ADC_CONVERSION, Action.ROW_DRIVE, Action.BUFFER_WRITE, Action.NETWORK_HOP):
        assert two.total(action) == one.total(action)
    assert estimate(kept).dynamic_j <= estimate(anew).dynamic_j


def test_a_computed_transform_keeps_raw_inputs_in_a_register() -> None:
    """Sums of kernel rows are made anew; their nine inputs are fetched three at a time, written once, read all."""
    rng = np.random.default_rng(0)
    x = image(1, 6)
    geometry = Convolution((3, 3), (1, 1), (1, 1, 1, 1))
    sums = InputTransform.sum([k // 3 for k in range(9)])
    made = layer(rng, "conv", 9, 3, convolution=geometry, transform=sums, input_format=x.format)
    node = Woven(name="conv", inputs=("x",), format=made.output.format, shape=(3, 6, 6), layer=made)
    mapping = map_program(program([x, node]), small_chip(hierarchy__window_reuse=True))
    found = count(mapping)
    fetched = 6 * 9 + 30 * 3
    assert found.total(Action.BUFFER_READ) == 8 * fetched
    bits = mapping.layers["conv"].layer.row_format.bits
    assert found.total(Action.INPUT_REGISTER) == pytest.approx(8 * (fetched + 36 * 9) + 36 * 2 * 3 * bits)
    assert found.total(Action.TILE_BUS) >= 36 * 3 * bits
