"""LeNet-5 in three published sizes, and a multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from crossloom.training.architectures.common import ImageShape, feature_shape


def lenet5(classes: int, image_shape: ImageShape) -> nn.Module:
    """LeNet-5 with 6 and 16 maps, 120 and 84 units, ReLU and max-pooling.

    28×28 images are padded to LeNet's 32×32 by the first convolution. Source: LeCun et al., Proc. IEEE 86(11), 1998,
    with ReLU for tanh and full connection between the two convolutions.
    """
    padding = 2 if image_shape[1] < 32 else 0
    features = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(image_shape[0], 6, 5, padding=padding), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
        )
    )  # fmt: skip
    inputs = math.prod(feature_shape("lenet5", features, image_shape))
    classifier = OrderedDict(
        flatten=nn.Flatten(), fc1=nn.Linear(inputs, 120), relu3=nn.ReLU(), fc2=nn.Linear(120, 84), relu4=nn.ReLU(),
        fc3=nn.Linear(84, classes),
    )  # fmt: skip
    return nn.Sequential(OrderedDict(features.named_children()) | classifier)


def lenet5_caffe(classes: int, image_shape: ImageShape) -> nn.Module:
    """Caffe's LeNet: 20 and 50 maps, 500 units; no activation after the convolutions, as in Caffe.

    Source: BVLC Caffe, examples/mnist/lenet.prototxt.
    """
    features = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(image_shape[0], 20, 5), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5), pool2=nn.MaxPool2d(2),
        )
    )  # fmt: skip
    inputs = math.prod(feature_shape("lenet5-caffe", features, image_shape))
    classifier = OrderedDict(
        flatten=nn.Flatten(), ip1=nn.Linear(inputs, 500), relu1=nn.ReLU(), ip2=nn.Linear(500, classes)
    )
    return nn.Sequential(OrderedDict(features.named_children()) | classifier)


def lenet5_webmnist(classes: int, image_shape: ImageShape) -> nn.Module:
    """A small LeNet: 8 and 16 maps, 128 and 64 units. Source: Adem-rahal/WebMnist (MIT)."""
    convolutions = nn.Sequential(
        nn.Conv2d(image_shape[0], 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
    )  # fmt: skip
    inputs = math.prod(feature_shape("lenet5-webmnist", convolutions, image_shape))
    classifier = nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes))
    return nn.Sequential(OrderedDict(convolutions=convolutions, flatten=nn.Flatten(), classifier=classifier))


def mlp(classes: int, image_shape: ImageShape) -> nn.Module:
    """A perceptron with hidden layers of 256 and 128 units."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(), fc1=nn.Linear(math.prod(image_shape), 256), relu1=nn.ReLU(),
            fc2=nn.Linear(256, 128), relu2=nn.ReLU(), fc3=nn.Linear(128, classes),
        )
    )  # fmt: skip
