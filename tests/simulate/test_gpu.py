"""Rungs on a GPU: the CPU's bits where there is one, and without one every tensor where it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from crossloom.errors import InputError
from crossloom.mapping import Mapping, map_program
from crossloom.simulate import Conditions, Executor, ReadNoise, Settings, engine
from crossloom.simulate.analog_chip import AnalogChip
from crossloom.simulate.analog_chips import ChipSet
from crossloom.weave import Convolution, Format, Input, Program, Woven
from tests.simulate.analog_cases import array_of, layer_of, random_core

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch finds none here")

NOISE: dict[str, Any] = {
    "device__variation": {"model": "lognormal", "sigma": 0.2}, "device__read_noise": 0.05, "wire_resistance": 2.0,
    "adc_errors": {"noise_sigma": 0.2, "gain_sigma": 0.01, "offset_sigma": 0.2},
}  # fmt: skip
ARRAYS: list[dict[str, Any]] = [
    {"encoding": "offset", "b_cell": 2, "b_dac": 1, "b_adc": 6, "adc_range": "full"},
    {"encoding": "differential", "b_cell": 1, "b_dac": 2, "b_adc": 12, "adc_range": "unit"},
    {"encoding": "polarised", "b_cell": 2, "b_dac": 1, "b_adc": 6, "adc_range": "full"},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSLOOM_CACHE", str(tmp_path))


def network(array: dict[str, Any], copies: int = 2) -> Mapping:
    rng, form = np.random.default_rng(2), Format(8, False)
    geometry = Convolution((3, 3), padding=(1, 1, 1, 1))
    core = random_core(rng, (1, 27, 5), 8, array["encoding"])
    first = layer_of(core, inputs=form, convolution=geometry, name="conv")
    nodes = (
        Input(name="x", inputs=(), format=form, shape=(3, 8, 7)),
        Woven(name="c", inputs=("x",), format=Format(32, True), shape=(5, 8, 7), layer=first),
    )
    return map_program(Program("net", nodes), array_of(16, 64, **array, **NOISE), {"conv": copies})


def images() -> torch.Tensor:
    return torch.rand(9, 3, 8, 7, generator=torch.Generator().manual_seed(0)) * 255


@needs_cuda
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("rung", ["integer", "crossbar", "analog", "parasitic"])
def test_a_gpu_gives_the_cpus_bits(rung: str, array: dict[str, Any]) -> None:
    mapping, x = network(array), images()
    cpu, gpu = (Executor(mapping, rung, device=d, seed=3).run(x) for d in ("cpu", "cuda"))
    assert gpu.device.type == "cuda"
    assert torch.equal(cpu, gpu.cpu())
    parts = [Executor(mapping, rung, device="cuda", seed=3).run(p, first_image=k) for p, k in ((x[:4], 0), (x[4:], 4))]
    assert torch.equal(torch.cat(parts), gpu), "batches do not matter"


@needs_cuda
@pytest.mark.parametrize("rung", ["analog", "parasitic"])
@pytest.mark.parametrize("law", ["cell", "proportional", "root", "table"])
def test_chips_and_noise_are_the_same_on_a_gpu(rung: str, law: Any) -> None:
    noise = ReadNoise(law, table=((0.0, 0.1), (4.0, 0.5)) if law == "table" else ())
    conditions, mapping, x = Conditions(read_noise=noise, time=1e4), network(ARRAYS[0]), images()
    cpu, gpu = (ChipSet(mapping, range(3), 1, conditions, rung=rung, device=d).run(x) for d in ("cpu", "cuda"))
    assert torch.equal(cpu, gpu.cpu())


@needs_cuda
def test_lower_precision_products_do_not_reach_the_engines() -> None:
    mapping, x, before = network(ARRAYS[0]), images(), torch.get_float32_matmul_precision()
    expected = [Executor(mapping, rung).run(x) for rung in ("integer", "crossbar", "analog")]
    torch.set_float32_matmul_precision("medium")
    try:
        for rung, wanted in zip(("integer", "crossbar", "analog"), expected, strict=True):
            assert torch.equal(Executor(mapping, rung, device="cuda").run(x).cpu(), wanted)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("name", ["integer", "crossbar", "tensor", "analog", "analog-tensor", "parasitic"])
def test_every_tensor_is_on_the_device_that_was_asked_for(name: str, array: dict[str, Any]) -> None:
    """Torch's fake tensors know devices but hold no numbers: an operation that mixes devices fails without a GPU."""
    mapping = network(array).layers["conv"]
    chip = AnalogChip.of(array_of(16, 64, **array, **NOISE)) if engine(name).rung in ("analog", "parasitic") else None
    with FakeTensorMode():
        x = torch.zeros(4, 3, 8, 7, dtype=torch.uint8, device="cuda")
        out = engine(name).prepare(mapping, Settings(device=torch.device("cuda"), analog=chip))(x)
    assert (out.device.type, tuple(out.shape)) == ("cuda", (4, 5, 8, 7))


def test_a_fake_tensor_on_the_wrong_device_is_noticed() -> None:
    """What the test above relies on."""
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device="cuda") + torch.zeros(3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("rung", ["integer", "crossbar", "analog", "parasitic"])
def test_without_a_gpu_one_error_names_the_device(rung: str) -> None:
    with pytest.raises(InputError, match="cuda") as raised:
        Executor(network(ARRAYS[0]), rung, device="cuda")
    assert raised.value.field == "device"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "abacus"])
def test_unknown_devices_are_named(device: str) -> None:
    with pytest.raises(InputError, match=device):
        Executor(network(ARRAYS[0]), "integer", device=device)
