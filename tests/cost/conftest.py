"""Small programs built by hand, with random cores."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest

from crossloom.hardware import Chip, load
from crossloom.mapping import Mapping, map_program
from crossloom.weave import (
    Add,
    Convolution,
    Format,
    Input,
    InputTransform,
    MaxPool,
    Node,
    OutputTransform,
    Program,
    Rescale,
    Reshape,
    Woven,
    WovenLayer,
)

SMALL = {
    "array.rows": 16,
    "array.columns": 16,
    "array.active_rows": 16,
    "array.columns_per_adc": 4,
    "array.b_adc": 8,
    "hierarchy.arrays_per_macro": 2,
    "hierarchy.macros_per_tile": 2,
    "hierarchy.link_bits": 32,
    "hierarchy.window_reuse": False,
}
"""Arrays so small that a small network fills many of them, over several macros and tiles."""


def small_chip(name: str = "neurosim-rram", **changes: object) -> Chip:
    """A preset with small arrays and some fields changed (`array__b_adc=6`)."""
    return load(name, {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}})


def layer(
    rng: np.random.Generator,
    name: str,
    inputs: int,
    outputs: int,
    *,
    groups: int = 1,
    transform: InputTransform | None = None,
    convolution: Convolution | None = None,
    input_format: Format | None = None,
    weight_bits: int = 8,
    sparsity: float = 0.0,
    power_of_two: bool = True,
) -> WovenLayer:
    """A woven layer with random weights; `inputs` is K over all groups."""
    transform = transform or InputTransform.identity(inputs)
    rows, columns = transform.rows // groups, outputs // groups
    high = (1 << (weight_bits - 1)) - 1
    core = rng.integers(-high, high + 1, (groups, rows, columns)).astype(np.int32)
    core[rng.random(core.shape) < sparsity] = 0
    rescale = Rescale.of(2.0**-9 if power_of_two else 0.0017)
    output = OutputTransform(rng.integers(-3, 4, outputs), rescale, Format(8, False), 0, 255)
    return WovenLayer(
        name, transform, core, output, input_format or Format(8, False), weight_bits, None, np.ones(1), convolution
    )


def convolution(
    rng: np.random.Generator,
    source: Node,
    name: str,
    channels: int,
    kernel: int = 3,
    groups: int = 1,
    **more: object,
) -> Woven:
    """A same-size convolution node behind `source` (C, H, W)."""
    c, height, width = source.shape
    pad = kernel // 2
    geometry = Convolution((kernel, kernel), (1, 1), (pad, pad, pad, pad))
    made = layer(
        rng, name, c * kernel**2, channels, groups=groups, convolution=geometry, input_format=source.format, **more
    )
    shape = (channels, *geometry.output_size(height, width))
    return Woven(name=name, inputs=(source.name,), format=made.output.format, shape=shape, layer=made)


def linear(rng: np.random.Generator, source: Node, name: str, outputs: int, **more: object) -> Woven:
    """A linear node behind `source` (features,)."""
    made = layer(rng, name, source.shape[-1], outputs, input_format=source.format, **more)
    return Woven(name=name, inputs=(source.name,), format=made.output.format, shape=(outputs,), layer=made)


def flatten(source: Node) -> Reshape:
    return Reshape(name="flat", inputs=(source.name,), format=source.format, shape=(math.prod(source.shape),))


def image(channels: int = 3, side: int = 6, signed: bool = False) -> Input:
    return Input(name="x", inputs=(), format=Format(8, signed), shape=(channels, side, side))


def program(nodes: Iterable[Node], name: str = "test") -> Program:
    return Program(name, tuple(nodes))


def residual_network(rng: np.random.Generator, signed: bool = False) -> Program:
    """Convolution, convolution, residual addition, pooling, two linear layers."""
    x = image(4, 6, signed)
    first = convolution(rng, x, "first", 8)
    second = convolution(rng, first, "second", 8, groups=2)
    added = Add(
        name="add", inputs=("first", "second"), format=Format(8, False), shape=first.shape, low=0, high=255,
        multipliers=(1, 3), shift=1,
    )  # fmt: skip
    pooled = MaxPool(
        name="pool", inputs=("add",), format=added.format, shape=(8, 3, 3), kernel=(2, 2), stride=(2, 2),
        padding=(0, 0), dilation=(1, 1),
    )  # fmt: skip
    flat = flatten(pooled)
    hidden = linear(rng, flat, "hidden", 20, power_of_two=False)
    answer = linear(rng, hidden, "answer", 5)
    return program([x, first, second, added, pooled, flat, hidden, answer], "residual")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def residual(rng: np.random.Generator) -> Program:
    return residual_network(rng)


@pytest.fixture
def mapping(residual: Program) -> Mapping:
    return map_program(residual, small_chip(), {"first": 2})
