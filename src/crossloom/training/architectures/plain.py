"""Chains of convolutions without shortcuts: VGG8, VGG-16, AlexNet."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from crossloom.training.architectures.common import ImageShape, feature_shape, kaiming

VGG8 = (128, 128, "pool", 256, 256, "pool", 512, 512, "pool")
VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")
"""Output channels of each 3×3 convolution, and the 2×2 max-pools between."""

IMAGENET_SIDE = 63
"""Smallest image side that AlexNet's ImageNet stem (stride 4, three pools) can take."""


def vgg_features(channels: int, plan: tuple[int | str, ...]) -> nn.Sequential:
    """3×3 convolution, batch norm and ReLU for each number of the plan, max-pooling for each "pool"."""
    layers: list[nn.Module] = []
    for width in plan:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def vgg8(classes: int, image_shape: ImageShape) -> nn.Module:
    """NeuroSim's VGG8: six 3×3 convolutions of 128 to 512 channels, 1024 units.

    Source: DNN+NeuroSim V1.x (Peng et al., IEDM 2019), with batch norm in place of its fixed per-layer scales.
    """
    features = vgg_features(image_shape[0], VGG8)
    inputs = math.prod(feature_shape("vgg8", features, image_shape))
    classifier = nn.Sequential(nn.Linear(inputs, 1024), nn.ReLU(), nn.Linear(1024, classes))
    network = nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier))
    kaiming(network)
    return network


def vgg16(classes: int, image_shape: ImageShape) -> nn.Module:
    """VGG-16 as usual on CIFAR: thirteen 3×3 convolutions with batch norm, one classifier on 512 features.

    Source: Simonyan and Zisserman, ICLR 2015, configuration D; the single classifier as in kuangliu/pytorch-cifar.
    """
    features = vgg_features(image_shape[0], VGG16)
    inputs = math.prod(feature_shape("vgg16", features, image_shape))
    classifier = nn.Linear(inputs, classes)
    network = nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier))
    kaiming(network)
    return network


def alexnet(classes: int, image_shape: ImageShape) -> nn.Module:
    """AlexNet with its large classifier: 64-192-384-256-256 maps, 9216 features, 4096 and 4096 units.

    On images of at least 63×63 this is torchvision's network (224×224 gives the 9216 features). On smaller images
    the first convolution has stride 1 and padding 4 and the third pool is left out, which turns 32×32 into the same
    256×6×6 = 9216 features, so every layer has the same weights on both.
    Source: Krizhevsky, arXiv 1404.5997, as in torchvision.
    """
    large = min(image_shape[1:]) >= IMAGENET_SIDE
    stride, padding = (4, 2) if large else (1, 4)
    layers: list[nn.Module] = [
        nn.Conv2d(image_shape[0], 64, 11, stride, padding), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    features = nn.Sequential(*layers, *([nn.MaxPool2d(3, 2)] if large else []))
    inputs = math.prod(feature_shape("alexnet", features, image_shape))
    classifier = nn.Sequential(
        nn.Dropout(0.5), nn.Linear(inputs, 4096), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes),
    )  # fmt: skip
    network = nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier))
    kaiming(network)
    return network
