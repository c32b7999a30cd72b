"""The analog rung against fp32 and against slice-by-slice GEMMs in one run: `pytest benchmarks/test_analog.py`.

Ratios are in `extra_info`: `fp32` to the same product or forward in fp32, `sliced` how many times faster than the
plain method (one fp32 GEMM per slice, digit and row block, quantised in between), `quiet` to the rung without read
noise, `one_chip` to one chip.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from crossloom.frontend import calibrate, convert, lower
from crossloom.hardware import Chip, load
from crossloom.mapping import LayerMapping, cut, map_program
from crossloom.simulate import Executor, Settings, array_adc, engine
from crossloom.simulate.analog_chip import AnalogChip, program_block
from crossloom.simulate.analog_chips import ChipSet
from crossloom.training.networks import build_network
from crossloom.weave import InputTransform
from tests.simulate.exact_cases import make_layer

ROUNDS = 6
VARIATION = {"device.variation": {"model": "lognormal", "sigma": 0.1}}
NOISE = {**VARIATION, "device.read_noise": 0.02}


def chip_of(cells: int = 1, **fields: Any) -> Chip:
    overrides = {
        "array.rows": 128, "array.columns": 128, "array.active_rows": 128, "array.b_cell": cells, "array.b_dac": 1,
        "array.b_adc": 6, "array.encoding": "offset", "array.adc_range": "full", "array.flip": False,
        "hierarchy.tiles": None, "device.variation": {"model": "none"},
    }  # fmt: skip
    return load("isaac", overrides={**overrides, **fields})


def turns(rounds: int, **functions: Callable[[], object]) -> dict[str, float]:
    """The best time of each of several functions, run in turn so that all meet the same machine."""
    for function in functions.values():
        function()
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def slice_by_slice(mapping: LayerMapping, real: AnalogChip) -> Callable[[torch.Tensor], torch.Tensor]:
    """What simulators do: per row block and digit one fp32 GEMM with all slices, then the converter on tensors."""
    adc = array_adc(mapping.array)
    blocks = []
    for i, block in enumerate(mapping.blocks):
        made = program_block(mapping, i, 0, real)
        gains = np.tile([s.gain for s in mapping.code.slices], len(mapping.core_columns(block)))
        weights = torch.from_numpy(made.weights).float()
        slices = mapping.code.columns
        parts = [(weights[:, s::slices].contiguous(), float(gains[s])) for s in range(slices)]
        blocks.append((torch.from_numpy(mapping.core_rows(block)), mapping.core_columns(block), parts))

    def run(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(x), mapping.layer.core.shape[2])
        for rows, columns, parts in blocks:
            z = x[:, rows]
            target = out[:, columns[0] : columns[-1] + 1]
            target += mapping.code.input_gain * z.float().sum(1, keepdim=True)
            for digit in mapping.digits:
                piece = ((z >> digit.lsb) & 1).float()
                for weights, gain in parts:
                    code = ((piece @ weights) * (1 / adc.delta) + 0.5).floor_().clamp_(0, adc.top)
                    target += code * (gain * digit.weight * adc.delta)
        return out

    return run


def layer_case(chip: Chip) -> tuple[LayerMapping, torch.Tensor]:
    rng = np.random.default_rng(0)
    layer = make_layer(InputTransform.identity(1152), 256, rng)
    return cut(layer, chip.array), torch.from_numpy(rng.integers(0, 256, (1024, 1152), dtype=np.uint8))


def record(benchmark: Any, ours: Callable[[], object], ratios: dict[str, float]) -> None:
    benchmark.pedantic(ours, rounds=2)
    benchmark.extra_info.update({name: round(value, 2) for name, value in ratios.items()})


@pytest.mark.parametrize("cells", [1, 2])
def test_layer(benchmark: Any, cells: int) -> None:
    chip, noisy = chip_of(cells, **VARIATION), chip_of(cells, **NOISE)
    mapping, x = layer_case(chip)
    real = AnalogChip.of(chip)
    quiet = engine("analog").prepare(mapping, Settings(analog=real))
    noise = engine("analog").prepare(mapping, Settings(analog=AnalogChip.of(noisy)))
    sliced, wide = slice_by_slice(mapping, real), x.to(torch.int32)
    a, b = torch.randn(1024, 1152), torch.randn(1152, 256)
    scale = quiet(x).abs().double().mean()
    assert float((sliced(wide) - quiet(x)).abs().double().mean() / scale) < 0.03
    t = turns(ROUNDS, ours=lambda: quiet(x), noise=lambda: noise(x), fp32=lambda: a @ b, sliced=lambda: sliced(wide))
    ratios = {"fp32": t["ours"] / t["fp32"], "sliced": t["sliced"] / t["ours"], "noise": t["noise"] / t["ours"]}
    record(benchmark, lambda: quiet(x), ratios)


@pytest.mark.parametrize("network", ["resnet20", "vgg8"])
def test_network(benchmark: Any, network: str) -> None:
    torch.manual_seed(0)
    model, x = build_network(network, 10, (3, 32, 32)).eval(), torch.rand(32, 3, 32, 32)
    module = convert(copy.deepcopy(model), x[:2])
    calibrate(module, [x])
    program = lower(module.eval())
    quiet = Executor(map_program(program, chip_of(**VARIATION)), "analog")
    noise = Executor(map_program(program, chip_of(**NOISE)), "analog")
    model, last = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        t = turns(3, ours=lambda: quiet.run(x), noise=lambda: noise.run(x), fp32=lambda: model(last))
        record(benchmark, lambda: quiet.run(x), {"fp32": t["ours"] / t["fp32"], "noise": t["noise"] / t["ours"]})


def test_twenty_chips(benchmark: Any) -> None:
    """Programming included: a study of chips pays it for every one."""
    torch.manual_seed(0)
    model, x = build_network("lenet5", 10, (1, 28, 28)).eval(), torch.rand(64, 1, 28, 28)
    module = convert(model, x[:2])
    calibrate(module, [x])
    mapping = map_program(lower(module.eval()), chip_of(**VARIATION))

    def several(chips: int) -> Callable[[], object]:
        return lambda: ChipSet(mapping, range(chips)).run(x)

    t = turns(2, one=several(1), twenty=several(20))
    record(benchmark, several(1), {"one_chip": t["twenty"] / t["one"]})
