"""Small odd networks that between them use every operator the frontend knows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Grouped(nn.Module):
    """Grouped, depthwise, dilated, strided and padded convolutions on odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding="same", dilation=2)
        self.b = nn.Conv2d(8, 8, 3, groups=8, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.c = nn.Conv2d(8, 12, (1, 3), groups=4, padding=(0, 1))
        self.d = nn.Conv2d(12, 6, 2, padding="same")
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.a(x))
        x = F.relu(self.norm(self.b(x)))
        x = F.hardtanh(self.c(x), -0.5, 0.5)
        x = self.d(x).relu()
        return self.fc(x.mean((2, 3)))


class Shared(nn.Module):
    """A module used twice, residual adds, concatenation, in-place operators, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.block = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.3)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(12 * 3 * 3, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        y = self.act(self.norm(self.block(x)))
        z = self.block(y)
        z += x
        z = torch.cat([self.act(z), y - x], 1)
        z = F.avg_pool2d(z, 3, stride=3, padding=1, count_include_pad=False, ceil_mode=True)
        z = F.adaptive_avg_pool2d(z, (3, 3))
        return self.head(self.drop(torch.flatten(z, 1)))


class Functions(nn.Module):
    """Tables, products, numbers, one-element constants, preactivation batch norm, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.prelu = nn.PReLU()
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.gain = nn.Parameter(torch.tensor([1.5]))
        self.body = nn.Conv2d(8, 8, 3, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x * 2 + 0.25))
        x = self.prelu(self.norm(x)) * self.gain
        gate = F.adaptive_avg_pool2d(x, 1)
        x = x * torch.sigmoid(self.squeeze(gate))
        x = F.leaky_relu(F.gelu(self.body(x)), 0.2)
        x = F.max_pool2d(x, 3, 2, padding=1, ceil_mode=True)
        return self.head(F.hardswish(x.mean([2, 3], keepdim=True)).flatten(1))


class Moves(nn.Module):
    """Channel shuffle, splits, slices, pads, a convolution as the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(10, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(F.pad(x, (1, 0, 2, 1))))
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, F.relu(self.b(right))], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = F.pad(x[:, :, ::2, 1:], (0, 0, 0, 0, 1, 1))
        return self.last(F.adaptive_max_pool2d(x, 1) if False else F.avg_pool2d(x, x.shape[-2:])).flatten(1)


class Vectors(nn.Module):
    """An MLP with batch norm, no image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(11, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh())
        self.out = nn.Linear(16, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(x))


class OptionA(nn.Module):
    """The parameter-free shortcut of CIFAR ResNets: stride two and zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.norm(self.conv(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(F.relu(y).mean((2, 3)))


SHAPES = {
    Grouped: (3, 13, 11), Shared: (3, 11, 11), Functions: (3, 17, 15), Moves: (3, 10, 12), Vectors: (11,),
    OptionA: (3, 9, 9),
}  # fmt: skip


def settled(module: nn.Module, shape: tuple[int, ...], seed: int = 0, rounds: int = 20) -> nn.Module:
    """The module with random weights and batch-norm statistics of `rounds` batches of random data."""
    torch.manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.weight, -0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            norm.momentum = None  # plain averages
    module.train()
    with torch.no_grad():
        for _ in range(rounds):
            module(torch.randn(32, *shape))
    return module.eval()
