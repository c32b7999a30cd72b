"""The ATen operators that crossloom understands, by what they are to a program."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

CONVOLUTIONS = {aten.conv2d.default, aten.conv2d.padding}
LINEAR = {aten.linear.default}
NORMS = {aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default}
CLIPS = {
    aten.relu.default: (0.0, math.inf),
    aten.relu6.default: (0.0, 6.0),
    aten.hardtanh.default: ("min_val", "max_val"),
    aten.clamp.default: ("min", "max"),
    aten.clamp_min.default: ("min", None),
    aten.clamp_max.default: (None, "max"),
}
"""Operators that only cut the range: fused into the output clip of what comes before."""
FUNCTIONS = {
    aten.leaky_relu.default, aten.hardswish.default, aten.hardsigmoid.default, aten.silu.default,
    aten.sigmoid.default, aten.tanh.default, aten.gelu.default, aten.elu.default, aten.softplus.default,
    aten.mish.default, aten.exp.default, aten.abs.default, aten.neg.default, aten.erf.default,
    aten.square.default, aten.pow.Tensor_Scalar, aten.div.Scalar, aten.add.Scalar, aten.mul.Scalar, aten.sub.Scalar,
}  # fmt: skip
"""Functions of one value: a table on the chip."""
SUMS = {aten.add.Tensor: 1.0, aten.sub.Tensor: -1.0}
PRODUCTS = {aten.mul.Tensor}
QUOTIENTS = {aten.div.Tensor}
PRELU = {aten.prelu.default, aten._prelu_kernel.default}
CONCAT = {aten.cat.default}
MAX_POOLS = {aten.max_pool2d.default}
AVERAGE_POOLS = {aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim}
RESHAPES = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints,
    aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default,
}  # fmt: skip
PERMUTES = {aten.permute.default, aten.transpose.int}
SLICES = {aten.slice.Tensor}
SPLITS = {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default}
PADS = {aten.pad.default, aten.constant_pad_nd.default}
IDENTITIES = {
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
}
DROPOUTS = {torch.ops.crossloom.dropout.default, aten.dropout.default}

WORDS = (
    "convolution (grouped, depthwise, strided, dilated), linear, batch norm, clipping and one-value activations, "
    "max, average and adaptive pooling, add, subtract, multiply, concatenate, flatten, view, permute, slice, split, "
    "pad, dropout"
)
"""The list for people, in error messages."""


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an operator call by name, defaults filled in."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((a.name for a in schema), node.args, strict=False))
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    return {**defaults, **given, **node.kwargs}


def pair(value: Any) -> tuple[int, int]:
    """An int or a list of one or two as a pair."""
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])
