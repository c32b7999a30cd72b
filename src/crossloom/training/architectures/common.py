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
    """He initialisation (He et al., ICCV 2015) of every convolution and linear layer but the last one, biases zero.

    The last layer keeps torch's smaller default, so that the first loss of a chain of layers is near that of guessing,
    the logarithm of the number of classes. (Sums of residual blocks grow with depth: ResNet-56 starts at 3.3.)
    """
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    for layer in layers[:-1]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
