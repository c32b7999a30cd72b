"""Convolutions over small maps as matrix products, in bfloat16 training on a CPU.

The last stages of VGG and ResNet on 32 × 32 images convolve maps of 4 × 4 and 2 × 2 with hundreds of channels. The
library's direct convolutions are made for large maps: on such small ones they take 2 to 20 times as long as the product
of the unfolded input with the weights, most of all for the weights' gradient. Unfolding a small map costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

LARGEST = 16
"""Positions of a small map."""
NARROWEST = 64
"""Channels on either side below which unfolding costs as much as it saves."""


class SmallMaps(TorchFunctionMode):
    """Inside, convolutions of stride 1 over small maps are matrix products where autocast to bfloat16 is on."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """`func`, or the product in its place."""
        kwargs = kwargs or {}
        if func is F.conv2d and not kwargs and suits(*args):
            return _Product.apply(*args[:2], args[2] if len(args) > 2 else None, *padding_of(args))
        return func(*args, **kwargs)


def suits(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> bool:  # fmt: skip
    """Whether a call of `conv2d` with these arguments is one that the product is faster for."""
    if x.device.type != "cpu" or x.dim() != 4 or not torch.is_autocast_enabled("cpu"):
        return False
    if torch.get_autocast_dtype("cpu") != torch.bfloat16 or isinstance(padding, str) or groups != 1:
        return False
    if any(value != 1 for option in (stride, dilation) for value in pair(option)):
        return False
    height, width = (x.shape[2 + i] + 2 * pair(padding)[i] - weight.shape[2 + i] + 1 for i in range(2))
    wide = min(weight.shape[:2]) >= NARROWEST and weight.shape[2] * weight.shape[3] > 1
    reach = all(p < k for p, k in zip(pair(padding), weight.shape[2:], strict=True))
    return wide and reach and min(height, width) > 0 and height * width <= LARGEST


def padding_of(args: Sequence[Any]) -> tuple[int, int]:
    """(rows, columns) of zeros on every side in a call of `conv2d`."""
    return pair(args[4]) if len(args) > 4 else (0, 0)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """An option of a convolution for both axes."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def patches(x: Float[Tensor, "B C H W"], kernel: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """The input vectors of every position, [B·H'·W', k_h·k_w·C]: kernel position outside, channel inside."""
    (kh, kw), (ph, pw) = kernel, padding
    held = F.pad(x.permute(0, 2, 3, 1), (0, 0, pw, pw, ph, ph)).contiguous()
    count, height, width, channels = held.shape
    at = held.stride()
    shape = (count, height - kh + 1, width - kw + 1, kh, kw, channels)
    return held.as_strided(shape, (at[0], at[1], at[2], at[1], at[2], at[3])).reshape(-1, kh * kw * channels)


def maps(y: Float[Tensor, "vectors N"], batch: int, height: int) -> Float[Tensor, "B N H W"]:
    """Vectors of positions as maps, channels last in memory."""
    return y.view(batch, height, -1, y.shape[1]).permute(0, 3, 1, 2)


class _Product(torch.autograd.Function):
    """conv2d(x, weight, bias) of stride 1 in bfloat16 with sums in float32, forward and all gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, ph: int, pw: int) -> Tensor:
        x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        ctx.save_for_backward(x, weight)
        ctx.padding = (ph, pw)
        kernel = (weight.shape[2], weight.shape[3])
        vectors, matrix = patches(x, kernel, (ph, pw)), weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        y = F.linear(vectors, matrix, None if bias is None else bias.to(torch.bfloat16))
        return maps(y, len(x), x.shape[2] + 2 * ph - kernel[0] + 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (ph, pw), (outputs, inputs, kh, kw) = ctx.padding, weight.shape
        given = gradient.to(torch.bfloat16)
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:  # the gradient's patches with the kernel turned round
            turned = weight.flip(2, 3).permute(1, 2, 3, 0).reshape(inputs, -1)
            for_x = maps(patches(given, (kh, kw), (kh - 1 - ph, kw - 1 - pw)) @ turned.T, len(x), x.shape[2])
        if ctx.needs_input_grad[1]:
            vectors = given.permute(0, 2, 3, 1).reshape(-1, outputs)
            for_weight = (vectors.T @ patches(x, (kh, kw), (ph, pw))).view(outputs, kh, kw, inputs).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            for_bias = given.sum((0, 2, 3))
        return for_x, for_weight, for_bias, None, None
