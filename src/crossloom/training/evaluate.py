"""Accuracy of a network, without a trainer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


def evaluate(
    network: nn.Module,
    loader: Iterable[tuple[Float[Tensor, "B C H W"], Int64[Tensor, " B"]]],
    device: str | torch.device | None = None,
) -> float:
    """Fraction of images whose largest logit is the label's.

    The network runs in evaluation mode and comes back in the modes and on the device it had. Where two logits are
    equally large the first counts.

    Args:
        network: images [B, C, H, W] → logits [B, classes].
        loader: batches of images and labels.
        device: where to run; default where the network is.

    Raises:
        ValueError: the loader gives no images.
    """
    parameter = next(network.parameters(), None)
    home = parameter.device if parameter is not None else torch.device("cpu")
    place = torch.device(device) if device is not None else home
    modes = {module: module.training for module in network.modules()}
    correct = torch.zeros((), dtype=torch.int64, device=place)
    count = 0
    network.eval().to(place)
    try:
        with torch.no_grad():
            for images, labels in loader:
                correct += (network(images.to(place)).argmax(1) == labels.to(place)).sum()
                count += len(labels)
    finally:
        network.to(home)
        for module, training in modes.items():
            module.training = training
    if not count:
        raise ValueError("evaluate: the loader gave no images")
    return int(correct) / count
