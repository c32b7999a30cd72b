"""Your own network on your own chip: train, compile, simulate, cost.

The network is plain PyTorch, the images are scikit-learn's scanned digits, and the chip is a hardware file.
Run it with `python examples/01_compile_and_simulate.py`.
"""

from pathlib import Path

import torch
from torch import nn

import crossloom
from crossloom.training import Loader, load_dataset

HERE = Path(__file__).parent


def digits() -> tuple[Loader, Loader]:
    """Batches of training and test images, (images [B, 1, 32, 32], labels [B])."""
    data = load_dataset("digits")
    return Loader(data.train, data.normalisation, 64), Loader(data.test, data.normalisation, 64)


def network() -> nn.Module:
    """Two convolutions and a classifier."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def train(model: nn.Module, batches: Loader, epochs: int, lr: float = 2e-3) -> None:
    """An ordinary PyTorch loop."""
    optimiser = torch.optim.Adam(model.parameters(), lr)
    model.train()
    for _ in range(epochs):
        for images, labels in batches:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimiser.step()
    model.eval()


def main() -> None:
    torch.manual_seed(0)
    training, test = digits()
    model = network()
    train(model, training, epochs=3)

    chip = crossloom.compile(model, hardware=HERE / "my_chip.yaml", calibration=training)
    print(chip)
    for rung in ("float", "integer", "crossbar"):
        print(chip.accuracy(test, rung))
    print(chip.cost().table())

    # The converters of this chip are lossless, so the crossbars compute what integer arithmetic does, bit for bit.
    images, _ = next(iter(test))
    assert chip.hardware.array.lossless
    assert torch.equal(chip.logits(images, "crossbar"), chip.logits(images, "integer"))


if __name__ == "__main__":
    main()
