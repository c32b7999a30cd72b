"""Runs of DNN+NeuroSim: how they were made, and the figures that they printed. None of its code is kept.

    git clone https://github.com/neurosim/DNN_NeuroSim_V1.4 && cd DNN_NeuroSim_V1.4/Inference_pytorch/NeuroSIM
    git checkout ac828e6 && make                     # V1.3: DNN_NeuroSim_V1.3 at 388f421; defaults of Param.cpp
    python -m crossloom.cost.validation.neurosim_runs traces FOLDER
    cd FOLDER && sh run-v1.4.sh > out.txt            # with NEUROSIM=…/Inference_pytorch/NeuroSIM; minutes
    python -m crossloom.cost.validation.neurosim_runs read out.txt V1.4 > src/crossloom/cost/validation/data/…

The traces are made up: weights N(0, 0.25²) on an 8-bit grid in [−1, 1), inputs |N(0, 32²)| clipped to 127, every second
one zero behind the first layer. The estimate reads their bits, and nothing of a network's accuracy.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

VGG8 = (
    (1024, 27, 128), (1024, 1152, 128), (256, 1152, 256), (256, 2304, 256), (64, 2304, 512), (64, 4608, 512),
    (1, 8192, 1024), (1, 1024, 10),
)  # fmt: skip
"""Positions, inputs and outputs of the layers of NetWork_VGG8.csv."""

CONVENTIONAL_ARRAYS, NOVEL_ARRAYS = 64, 144
"""Arrays of a tile: 1024 × 1024 cells, and nine processing elements of 512 × 512 where kernels are unrolled."""


def input_codes(
    rng: np.random.Generator, inputs: int, positions: int, first: bool
) -> Integer[np.ndarray, "inputs positions"]:
    """Inputs of the traces' distribution."""
    codes = np.abs(rng.normal(0, 32, (inputs, positions))).clip(0, 127).astype(np.int64)
    return codes if first else np.where(rng.random(codes.shape) < 0.5, 0, codes)


def write_traces(folder: Path, seed: int = 0) -> None:
    """Weights, input bits and the commands of a run of either version."""
    rng = np.random.default_rng(seed)
    files = []
    for i, (positions, inputs, outputs) in enumerate(VGG8):
        weights = (np.round(rng.normal(0, 0.25, (inputs, outputs)) * 128) / 128).clip(-1, 127 / 128)
        np.savetxt(folder / f"w{i}.csv", weights, delimiter=",", fmt="%.5f")
        codes = input_codes(rng, inputs, positions, i == 0)
        bits = (codes[:, :, None] >> np.arange(7, -1, -1) & 1).reshape(inputs, positions * 8).astype(np.uint8)
        lines = np.full((inputs, positions * 16), ord(","), np.uint8)
        lines[:, 0::2], lines[:, -1] = bits + ord("0"), ord("\n")
        (folder / f"x{i}.csv").write_bytes(lines.tobytes())
        files += [f"w{i}.csv", f"x{i}.csv"]
    for version, more in (("1.3", ""), ("1.4", "128 128 ")):
        command = f'"$NEUROSIM/main" "$NEUROSIM/NetWork_VGG8.csv" 8 8 {more}{" ".join(files)}\n'
        (folder / f"run-v{version}.sh").write_text(command, encoding="utf-8")


@dataclass(frozen=True)
class LayerRun:
    """One layer: tiles, copies (their speed-up), energy in J, time in s, leakage in W."""

    tiles: int
    copies: int
    energy: float
    latency: float
    leakage: float


@dataclass(frozen=True)
class Run:
    """What a run printed, in SI units.

    Attributes:
        version, commit: of the program.
        pipelined: layers work on successive images at once; `time` is then the beat, else an image's latency.
        layers: in order.
        utilisation: memory mapped over memory on the chip.
        area, energy, latency: by component, and under `all`; `other` holds what is none of the rest. Of a pipelined
            chip each latency is the largest of any layer.
        leakage: of the chip, W.
        clock_period: s.
        seconds: that the program took.
    """

    version: str
    commit: str
    pipelined: bool
    layers: tuple[LayerRun, ...]
    utilisation: float
    area: dict[str, float]
    energy: dict[str, float]
    latency: dict[str, float]
    leakage: float
    clock_period: float
    seconds: float

    @property
    def arrays(self) -> tuple[int, ...]:
        """Arrays of every layer: layers 2 to 6 unroll their kernels."""
        novel = {1, 2, 3, 4, 5}
        return tuple(
            layer.tiles * (NOVEL_ARRAYS if i in novel else CONVENTIONAL_ARRAYS) for i, layer in enumerate(self.layers)
        )


COMMITS = {"V1.3": "388f421", "V1.4": "ac828e6"}
NUMBER = r"([\d.e+-]+)"


def parse(text: str, version: str) -> Run:
    """The figures of a run's output.

    Raises:
        ValueError: a figure is not there.
    """

    def find(pattern: str, where: str) -> float:
        found = re.search(pattern, where)
        if found is None:
            raise ValueError(f"no figure for {pattern!r} in the output")
        return float(found[1])

    plan, _, rest = text.partition("FloorPlan Done")
    whole = rest[rest.index("Summary") :]
    head, breakdown = whole.split("Breakdown of Latency", 1)

    def block(title: str) -> list[int]:
        lines = plan[plan.index(title) :]
        return [int(find(rf"layer{i + 1}: {NUMBER}", lines)) for i in range(len(VGG8))]

    tiles, copies = block("# of tile used"), block("Speed-up of each layer")
    layers = tuple(
        LayerRun(
            tiles[i], copies[i],
            find(rf"layer{i + 1}'s readDynamicEnergy is: {NUMBER}pJ", rest) * 1e-12,
            find(rf"layer{i + 1}'s readLatency is: {NUMBER}ns", rest) * 1e-9,
            find(rf"layer{i + 1}'s leakagePower is: {NUMBER}uW", rest) * 1e-6,
        )
        for i in range(len(VGG8))
    )  # fmt: skip
    area = {
        "all": find(rf"ChipArea : {NUMBER}um", head),
        "cells": find(rf"total CIM array : {NUMBER}um", head),
        "network": find(rf"Total IC Area .*: {NUMBER}um", head),
        "converters": find(rf"Total ADC .*: {NUMBER}um", head),
        "accumulation": find(rf"Total Accumulation .*: {NUMBER}um", head),
        "other": find(rf"Other Peripheries .*: {NUMBER}um", head),
    }
    parts = {"converters": "ADC", "accumulation": "Accumulation", "other": "Other"}

    totals = {
        "readDynamicEnergy": r"Chip (?:total|pipeline-system) readDynamicEnergy",
        "readLatency": r"Chip (?:layer-by-layer readLatency|pipeline-system-clock-cycle)",
    }

    def by_part(word: str, unit: str, scale: float) -> dict[str, float]:
        found = {
            "all": find(rf"{totals[word]}[^:]*: {NUMBER}{unit}", head),
            "buffers": find(rf"buffer {word}[^:]*: {NUMBER}{unit}", head),
            "network": find(rf"ic {word}[^:]*: {NUMBER}{unit}", head),
        }
        found |= {name: find(rf"- {key}[^\n]*{word} is : {NUMBER}{unit}", breakdown) for name, key in parts.items()}
        found["other"] -= found["buffers"] + found["network"]  # "other peripheries" hold these two
        return {name: value * scale for name, value in found.items()}

    return Run(
        version, COMMITS[version], "pipeline" in head, layers,
        find(rf"Utilization of Whole Chip: {NUMBER} %", plan) / 100,
        {name: value * 1e-12 for name, value in area.items()},
        by_part("readDynamicEnergy", "pJ", 1e-12), by_part("readLatency", "ns", 1e-9),
        find(rf"leakage Power[^:]*: {NUMBER}uW", head) * 1e-6, find(rf"clock period is: {NUMBER}ns", head) * 1e-9,
        find(rf"Total Run-time of NeuroSim: {NUMBER} seconds", rest),
    )  # fmt: skip


def load_run(version: str) -> Run:
    """The kept figures of a version's run."""
    file = resources.files("crossloom.cost.validation") / "data" / f"neurosim-{version.lower()}.json"
    plain: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return Run(**{**plain, "layers": tuple(LayerRun(**layer) for layer in plain["layers"])})


def main(arguments: list[str]) -> int:
    """`traces FOLDER`, or `read OUT VERSION`, which prints the figures as JSON."""
    match arguments:
        case ["traces", folder]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_traces(Path(folder))
        case ["read", out, version] if version in COMMITS:
            print(json.dumps(asdict(parse(Path(out).read_text(encoding="utf-8"), version)), indent=1))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
