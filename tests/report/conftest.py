"""Run folders with a real compiled chip and its real cost; accuracies are made up."""

import json
import shutil
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
