"""A training step through the runtime simulator against a plain one.

    python benchmarks/crimp_step.py [--network vgg16] [--batch 16] [--device cpu] [--repeat 3]

Plain is the same network, quantised to powers of two, without simulator: forward, backward, optimiser. Fresh cells are
drawn at every step. Prints one JSON object: seconds of a step (best of the repeats), and ratios to plain.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from crossloom.frontend import calibrate, convert
from crossloom.methods.cell_draws import ArrayCells
from crossloom.methods.power_of_two import PowerOfTwoIntegers
from crossloom.methods.runtime_simulator import RuntimeAdaptation
from crossloom.training import build_network


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="vgg16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    shape = (1, 28, 28) if "lenet" in given.network else (3, 32, 32)
    x = torch.rand(given.batch, *shape)
    module = convert(build_network(given.network, 10, shape, 0).eval(), x[:2])
    PowerOfTwoIntegers().prepare(module)
    calibrate(module, [x])
    module.to(given.device).train()
    x, labels = x.to(given.device), torch.randint(0, 10, (given.batch,), device=given.device)
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

    def step() -> float:
        if given.device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(module(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if given.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    cells = ArrayCells(epsilon=0.1)
    ways = {
        "plain": None,
        "sampled": RuntimeAdaptation(cells),
        "exact": RuntimeAdaptation(cells, reads="exact"),
        "exact, bfloat16": RuntimeAdaptation(cells, reads="exact", dtype=torch.bfloat16),
    }
    seconds = {}
    for name, way in ways.items():
        if way is not None:
            way.prepare(module)
        step()
        seconds[name] = min(step() for _ in range(given.repeat))
        if way is not None:
            way.finish(module)
    record = {
        "network": given.network, "batch": given.batch, "device": given.device, "threads": given.threads,
        "seconds": {k: round(v, 4) for k, v in seconds.items()},
        "times_plain": {k: round(v / seconds["plain"], 2) for k, v in seconds.items()},
    }  # fmt: skip
    print(json.dumps(record))


if __name__ == "__main__":
    main()
