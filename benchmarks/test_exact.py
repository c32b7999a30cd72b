"""The exact rungs against fp32 in one run: `pytest benchmarks/test_exact.py --benchmark-only`.

Every case times both in turn, so that a ratio (`extra_info["ratio"]`) is of one machine in one state.
"""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from crossloom.codesign.bench import Case, measure
from crossloom.frontend import calibrate, convert, lower
from crossloom.hardware import load
from crossloom.mapping import cut, map_program
from crossloom.simulate import Executor, Settings, engine
from crossloom.training.networks import build_network
from crossloom.weave import InputTransform
from tests.simulate.exact_cases import make_array, make_layer

ROUNDS = 10


def compare(benchmark, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Record the median ratio of ours to the yardstick's runs just before and after, as `crossloom bench` does."""
    case = Case("", "", 0, lambda: (ours, theirs))
    found = measure(case)
    benchmark.pedantic(ours, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["yardstick_ms"] = round(found.yardstick_seconds * 1e3, 3)
    benchmark.extra_info["ratio"] = round(found.ratio, 2)


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
