"""Fake quantisation in one pass over memory, compiled: what takes torch eight passes and as many temporaries.

A quantised training step spends as long in its quantisers as in its convolutions when every operation reads and writes
the whole tensor. Here a value is read once, and its grid point and a flag are written. Float32 gives the bits that the
torch operations give; bfloat16 is computed in float32 and rounded once, to the nearest, ties to even.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

FEWEST = 1 << 14
"""Values below which torch's operations are as fast."""
BLOCK = 1 << 15
"""Values of one thread's task."""
OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.uint16}
"""The integers that carry a type's bits into compiled code, which knows no bfloat16."""


def suits(x: Tensor, scale: Tensor) -> bool:
    """Whether `quantised` takes these tensors: float32 or bfloat16 on a CPU, dense, one step or one per index of the
    axis that is outermost in memory.
    """
    if x.device.type != "cpu" or x.dtype not in BITS or x.numel() < FEWEST or scale.dtype != torch.float32:
        return False
    axes = outermost_first(x)
    return x.permute(axes).is_contiguous() and (scale.numel() == 1 or (axes[0] == 0 and scale.numel() == len(x)))


def outermost_first(x: Tensor) -> list[int]:
    """The axes by stride, the longest first."""
    return sorted(range(x.dim()), key=x.stride, reverse=True)


def flat(x: Tensor, rows: int = 1) -> Tensor:
    """The values of a dense tensor in the order in which they lie, [rows, values], without a copy."""
    return x.permute(outermost_first(x)).reshape(rows, -1)


def quantised(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int, flags: bool) -> tuple[Tensor, Tensor | None]:
    """(clip(⌊x/s + ½⌋ + z, low, high) − z)·s, and where the clip left the code alone, in the layout of x.

    Args:
        x: of any shape; `suits(x, scale)`.
        scale: float32, one step or one per index of axis 0.
        zero: the zero point, one value.
        low: the lowest code.
        high: the highest code.
        flags: whether the second result is wanted.
    """
    made = torch.empty_like(x)
    inside = torch.empty_like(x, dtype=torch.bool) if flags else None
    rows, kind = scale.numel(), BITS[x.dtype]
    shown = np.empty((rows, 0), np.bool_) if inside is None else flat(inside, rows).numpy()
    levels = (np.float32(low), np.float32(high), np.float32(float(zero)))
    values, grid = flat(x.detach(), rows), flat(made, rows)
    if kind is torch.uint16:
        values, grid = values.view(kind), grid.view(kind)
    steps = scale.detach().reshape(-1).contiguous().numpy()
    run(KERNELS[kind], values.numpy(), grid.numpy(), shown, steps, *levels)
    return made, inside


def passed(gradient: Tensor, inside: Tensor) -> Tensor:
    """The gradient where `inside`, elsewhere 0."""
    alike = gradient.stride() == inside.stride() and gradient.permute(outermost_first(gradient)).is_contiguous()
    if gradient.device.type != "cpu" or gradient.dtype not in BITS or gradient.numel() < FEWEST or not alike:
        return gradient * inside
    made, kind = torch.empty_like(gradient), BITS[gradient.dtype]
    run(GATES, flat(gradient.detach()).view(kind).numpy(), flat(inside).numpy(), flat(made).view(kind).numpy())
    return made


def run(kernels: tuple[Any, Any], *arguments: Any) -> None:
    """The serial or the parallel form of a kernel, by torch's number of threads."""
    wanted = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    if wanted == 1 or arguments[0].size <= BLOCK:
        kernels[0](*arguments)
        return
    before = numba.get_num_threads()
    numba.set_num_threads(wanted)
    try:
        kernels[1](*arguments)
    finally:
        numba.set_num_threads(before)


@njit(inline="always")
def _bfloat(bits):
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@njit(inline="always")
def _rounded(value):
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


def _kernels(bfloat: bool) -> tuple[Any, Any]:
    """(serial, parallel) for one type."""

    @njit(**OPTIONS)
    def piece(x, made, inside, flags, step, low, high, zero):
        for j in range(len(x)):
            value = _bfloat(x[j]) if bfloat else x[j]
            code = np.floor(value / step + np.float32(0.5)) + zero
            kept = low if code < low else code
            kept = high if kept > high else kept
            if flags:
                inside[j] = kept == code
            value = (kept - zero) * step
            made[j] = _rounded(value) if bfloat else value

    def kernel(x, made, inside, scale, low, high, zero):
        rows, width = x.shape
        blocks = (width + BLOCK - 1) // BLOCK
        flags = inside.shape[1] > 0
        for task in prange(rows * blocks):
            row, start = task // blocks, (task % blocks) * BLOCK
            stop = min(start + BLOCK, width)
            within = inside[row, start:stop] if flags else inside[row, :0]
            piece(x[row, start:stop], made[row, start:stop], within, flags, scale[row], low, high, zero)

    return njit(**OPTIONS)(kernel), njit(parallel=True, **OPTIONS)(kernel)


@njit(**OPTIONS)
def _gated(gradient, inside, made):
    for j in range(len(gradient)):
        made[j] = gradient[j] if inside[j] else gradient.dtype.type(0)


def _gate(gradient, inside, made):
    width = gradient.shape[1]
    for task in prange((width + BLOCK - 1) // BLOCK):
        start = task * BLOCK
        stop = min(start + BLOCK, width)
        _gated(gradient[0, start:stop], inside[0, start:stop], made[0, start:stop])


KERNELS = {torch.int32: _kernels(False), torch.uint16: _kernels(True)}
GATES = njit(**OPTIONS)(_gate), njit(parallel=True, **OPTIONS)(_gate)
