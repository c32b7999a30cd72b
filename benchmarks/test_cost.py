"""VGG8's estimate after compilation: `pytest benchmarks/test_cost.py --benchmark-only`.

NeuroSim takes minutes for the same two chips (`crossloom.cost.validation.neurosim_runs`); the goal is 0.2 s.
"""

import time

import pytest

from crossloom.cost import estimate
from crossloom.cost.validation.programs import program
from crossloom.hardware import load
from crossloom.mapping import map_program

GOAL = 0.2
"""CPU seconds of one thread."""


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("hardware", ["crimp-isaac", "neurosim-rram", "neurosim-sram", "rram-40nm"])
def test_vgg8(benchmark, hardware: str) -> None:
    mapping = map_program(program("vgg8", 10, (3, 32, 32)), load(hardware))

    def afresh() -> None:
        mapping.__dict__.pop("arrays", None)
        estimate(mapping)

    benchmark.pedantic(afresh, rounds=10, warmup_rounds=1)
    benchmark.extra_info["arrays"] = mapping.crossbars
    assert benchmark.stats.stats.min < GOAL
