"""A training step with ADMM's pull, and one of masked retraining, against a plain step.

    python benchmarks/admm_step.py [--network lenet5-caffe] [--batch 128] [--steps 40] [--device cpu] [--threads 1]

The three kinds of step take turns, so that whatever else the machine does falls on all of them. A step is forward,
backward and Adam. Every layer has a structure and a level set. Prints one JSON object: median seconds of a step, and
the medians of the ratios to the plain step of the same turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from crossloom.methods import ADMM, Columns, FixedPoint
from crossloom.training import build_network


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lenet5-caffe")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = (1, 28, 28) if "lenet" in given.network else (3, 32, 32)
    x = torch.rand(given.batch, *shape, device=given.device)
    y = torch.arange(given.batch, device=given.device) % 10
    network = build_network(given.network, 10, shape, 0).to(given.device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    pulling, mapped = (ADMM({"*": [Columns(0.2), FixedPoint(5)]}) for _ in range(2))
    for method in (pulling, mapped):
        method.prepare(network)
    pulling.update()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    mapped.harden()
    network.load_state_dict(weights)

    def step(kind: str) -> float:
        begun = time.perf_counter()
        if kind == "retraining":
            mapped.show()
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        if kind == "pull":
            pulling.pull()
        if kind == "retraining":
            mapped.hide()
        optimiser.step()
        if given.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    kinds = ("plain", "pull", "retraining")
    for kind in kinds:
        step(kind)
    times = [{kind: step(kind) for kind in kinds} for _ in range(given.steps)]
    said: dict[str, object] = {**vars(given)}
    for kind in kinds:
        said[f"{kind}_s"] = statistics.median(turn[kind] for turn in times)
        said[f"{kind}_ratio"] = round(statistics.median(turn[kind] / turn["plain"] for turn in times), 4)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
