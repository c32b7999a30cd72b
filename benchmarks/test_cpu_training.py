"""What three shortcuts save of a training step on a CPU: `pytest benchmarks/test_cpu_training.py --benchmark-only -s`;
and what bfloat16 saves, which is a loss where the CPU has no AMX.

Whole steps (forward, backward, update), the same step with and without the shortcut in turns, the best of each: the
quantisers' one pass over memory in place of torch's operations, small maps convolved as matrix products, memory kept
from step to step. Training is in bfloat16 (`bf16-mixed`), channels last, on one thread. Ratios are in `extra_info`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from crossloom.frontend import calibrate, convert
from crossloom.nn import fused
from crossloom.training import build_network
from crossloom.training.memory import kept_memory
from crossloom.training.small_maps import SmallMaps

Shortcut = Callable[[], AbstractContextManager[Any]]


@contextmanager
def many_passes() -> Iterator[None]:
    """Quantisers and their gradients by torch's operations."""
    with patch.object(fused, "suits", lambda *_: False), patch.object(fused, "passed", lambda g, inside: g * inside):
        yield


def step_of(network: str, batch: int, quantised: bool, bfloat16: bool = True) -> Callable[[], None]:
    """A training step."""
    torch.manual_seed(0)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    module = build_network(network, 10, (3, 32, 32))
    if quantised:
        module = convert(module.eval(), x[:2])
        calibrate(module, [x[:32]])
    module.train().to(memory_format=torch.channels_last)
    images = x.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = F.cross_entropy(module(images).float(), y)
        loss.backward()
        optimiser.step()

    return step


def compared(
    benchmark: Any, step: Callable[[], None], without: Shortcut, within: Shortcut, rounds: int = 4, warm: int = 1
) -> None:
    """Time both ways in turns, each behind steps that are not timed."""
    best = {"without": float("inf"), "with": float("inf")}
    for _ in range(rounds):
        for name, context in (("without", without), ("with", within)):
            with context():
                for _ in range(warm):
                    step()
                start = time.perf_counter()
                step()
                best[name] = min(best[name], time.perf_counter() - start)
    benchmark.extra_info.update({f"{name} [s]": round(value, 3) for name, value in best.items()})
    benchmark.extra_info["times as fast"] = round(best["without"] / best["with"], 2)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
    with within():
        benchmark.pedantic(step, rounds=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("network", ["resnet20", "resnet56", "resnet18-cifar", "vgg16"])
def test_one_pass(benchmark: Any, network: str) -> None:
    compared(benchmark, step_of(network, 128, True), many_passes, nullcontext)


@pytest.mark.parametrize("network", ["resnet18-cifar", "vgg16"])
def test_small_maps(benchmark: Any, network: str) -> None:
    compared(benchmark, step_of(network, 128, False), nullcontext, SmallMaps)


@pytest.mark.parametrize("network", ["lenet5", "resnet56", "resnet18-cifar", "vgg16", "alexnet"])
def test_kept_memory(benchmark: Any, network: str) -> None:
    compared(benchmark, step_of(network, 128, True), nullcontext, kept_memory, warm=4)


@pytest.mark.parametrize("network", ["resnet20", "resnet56", "resnet18-cifar", "vgg16"])
def test_bfloat16(benchmark: Any, network: str) -> None:
    """float32 is "without"."""
    steps = [step_of(network, 128, False, bfloat16) for bfloat16 in (False, True)]
    now = [0]

    @contextmanager
    def in_float32() -> Iterator[None]:
        now[0] = 0
        yield

    @contextmanager
    def in_bfloat16() -> Iterator[None]:
        now[0] = 1
        with SmallMaps():
            yield

    with kept_memory():
        compared(benchmark, lambda: steps[now[0]](), in_float32, in_bfloat16)
