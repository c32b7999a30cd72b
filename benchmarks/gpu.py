"""The rungs on a GPU beside the CPU: images a second, and whether every output code is the same.

    python benchmarks/gpu.py [--network resnet20] [--images 512] [--device cuda] [--json FILE]

Random weights; 8 b × 8 b, one-bit cells and digits, 128 rows, six-bit converters (`crossloom bench` has the same
chip). The best of three runs counts, programming left out. Exits with 1 if any code differs, with 2 without the device.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crossloom.codesign.bench import VARIATION, WIRES, chip
from crossloom.codesign.config import Machine
from crossloom.codesign.machine import environment
from crossloom.compiled import compile
from crossloom.errors import InputError
from crossloom.mapping import map_program
from crossloom.simulate import Executor
from crossloom.training import build_network

CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("integer", "integer", {}),
    ("crossbar", "crossbar", {}),
    ("crossbar, lossless converter", "crossbar", {"array.b_adc": 8}),
    ("analog", "analog", VARIATION),
    ("analog, read noise", "analog", {**VARIATION, "device.read_noise": 0.02}),
    ("parasitic", "parasitic", {**VARIATION, **WIRES}),
)
"""Name, rung, what is changed of the chip."""


def best(function: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Seconds of the fastest of three calls, after one to warm up."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> int:
    """The table on standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--compared", type=int, default=16, help="images that the CPU runs too")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="also write the table here")
    given = parser.parse_args()
    torch.manual_seed(0)
    model, x = build_network(given.network, 10, (3, 32, 32)).eval(), torch.rand(given.images, 3, 32, 32)
    program = compile(model, chip(), x[:16], name=given.network).program
    few, rows, equal = x[: given.compared], [], True
    try:
        for name, rung, changes in CASES:
            mapping = map_program(program, chip(**changes))
            there, here = Executor(mapping, rung, device=given.device), Executor(mapping, rung)
            same = torch.equal(there.run(few).cpu(), here.run(few))
            fast, slow = best(lambda e=there: e.run(x), there.device), best(lambda e=here: e.run(few), here.device)
            rows.append({"rung": name, "device": len(x) / fast, "cpu": len(few) / slow, "equal": same})
            equal = equal and same
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    model, moved = model.to(given.device), x.to(given.device)
    with torch.no_grad():
        forward = len(x) / best(lambda: model(moved), torch.device(given.device))
    whole = {
        "network": given.network, "images": given.images, "forward": forward, "rows": rows,
        "environment": environment(Machine(device="cuda" if given.device.startswith("cuda") else "cpu")),
    }  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(f"{given.network}, fp32 forward pass on {given.device}: {forward:.4g} images/s\n")
    print(f"| rung | {given.device}, images/s | CPU, images/s | every code equal |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['rung']} | {row['device']:.4g} | {row['cpu']:.4g} | {'yes' if row['equal'] else 'NO'} |")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
