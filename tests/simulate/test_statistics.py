"""Column reads of programmed arrays against closed forms; noise of strength 0; one and two threads, any batch."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from crossloom.mapping import map_program
from crossloom.simulate import Conditions, Executor, ReadNoise
from crossloom.simulate.analog_chip import AnalogChip, program_block
from crossloom.simulate.devices import Levels
from crossloom.weave import Convolution, Format, Input, Program, Woven
from tests.simulate.analog_cases import array_of, cut, layer_of, random_core, run

ROWS, OUTPUTS, CHIPS = 24, 512, 8
ON, OFF = 1e-4, 1e-5
SIZE: dict[str, Any] = {
    "encoding": "offset", "b_cell": 2, "b_dac": 1, "b_adc": 8, "adc_range": "full",
    "device__r_on": 1 / ON, "device__r_off": 1 / OFF,
}  # fmt: skip


def rectified(mean: float, sigma: float) -> tuple[float, float]:
    """Mean and variance of max(N(mean, σ²), 0)."""
    inside, edge = norm.cdf(mean / sigma), sigma * norm.pdf(mean / sigma)
    first = mean * inside + edge
    return first, (mean**2 + sigma**2) * inside + mean * edge - first**2


def lognormal(mean: float, sigma: float) -> tuple[float, float]:
    """Mean and variance of mean·e^θ, θ ~ N(0, σ²)."""
    return mean * math.exp(sigma**2 / 2), mean**2 * math.exp(sigma**2) * math.expm1(sigma**2)


def microsiemens(target: float, levels: Levels, polynomial: list[float]) -> float:
    """σ of a polynomial in µS, in level steps."""
    g = target * levels.step * 1e6
    return float(np.polynomial.polynomial.polyval(g, polynomial)) / (levels.step * 1e6)


MILO, DRIFT = [4.0, 0.02], (0.03, 0.02)
MODELS: dict[str, tuple[dict[str, Any], Any]] = {
    "lognormal": (
        {"device__variation": {"model": "lognormal", "sigma": 0.3}}, lambda target, levels: lognormal(target, 0.3)
    ),
    "gaussian": (
        {"device__variation": {"model": "gaussian", "sigma": 0.08}},
        lambda target, levels: rectified(target, 0.08 * levels.top),
    ),
    "polynomial": (
        {"device__variation": {"model": "polynomial", "coefficients": MILO, "g_max": ON}},
        lambda target, levels: rectified(target, microsiemens(target, levels, MILO)),
    ),
    "table": (
        {"device__variation": {"model": "table", "conductance": [OFF, ON], "sigma": [2e-6, 8e-6]}},
        lambda target, levels: rectified(
            target, float(np.interp(target * levels.step, [OFF, ON], [2e-6, 8e-6])) / levels.step
        ),
    ),
    "stuck at": (
        {"device__stuck_hrs": 0.1, "device__stuck_lrs": 0.05},
        lambda target, levels: mixture([(0.85, target), (0.1, levels.floor), (0.05, levels.floor + levels.top)]),
    ),
    "drift": (
        {"device__drift": {"exponent": DRIFT[0], "exponent_sigma": DRIFT[1]}},
        lambda target, levels: lognormal(target * 1e4 ** -DRIFT[0], DRIFT[1] * math.log(1e4)),
    ),
}  # fmt: skip
"""What is drawn, and mean and variance of one cell of a target conductance, both in level steps."""


def mixture(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean and variance of a value that is one of several with given probabilities."""
    mean = sum(p * v for p, v in parts)
    return mean, sum(p * v**2 for p, v in parts) - mean**2


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("reference", ["ideal", "none"])
def test_a_column_read_has_the_mean_and_variance_of_its_cells(name: str, reference: Any) -> None:
    fields, moments = MODELS[name]
    chip = array_of(ROWS, 4 * OUTPUTS, **SIZE, **fields)
    weights = np.random.default_rng(0).integers(-128, 128, ROWS)
    mapping = cut(layer_of(np.repeat(weights[None, :, None], OUTPUTS, 2)), chip.array)
    x = np.random.default_rng(1).integers(0, 2, ROWS)
    levels, time = Levels.of(chip.device, 2), 1e4 if name == "drift" else None
    conditions = Conditions(reference=reference, time=time)
    reads = []
    for index in range(CHIPS):
        real = AnalogChip.of(chip, 0, index, conditions)
        made = [program_block(mapping, block, 0, real) for block in range(len(mapping.blocks))]
        reads.append(x @ np.concatenate([m.weights for m in made], 1))
    cells = mapping.cells(mapping.blocks[0]).levels
    age = 1e4 ** -DRIFT[0] if name == "drift" else 1.0
    for piece in range(4):
        seen = np.concatenate([read[piece::4] for read in reads])
        each = [moments(level + levels.floor, levels) for level in cells[x > 0, piece]]
        mean = sum(m for m, _ in each) - (levels.floor * age * x.sum() if reference == "ideal" else 0)
        variance, count = sum(v for _, v in each), len(seen)
        assert count == OUTPUTS * CHIPS
        assert abs(seen.mean() - mean) < 3 * math.sqrt(variance / count)
        fourth = ((seen - mean) ** 4).mean()
        assert abs(seen.var() - variance) < 3 * math.sqrt((fourth - variance**2) / count)


def test_converter_errors_move_decisions_as_stated() -> None:
    """Codes of one read of v under gain, offset and noise: N(v, v²·σ_g² + σ_o² + σ_n²), rounded (Sheppard: + 1/12).

    Every cell conducts one step, so all eight slices of all eight digits read v = 64, far from either end.
    """
    gain, offset, noise = 0.02, 1.5, 2.0
    errors = {"gain_sigma": gain, "offset_sigma": offset, "noise_sigma": noise}
    array = {"encoding": "twos_complement", "b_cell": 1, "b_dac": 1, "b_adc": 12, "adc_range": "unit"}
    chip = array_of(64, 1024, **array, adc_errors=errors)
    mapping = cut(layer_of(np.full((1, 64, 128), -1)), chip.array)
    x = np.full((1, 64), 255, np.uint8)
    seen = np.concatenate([run(mapping, AnalogChip.of(chip, 0, k), x)[0] for k in range(20)]) + 64.0 * 255
    powers = float(sum(4**k for k in range(8)))
    fixed = 255**2 * powers * ((gain * 64) ** 2 + offset**2)
    fresh = powers * powers * (noise**2 + 1 / 12)
    variance, count = fixed + fresh, len(seen)
    assert abs(seen.mean()) < 3 * math.sqrt(variance / count)
    fourth = (seen**4).mean()
    assert abs(seen.var() - variance) < 3 * math.sqrt((fourth - variance**2) / count)


NOTHING: list[tuple[dict[str, Any], Conditions]] = [
    ({"device__variation": {"model": "lognormal", "sigma": 0.0}}, Conditions()),
    ({"device__variation": {"model": "gaussian", "sigma": 0.0}}, Conditions(reference="cells")),
    ({"device__variation": {"model": "table", "conductance": [OFF, ON], "sigma": [0.0, 0.0]}}, Conditions()),
    ({"device__variation": {"model": "polynomial", "coefficients": [0.0], "g_max": ON}}, Conditions()),
    ({"device__drift": {"exponent": 0.0, "exponent_sigma": 0.0}}, Conditions(time=1e6)),
    ({}, Conditions(read_noise=ReadNoise("proportional", 0.0))),
    ({}, Conditions(read_noise=ReadNoise("root", 0.0))),
    ({}, Conditions(read_noise=ReadNoise("table", table=((0.0, 0.0), (9.0, 0.0))))),
    ({"adc_errors": {"gain_sigma": 0.0, "offset_sigma": 0.0, "inl": 0.0, "noise_sigma": 0.0}}, Conditions()),
    ({"wire_resistance": 0.0, "driver_resistance": 0.0, "sense_resistance": 0.0}, Conditions()),
]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["analog", "analog-tensor", "parasitic"]), st.sampled_from(NOTHING), st.data())
def test_every_model_of_strength_zero_is_the_exact_rung(name: str, nothing: Any, data: st.DataObject) -> None:
    fields, conditions = nothing
    rows, bits = data.draw(st.integers(2, 30)), data.draw(st.sampled_from([1, 3, 8]))
    encoding = data.draw(st.sampled_from(["offset", "differential", "twos_complement"]))
    array = {
        "encoding": encoding, "b_cell": data.draw(st.sampled_from([1, 2])), "b_dac": data.draw(st.integers(1, 3)),
        "b_adc": data.draw(st.integers(2, 9)), "adc_range": data.draw(st.sampled_from(["full", "unit"])),
        "device__r_on": 1 / ON, "device__r_off": 1 / OFF,
    }  # fmt: skip
    chip = array_of(rows, 64, **{**array, **fields})
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mapping = cut(layer_of(random_core(rng, (1, data.draw(st.integers(1, 50)), 5), bits, encoding), bits), chip.array)
    x = rng.integers(0, 256, (6, mapping.layer.inputs)).astype(np.uint8)
    expected = run(mapping, None, x, "crossbar")
    assert np.array_equal(run(mapping, AnalogChip.of(chip, 3, 1, conditions), x, name), expected)


RUNGS = ("integer", "crossbar", "analog", "parasitic")


def digests() -> str:
    """A checksum of every rung's codes on fixed images, whole and in parts, to be compared between processes."""
    noise = {"device__variation": {"model": "lognormal", "sigma": 0.2}, "device__read_noise": 0.05}
    chip = array_of(16, 64, **{**SIZE, **noise, "b_adc": 5}, wire_resistance=2.0, adc_errors={"noise_sigma": 0.2})
    form, rng = Format(8, False), np.random.default_rng(2)
    geometry = Convolution((3, 3), padding=(1, 1, 1, 1))
    layer = layer_of(random_core(rng, (1, 27, 9), 8, "offset"), inputs=form, convolution=geometry, name="conv")
    nodes = (
        Input(name="x", inputs=(), format=form, shape=(3, 16, 16)),
        Woven(name="c", inputs=("x",), format=Format(32, True), shape=(9, 16, 16), layer=layer),
    )
    mapping = map_program(Program("net", nodes), chip)
    x = torch.rand(11, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    found = []
    for rung in RUNGS:
        whole = Executor(mapping, rung, seed=4).run(x).to(torch.int64)
        for size in (1, 4):
            other = Executor(mapping, rung, seed=4, memory_budget=300_000)
            parts = [other.run(x[k : k + size], first_image=k) for k in range(0, len(x), size)]
            assert torch.equal(torch.cat(parts).to(torch.int64), whole), (rung, size)
        found.append(str(int((whole * torch.arange(1, whole.numel() + 1).reshape(whole.shape)).sum())))
    return " ".join(found)


def test_threads_and_batches_change_no_bit_on_any_rung(tmp_path: Path) -> None:
    program, seen = "from tests.simulate.test_statistics import digests; print(digests())", []
    for threads in ("1", "2"):
        environment = os.environ | {
            "NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "CROSSLOOM_CACHE": str(tmp_path / threads)
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        seen.append(done.stdout.split())
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == len(RUNGS)
