"""Residual networks: ResNet-18 with both stems, and the thin CIFAR ResNets with parameter-free shortcuts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.training.architectures.common import ImageShape, kaiming


class ShortcutA(nn.Module):
    """He et al.'s option A: every second row and column, new channels filled with zeros, no weights."""

    def __init__(self, added: int) -> None:
        """`added` channels of zeros, half of them before and half after the ones there are."""
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C + added, ⌈H/2⌉, ⌈W/2⌉]."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut around them."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        """From `channels` to `width` channels; `stride` is that of the first convolution (2 halves the map)."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Identity() if stride == 1 else ShortcutA(width - channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, width, ⌈H/stride⌉, ⌈W/stride⌉]."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class ThinResNet(nn.Module):
    """ResNet-(6n+2) for CIFAR: three stages of n blocks with 16, 32 and 64 channels."""

    def __init__(self, blocks: int, classes: int, image_shape: ImageShape) -> None:
        """`blocks` = n per stage."""
        super().__init__()
        channels, height, width = image_shape
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = self.stage(16, 16, blocks)
        self.layer2 = self.stage(16, 32, blocks)
        self.layer3 = self.stage(32, 64, blocks)
        self.pool = nn.AvgPool2d((-(-height // 4), -(-width // 4)))
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, classes)
        kaiming(self)

    @staticmethod
    def stage(channels: int, width: int, blocks: int) -> nn.Sequential:
        """`blocks` blocks; the first one halves the map where the width changes."""
        first = Block(channels, width, 1 if channels == width else 2)
        return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] → logits [B, classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.flatten(self.pool(x)))
        return logits


def resnet20(classes: int, image_shape: ImageShape) -> nn.Module:
    """ResNet-20 for CIFAR, shortcut option A.

    Source: He et al., CVPR 2016, section 4.2; child names as in akamaster/pytorch_resnet_cifar10.
    """
    return ThinResNet(3, classes, image_shape)


def resnet56(classes: int, image_shape: ImageShape) -> nn.Module:
    """ResNet-56 for CIFAR, shortcut option A. Source: as `resnet20`."""
    return ThinResNet(9, classes, image_shape)


def resnet18(classes: int, image_shape: ImageShape) -> nn.Module:
    """ResNet-18 with the ImageNet stem (7×7 stride 2, max-pool), torchvision's own.

    Source: He et al., CVPR 2016, table 1.
    """
    from torchvision.models import resnet18 as torchvision_resnet18

    if min(image_shape[1:]) < 32:
        raise InputError("image_shape", image_shape, "images of at least 32×32 for resnet18; resnet18-cifar takes less")
    network: nn.Module = torchvision_resnet18(weights=None, num_classes=classes)
    if image_shape[0] != 3:
        network.conv1 = nn.Conv2d(image_shape[0], 64, 7, 2, 3, bias=False)
    return network


def resnet18_cifar(classes: int, image_shape: ImageShape) -> nn.Module:
    """ResNet-18 with the stem used on CIFAR: 3×3 stride 1, no pooling.

    Source: as `resnet18`; the stem as in kuangliu/pytorch-cifar.
    """
    from torchvision.models import resnet18 as torchvision_resnet18

    network: nn.Module = torchvision_resnet18(weights=None, num_classes=classes)
    stem = nn.Conv2d(image_shape[0], 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.conv1, network.maxpool = stem, nn.Identity()
    return network
