"""Memory stays with the process while it trains, and goes back to the system afterwards."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from crossloom.training.memory import kept_memory

resource = pytest.importorskip("resource")
SIZE = 64 << 20
PAGES = SIZE // 4096
ROOT = Path(__file__).parents[2]

needs_glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc alone has mallopt"
)


def faults() -> int:
    """Pages that the system has handed out in the third of three uses of 64 MB in turn."""
    for _ in range(3):
        before = int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        torch.zeros(SIZE, dtype=torch.uint8).fill_(1)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt) - before


def resident() -> int:
    """Bytes of the process in memory."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    return int(pages) * resource.getpagesize()


@needs_glibc
def test_memory_is_not_cleared_again_for_every_step():
    """In a process of its own: what others have freed before might serve."""
    code = "from tests.training.test_kept_memory import *; print(faults())\nwith kept_memory(): print(faults())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    without, within = map(int, found.stdout.split())
    assert without > PAGES * 9 // 10
    assert within < PAGES // 10


@needs_glibc
@pytest.mark.parametrize("error", [None, RuntimeError("stopped")])
def test_memory_goes_back_after_training(error):
    before = resident()
    with suppress(RuntimeError), kept_memory():
        faults()
        assert resident() > before + SIZE // 2
        if error is not None:
            raise error
    assert resident() < before + SIZE // 2
