"""Peak resident memory of whole runs, each in a process of its own, libraries included."""

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource", reason="peak memory is asked of the operating system")

GIB = 1 << 30
PEAK = """
import pathlib, resource
status = pathlib.Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
own = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
print(*(own or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
"""On Linux a new process inherits its parent's ru_maxrss through exec; VmHWM, also in kilobytes, is its own."""
VGG16 = """
import torch
from crossloom.codesign.bench import VARIATION, chip
from crossloom.compiled import compile
from crossloom.training import build_network
torch.manual_seed(0)
x = torch.rand({batch}, 3, 32, 32)
made = compile(build_network("vgg16", 10, (3, 32, 32)).eval(), chip(**VARIATION, **{fields}), x[:4])
out = made.logits(x, "{rung}")
assert out.shape == ({batch}, 10) and out.isfinite().all() and out.std() > 0
"""
LARGE_ARRAY = """
import numpy as np
from crossloom.simulate.parasitic import Wires, effective_conductances
g = np.random.default_rng(0).uniform(1e-6, 1e-4, (1024, 1024))
m = effective_conductances(g, Wires(1.0, 1.0, 500.0, 100.0))
assert m.shape == (1024, 1024) and (m > 0).all()
assert (m.sum(1) <= g.sum(0)).all() and (m.sum(0) <= g.sum(1)).all() and m.sum() < 0.9 * g.sum()
"""


def peak(program: str) -> int:
    """Bytes: ru_maxrss is in kilobytes on Linux and in bytes on macOS."""
    done = subprocess.run([sys.executable, "-c", program + PEAK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


def test_what_is_measured_is_the_peak_of_another_process() -> None:
    small, large = peak(""), peak("x = bytearray(300 << 20)\nx[::4096] = b'1' * len(x[::4096])\ndel x\n")
    assert small < 0.1 * GIB
    assert 0.29 * GIB < large - small + 0.01 * GIB < 0.35 * GIB


@pytest.mark.slow
@pytest.mark.parametrize("cell_bits", [1, 2])
def test_vgg16_at_batch_64_on_the_analog_rung_takes_less_than_2_gib(cell_bits: int) -> None:
    assert peak(VGG16.format(batch=64, rung="analog", fields={"array.b_cell": cell_bits})) < 2 * GIB


@pytest.mark.slow
def test_an_array_of_1024_by_1024_with_wires_takes_less_than_8_gib() -> None:
    assert peak(LARGE_ARRAY) < 8 * GIB
