"""The exact rungs against fp32 in one run: `pytest benchmarks/test_exact.py --benchmark-only`.

Every case times both in turn, so that a ratio (`extra_info["ratio"]`) is of one machine in one state.
"""

import copy
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from crossloom.frontend import calibrate, convert, lower
from crossloom.hardware import load
from crossloom.mapping import cut, map_program
from crossloom.simulate import Executor, Settings, engine
from crossloom.training.networks import build_network
from crossloom.weave import InputTransform
from tests.simulate.exact_cases import make_array, make_layer

ROUNDS = 10


def seconds(function: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The best of several runs, after one to warm up."""
    function()
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def compare(benchmark, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Record the ratio of best times, the yardstick timed before and after."""
    before = seconds(theirs)
    benchmark.pedantic(ours, rounds=ROUNDS, warmup_rounds=1)
    yardstick = min(before, seconds(theirs))
    benchmark.extra_info["yardstick_ms"] = round(yardstick * 1e3, 3)
    benchmark.extra_info["ratio"] = round(benchmark.stats.stats.min / yardstick, 2)


ARRAYS = {
    "6-bit full": {},
    "6-bit unit": {"adc_range": "unit"},
    "2-bit cells": {"b_cell": 2},
    "differential": {"encoding": "differential"},
    "lossless": {"b_adc": 8},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_layer_against_its_gemm(benchmark, name: str) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(InputTransform.identity(1152), 256, rng)
    kernel = engine("crossbar").prepare(cut(layer, make_array(**ARRAYS[name])), Settings())
    x = torch.from_numpy(rng.integers(0, 256, (1024, 1152), dtype=np.uint8))
    a, b = torch.randn(1024, 1152), torch.randn(1152, 256)
    compare(benchmark, lambda: kernel(x), lambda: a @ b)


@pytest.mark.parametrize("b_adc", [6, 8], ids=["6-bit", "lossless"])
@pytest.mark.parametrize("network", ["resnet20", "vgg8"])
def test_network_against_its_fp32_forward(benchmark, network: str, b_adc: int) -> None:
    torch.manual_seed(0)
    model, x = build_network(network, 10, (3, 32, 32)).eval(), torch.rand(64, 3, 32, 32)
    module = convert(copy.deepcopy(model), x[:2])
    calibrate(module, [x])
    overrides = {
        "array.rows": 128, "array.columns": 128, "array.active_rows": 128, "array.b_cell": 1, "array.b_dac": 1,
        "array.b_adc": b_adc, "array.encoding": "offset", "array.adc_range": "full", "array.flip": False,
        "hierarchy.tiles": None,
    }  # fmt: skip
    executor = Executor(map_program(lower(module.eval()), load("isaac", overrides=overrides)), "crossbar")
    model, last = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        compare(benchmark, lambda: executor.run(x), lambda: model(last))
