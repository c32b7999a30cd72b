"""A step of approximation-aware training beside the same network dense: `pytest benchmarks/test_approximation.py`.

Both are quantised (8 bits, the quantisers' defaults) and take whole steps of SGD: forward, backward, update. Ratios
are in `extra_info`, by order and n of every layer that they fit; the goal is 1.15.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from crossloom.codesign.plan_search import settings_of
from crossloom.frontend import calibrate, convert
from crossloom.methods import Approximation, Setting
from crossloom.training import build_network
from crossloom.training.memory import kept_memory

GOAL = 1.15
SETTINGS = {
    "linear, n = 4": Setting(order=1, group=4), "linear, n = 9": Setting(order=1, group=9),
    "quadratic, n = 9": Setting(order=2, group=9),
}  # fmt: skip


def step_of(network: str, shape: tuple[int, int, int], batch: int, setting: Setting | None) -> Callable[[], None]:
    """A training step."""
    torch.manual_seed(0)
    x, y = torch.randn(batch, *shape), torch.randint(0, 100, (batch,))
    module = convert(build_network(network, 100, shape).eval(), x[:2])
    if setting is not None:
        fitting = settings_of(module, [setting])
        Approximation({name: setting for name, options in fitting.items() if len(options) > 1}).prepare(module)
    calibrate(module, [x])
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimiser.step()

    return step


@pytest.mark.parametrize(
    ("network", "shape", "batch", "rounds"),
    [
        ("lenet5", (1, 28, 28), 128, 40), ("lenet5", (3, 32, 32), 128, 40), ("vgg8", (3, 32, 32), 16, 5),
        ("alexnet", (3, 32, 32), 16, 3), ("resnet18-cifar", (3, 32, 32), 16, 5),
    ],
)  # fmt: skip
def test_step(benchmark: Any, network: str, shape: tuple[int, int, int], batch: int, rounds: int) -> None:
    dense = step_of(network, shape, batch, None)
    with kept_memory():  # as in `fit`; without, LeNet-5's step is one of two, a fifth apart, as memory happens to lie
        dense()
        for name, setting in SETTINGS.items():
            ours = step_of(network, shape, batch, setting)
            ours()
            best = {dense: float("inf"), ours: float("inf")}
            for _ in range(rounds):
                for step in best:
                    start = time.perf_counter()
                    step()
                    best[step] = min(best[step], time.perf_counter() - start)
            benchmark.extra_info[name] = round(best[ours] / best[dense], 3)
        benchmark.pedantic(dense, rounds=1)
    assert max(benchmark.extra_info.values()) <= GOAL
