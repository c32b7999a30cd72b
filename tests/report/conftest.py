"""Run folders with a real compiled chip and its real cost; accuracies are made up."""

import itertools
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

import crossloom
from crossloom.codesign import Result
from crossloom.compiled import CompiledChip
from crossloom.cost import estimate
from crossloom.training import build_network

LOG = """epoch,train_loss,train_accuracy,test_accuracy,residual
1,1.75,0.384,,0.5
2,0.56,0.821,0.933,0.25
3,0.4,nan,0.95,0.125
"""


@pytest.fixture(scope="session")
def chip() -> CompiledChip:
    network = build_network("lenet5", 10, (1, 28, 28), 0)
    images = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return crossloom.compile(network, "crimp-isaac", images, name="lenet5", duplication={"conv1": 2})


@pytest.fixture(scope="session")
def record(chip: CompiledChip) -> dict[str, Any]:
    """A record as `crossloom.codesign` writes it, so that a change of its format is noticed here."""
    cost = estimate(chip.mapping).to_dict()
    result = Result(
        name="demo", network="lenet5", data="digits", hardware="crimp-isaac", classes=list("0123456789"),
        parameters=61706, accuracy={"float": 0.9875, "integer": 0.985, "crossbar": 0.98},
        images={"float": 400, "integer": 400, "crossbar": 200},
        agreement={
            "float=integer": {"images": 400, "equal": False, "largest_difference": 0.5, "same_class": 0.99},
            "integer=crossbar": {"images": 200, "equal": True, "largest_difference": 0.0, "same_class": 1.0},
        },
        crossbars=chip.crossbars, area_m2=cost["area_m2"], energy_j=cost["energy_j"], latency_s=cost["latency_s"],
        layers=cost["layers"], cost=cost, run_dir="runs/demo", config={"network": {"name": "lenet5"}, "seed": 3},
        config_hash="c0ffee", hardware_hash=chip.hardware.hash, chip_hash=chip.hash, data_fingerprint="f00d",
        seed=3, versions={"python": "3.12", "torch": "2"}, environment={"processor": "a processor", "cores": 2},
        command=["/somewhere/bin/crossloom", "demo", "--set", "array.b_adc=8", "a name"], timings={"train": 12.5},
        notes=["crossbar rung on the first 200 of 400 test images"], created="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    return json.loads(result.model_dump_json())


RESIDUALS = [
    {"update": u, "layer": layer, "constraint": one, "rho": 0.001, "primal": 0.5 / (2 + i) ** u, "dual": 0.01 / (u + i)}
    for u in range(5)
    for i, (layer, one) in enumerate(itertools.product(("conv1", "fc1"), ("columns", "fixed-point")), 1)
]
CANDIDATES = (  # name, accuracy, and the share of the dense network's crossbars, area, energy and latency
    ("dense", 0.9875, (1.0, 1.0, 1.0, 1.0)),
    ("prune", 0.9825, (0.5, 0.55, 0.5, 0.75)),
    ("approximate", 0.98, (0.25, 0.35, 0.625, 0.5)),
)


@pytest.fixture(scope="session")
def composed(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a recipe's run: the plain one's costs are what its last step left."""
    keys = ("crossbars", "area_m2", "energy_j", "latency_s")
    last = CANDIDATES[-1][2]
    candidates = [
        {"name": name, "accuracy": accuracy, "images": 400}
        | {key: record[key] * share / end for key, share, end in zip(keys, shares, last, strict=True)}
        for name, accuracy, shares in CANDIDATES
    ]
    candidates = [{**one, "crossbars": round(one["crossbars"])} for one in candidates]
    analog = [0.955, 0.96, 0.965, 0.97]
    noise = [(0.0, [0.98] * 4), (0.1, [0.97, 0.975, 0.976, 0.979]), (0.25, analog), (0.5, [0.75, 0.84, 0.88, 0.91])]

    def spread(values: list[float]) -> dict[str, Any]:
        return {"mean": statistics.fmean(values), "std": statistics.stdev(values), "values": values, "images": 100}

    steps = [
        {
            "name": "prune", "kind": "training", "epochs": 12,
            "figures": {
                "admm": {
                    "kept": {"conv1": 75, "fc1": 12000}, "dense": {"conv1": 150, "fc1": 48000}, "updates": 5,
                    "residuals": RESIDUALS,
                },
            },
        },
        {"name": "approximate", "kind": "mapping", "figures": {"approximation": {"rows": {"conv1": 20, "fc1": 96}}}},
    ]  # fmt: skip
    changes = {
        "accuracy": record["accuracy"] | {"analog": statistics.fmean(analog)},
        "images": record["images"] | {"analog": 100},
        "chips": {"analog": spread(analog)},
        "noise": [{"sigma": sigma, **spread(values)} for sigma, values in noise],
        "recipe": {"name": "two", "steps": [{"name": "prune", "method": "admm"}, {"name": "approximate"}]},
        "steps": steps,
        "candidates": candidates,
    }
    return json.loads(Result.model_validate(record | changes).model_dump_json())


@pytest.fixture
def composed_folder(folder: Path, composed: dict[str, Any]) -> Path:
    """The folder of a recipe's run."""
    (folder / "result.json").write_text(json.dumps(composed))
    (folder / "steps" / "1-prune").mkdir(parents=True)
    (folder / "steps" / "1-prune" / "metrics.csv").write_text(LOG)
    return folder


@pytest.fixture
def folder(tmp_path: Path, chip: CompiledChip, record: dict[str, Any]) -> Path:
    """A whole run folder."""
    (tmp_path / "result.json").write_text(json.dumps(record))
    chip.save(tmp_path / "chip.safetensors")
    (tmp_path / "float").mkdir()
    (tmp_path / "float" / "metrics.csv").write_text(LOG)
    return tmp_path


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on PATH: the page was not opened in a browser")
    return found
