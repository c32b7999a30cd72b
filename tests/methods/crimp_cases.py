"""Networks that CRIMP's tests share."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

import crossloom
from crossloom.frontend import calibrate, convert
from crossloom.methods.power_of_two import PowerOfTwoIntegers


class Residual(nn.Module):
    """A skip path over two convolutions, a second one that pads channels, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.norm1 = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.outer, self.norm2 = nn.Conv2d(12, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.wide, self.norm3 = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm0(self.stem(x)))
        y = torch.relu(self.norm1(self.inner(x)))
        x = torch.relu(self.norm2(self.outer(y)) + x)
        padded = nn.functional.pad(x, (0, 0, 0, 0, 4, 4))
        x = torch.relu(self.norm3(self.wide(x)) + padded)
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def lenet() -> nn.Module:
    """A small LeNet without batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), nn.Conv2d(6, 20, 3), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 10),
    )  # fmt: skip


def images(shape: tuple[int, ...], count: int = 8, seed: int = 0) -> Tensor:
    """Non-negative images."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def integers(model: nn.Module, x: Tensor, seed: int = 0, double: bool = False, **options: object) -> fx.GraphModule:
    """The model with random weights and shifts, converted to power-of-two integers and calibrated."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3 + (0.7 if name.startswith("norm") else 0.0))
    if double:
        model, x = model.double(), x.double()
    module = convert(model.eval(), x[:2])
    PowerOfTwoIntegers(**options).prepare(module)  # type: ignore[arg-type]
    calibrate(module, [x])
    return module


__all__ = ["Residual", "crossloom", "images", "integers", "lenet"]
