"""From a tensor of codes to input vectors and back: im2col with the input's zero point around the border."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from crossloom.errors import InputError
from crossloom.weave import Convolution, WovenLayer


@dataclass(frozen=True)
class Fold:
    """How the input vectors of one layer lie in a tensor.

    Attributes:
        batch: leading axes of the tensor: (B,) for a convolution, all but the last for a linear layer.
        inputs: K, over all groups.
        convolution: geometry, or None for a linear layer.
        channels: C of a convolution's input.
        size: (H, W) of the input, (1, 1) for a linear layer.
        output_size: (H', W'), (1, 1) for a linear layer.
        fill: the code around the border.
    """

    batch: tuple[int, ...]
    inputs: int
    convolution: Convolution | None
    channels: int
    size: tuple[int, int]
    output_size: tuple[int, int]
    fill: int

    @staticmethod
    def of(layer: WovenLayer, shape: tuple[int, ...]) -> Fold:
        """The fold of a layer's input of a given shape, batch included.

        Raises:
            InputError: a shape that the layer cannot take.
        """
        zero, geometry = layer.input_format.zero_point, layer.convolution
        if geometry is None:
            if len(shape) < 2 or shape[-1] != layer.inputs:
                raise InputError(f"{layer.name}: input shape", shape, f"(batch, …, {layer.inputs})")
            return Fold(shape[:-1], layer.inputs, None, layer.inputs, (1, 1), (1, 1), zero)
        if len(shape) != 4 or shape[1] != layer.in_channels:
            raise InputError(f"{layer.name}: input shape", shape, f"(batch, {layer.in_channels}, height, width)")
        size = (shape[2], shape[3])
        return Fold(shape[:1], layer.inputs, geometry, shape[1], size, geometry.output_size(*size), zero)

    @property
    def positions(self) -> int:
        """Number of input vectors."""
        count = self.output_size[0] * self.output_size[1]
        for length in self.batch:
            count *= length
        return count

    def vectors(self, x: torch.Tensor) -> torch.Tensor:
        """The input vectors (positions, K) in the dtype of `x`, on its device; for a convolution k = (c, k_y, k_x)."""
        if self.convolution is None:
            return x.reshape(-1, self.inputs)
        geometry = self.convolution
        top, bottom, left, right = geometry.padding
        x = F.pad(x, (left, right, top, bottom), value=self.fill)
        (kh, kw), (sy, sx), (dy, dx) = geometry.kernel, geometry.stride, geometry.dilation
        b, c = x.shape[:2]
        height, width = self.output_size
        strides = x.stride()
        windows = x.as_strided(
            (b, height, width, c, kh, kw),
            (strides[0], sy * strides[2], sx * strides[3], strides[1], dy * strides[2], dx * strides[3]),
        )
        return windows.reshape(b * height * width, c * kh * kw)

    def accumulators(self, acc: torch.Tensor) -> torch.Tensor:
        """Accumulators (positions, columns) in the layer's output layout: columns on axis 1 for a convolution."""
        if self.convolution is None:
            return acc.reshape(*self.batch, -1)
        return acc.reshape(*self.batch, *self.output_size, -1).permute(0, 3, 1, 2)
