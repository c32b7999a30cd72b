"""The digital nodes of a program, as their docstrings in `weave.program` say, in torch integers on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from crossloom.simulate.gather import add_codes, output_transform, output_transform_last
from crossloom.weave import (
    Add,
    AveragePool,
    Concat,
    Format,
    Input,
    Lookup,
    MaxPool,
    Multiply,
    Node,
    OutputTransform,
    Pad,
    Permute,
    Requantise,
    Rescale,
    Reshape,
    Scale,
    Slice,
    Woven,
    round_shift,
)

Tensors = Sequence[torch.Tensor]


def storage(form: Format) -> torch.dtype:
    """The narrowest torch integer that holds every code of a format."""
    if form.bits - int(form.signed) <= 7:
        return torch.int8 if form.signed else torch.uint8
    if not form.signed and form.bits == 8:
        return torch.uint8
    magnitude = form.bits - int(form.signed)
    return torch.int16 if magnitude <= 15 else torch.int32 if magnitude <= 31 else torch.int64


def stored(node: Node) -> torch.dtype:
    """The dtype that a node's codes travel in; raw accumulators, which nothing clips, in int64."""
    raw = isinstance(node, Woven) and (node.layer.output.low is None or node.layer.output.high is None)
    return torch.int64 if raw else storage(node.format)


def quantise(node: Input, x: torch.Tensor) -> torch.Tensor:
    """Real values to input codes, in float64."""
    steps = torch.floor(x.to(torch.float64) / node.format.scale + 0.5) + node.format.zero_point
    return steps.clamp(node.format.low, node.format.high).to(storage(node.format))


def finish(node: Node, y: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Clip int64 values and store them."""
    return y.clamp(low, high).to(stored(node))


def centred(x: torch.Tensor, form: Format) -> torch.Tensor:
    """x − z in int64."""
    return x.to(torch.int64) - form.zero_point


def along(values: np.ndarray, axis: int, like: torch.Tensor) -> torch.Tensor:
    """A per-channel int64 array as a tensor that broadcasts along `axis` of `like`; one element stands for all."""
    tensor = torch.from_numpy(np.asarray(values, np.int64)).to(like.device)
    return tensor if tensor.numel() == 1 else tensor.reshape([-1 if i == axis else 1 for i in range(like.dim())])


def rescaled(x: torch.Tensor, rescale: Rescale, axis: int = 1) -> torch.Tensor:
    """Rescale int64 values, factors along `axis`."""
    result: torch.Tensor = round_shift(x * along(rescale.multiplier, axis, x), along(rescale.shift, axis, x))
    return result


def apply_output(output: OutputTransform, acc: torch.Tensor, axis: int, dtype: torch.dtype) -> torch.Tensor:
    """Q on accumulators of any integer dtype with core columns along `axis`; exact in int64."""
    limits = torch.iinfo(torch.int64)
    low = limits.min if output.low is None else output.low
    high = limits.max if output.high is None else output.high
    if output.low is None or output.high is None:
        low, high = limits.min, limits.max
    outputs, zero = len(output.bias), output.format.zero_point
    if acc.device.type == "cpu":
        columns = np.arange(outputs) if output.columns is None else output.columns
        channel = [
            np.ascontiguousarray(np.broadcast_to(np.asarray(v, np.int64), (outputs,)))
            for v in (columns, output.bias, output.rescale.multiplier, output.rescale.shift)
        ]
        flat = acc.movedim(axis, 0).reshape(acc.shape[axis], -1).contiguous().numpy()
        if axis == 1:
            out = torch.empty((acc.shape[0], outputs, *acc.shape[2:]), dtype=dtype)
            output_transform(flat, *channel, zero, low, high, out.view(acc.shape[0], outputs, -1).numpy())
        else:
            out = torch.empty((*acc.shape[:-1], outputs), dtype=dtype)
            output_transform_last(flat, *channel, zero, low, high, out.view(-1, outputs).numpy())
        return out
    axis %= acc.dim()
    acc = acc.to(torch.int64)
    if output.columns is not None:
        index = torch.from_numpy(np.asarray(output.columns, np.int64)).to(acc.device)
        dropped = along(output.columns < 0, axis, acc)
        acc = acc.index_select(axis, index.clamp(min=0)).masked_fill(dropped.bool(), 0)
    y = rescaled(acc + along(output.bias, axis, acc), output.rescale, axis) + zero
    return y.clamp(low, high).to(dtype)


def _add(node: Add, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    if len(inputs) == 2 and inputs[0].device.type == "cpu" and inputs[0].shape == inputs[1].shape:
        out = torch.empty(inputs[0].shape, dtype=stored(node))
        offset = sum(f.zero_point * m for f, m in zip(forms, node.multipliers, strict=True))
        half = (1 << node.shift) >> 1
        numbers = [*node.multipliers, half - offset, node.shift, node.format.zero_point, node.low, node.high]
        flat = [x.contiguous().view(-1).numpy() for x in inputs]
        add_codes(*flat, np.array(numbers, np.int64), out.view(-1).numpy())
        return out
    total: Any = 0
    for x, form, multiplier in zip(inputs, forms, node.multipliers, strict=True):
        total = total + centred(x, form) * multiplier
    return finish(node, round_shift(total, node.shift) + node.format.zero_point, node.low, node.high)


def _multiply(node: Multiply, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    product = centred(inputs[0], forms[0]) * centred(inputs[1], forms[1])
    return finish(node, rescaled(product, node.rescale) + node.format.zero_point, node.low, node.high)


def _scale(node: Scale, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    x = centred(inputs[0], forms[0])
    y = round_shift(x * along(node.multiplier, 1, x) + along(node.offset, 1, x), along(node.shift, 1, x))
    return finish(node, y + node.format.zero_point, node.low, node.high)


def _concat(node: Concat, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    parts = [
        finish(node, rescaled(centred(x, form), rescale) + node.format.zero_point, node.low, node.high)
        for x, form, rescale in zip(inputs, forms, node.rescales, strict=True)
    ]
    return torch.cat(parts, node.axis)


def _requantise(node: Requantise, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    y = rescaled(centred(inputs[0], forms[0]), node.rescale)
    return finish(node, y + node.format.zero_point, node.low, node.high)


def _lookup(node: Lookup, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    table = torch.from_numpy(node.table.astype(np.int64)).to(inputs[0].device, stored(node))
    return table[inputs[0].to(torch.int64) - forms[0].low]


def _max_pool(node: MaxPool, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    x, (height, width) = inputs[0], node.shape[-2:]
    (kh, kw), (sy, sx), (py, px), (dy, dx) = node.kernel, node.stride, node.padding, node.dilation
    right = (width - 1) * sx + (kw - 1) * dx + 1 - px - x.shape[-1]
    bottom = (height - 1) * sy + (kh - 1) * dy + 1 - py - x.shape[-2]
    if max(px, py, right, bottom) > 0:
        x = F.pad(x, (px, max(right, 0), py, max(bottom, 0)), value=forms[0].low)
    best: torch.Tensor | None = None
    for i in range(kh):
        for j in range(kw):
            window = x[..., i * dy :: sy, j * dx :: sx][..., :height, :width]
            best = window if best is None else torch.maximum(best, window)
    assert best is not None
    return best.contiguous().to(stored(node))


def _average_pool(node: AveragePool, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    x = inputs[0]
    (top, bottom), (left, right) = (
        torch.from_numpy(np.asarray(v, np.int64)).to(x.device).T for v in (node.rows, node.columns)
    )
    table = F.pad(x, (1, 0, 1, 0)).cumsum(-2, dtype=torch.int64).cumsum(-1)
    rows = table[..., bottom, :] - table[..., top, :]
    sums = rows[..., right] - rows[..., left]
    sums = sums - forms[0].zero_point * ((bottom - top)[:, None] * (right - left))
    factors = [torch.from_numpy(v).to(x.device) for v in (node.rescale.multiplier, node.rescale.shift)]
    multiplier, shift = (f if f.numel() == 1 else f.reshape(sums.shape[-2:]) for f in factors)
    return finish(node, round_shift(sums * multiplier, shift) + node.format.zero_point, node.low, node.high)


def _reshape(node: Reshape, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    return inputs[0].reshape(len(inputs[0]), *node.shape)


def _permute(node: Permute, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    return inputs[0].permute(node.axes)


def _slice(node: Slice, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    index = [slice(None)] * inputs[0].dim()
    index[node.axis] = slice(node.start, node.stop, node.step)
    return inputs[0][tuple(index)]


def _pad(node: Pad, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    (top, bottom, left, right), (front, back) = node.padding, node.channels
    return F.pad(inputs[0].to(stored(node)), (left, right, top, bottom, front, back), value=node.code)


_RULES: dict[type[Node], Callable[[Any, Tensors, Sequence[Format]], torch.Tensor]] = {
    Add: _add, Multiply: _multiply, Scale: _scale, Concat: _concat, Requantise: _requantise, Lookup: _lookup,
    MaxPool: _max_pool, AveragePool: _average_pool, Reshape: _reshape, Permute: _permute, Slice: _slice, Pad: _pad,
}  # fmt: skip


def evaluate(node: Node, inputs: Tensors, forms: Sequence[Format]) -> torch.Tensor:
    """The codes that a digital node makes of its inputs' codes.

    Args:
        node: any node but `Input` and `Woven`.
        inputs: codes, batch first.
        forms: the inputs' formats.
    """
    return _RULES[type(node)](node, inputs, forms)
