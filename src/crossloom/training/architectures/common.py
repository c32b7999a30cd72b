"""What the families share: the size of a feature map, found by asking the layers."""

from __future__ import annotations

import torch
from torch import nn

from crossloom.errors import InputError

ImageShape = tuple[int, int, int]
"""(channels, height, width)."""


def feature_shape(network: str, features: nn.Module, image_shape: ImageShape) -> ImageShape:
    """Shape [C, H, W] that `features` makes of one image.

    Raises:
        InputError: images of this shape do not fit (too small for the pooling).
    """
    training = features.training
    try:
        with torch.no_grad():
            channels, height, width = features.eval()(torch.zeros(1, *image_shape)).shape[1:]
    except RuntimeError as error:
        raise InputError("image_shape", image_shape, f"images that {network} can take ({error})") from error
    finally:
        features.train(training)
    return channels, height, width


def kaiming(module: nn.Module) -> None:
    """He initialisation of every convolution and linear layer (He et al., ICCV 2015), biases zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
