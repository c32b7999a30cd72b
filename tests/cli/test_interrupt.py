"""Ctrl-C at any stage: exit code 130, whole files only, and the same command goes on to the same numbers."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from crossloom.cli import main

COMMAND = ("demo", "--epochs", "5", "--finetune", "1", "--threads", "1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the same run without any interrupt."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*COMMAND, "--run-dir", str(folder), "--json", "--quiet"]) == 0
    record: dict[str, Any] = json.loads(out.getvalue())
    return record


def interrupted(folder: Path, stage: str) -> tuple[int, str]:
    """Start the demo, press Ctrl-C when `stage` is announced; exit code and standard error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "crossloom", *COMMAND, "--run-dir", folder],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.split()[:1] == [stage]:
            process.send_signal(signal.SIGINT)
            break
    out, rest = process.communicate(timeout=120)
    assert out == ""
    return process.returncode, "".join(seen) + rest


@pytest.mark.parametrize(
    "stage",
    [
        "train",
        "crossbar",
        *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("quantise", "compile", "integer", "cost")),
    ],
)
def test_ctrl_c_and_again(stage: str, tmp_path, call, undisturbed) -> None:
    folder = tmp_path / "run"
    code, err = interrupted(folder, stage)
    assert code == 130, err
    assert err.splitlines()[-1] == "interrupted: the same command goes on from here"
    assert "Traceback" not in err
    assert not (folder / "result.json").exists()
    assert not list(folder.rglob("*.part"))
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.rglob("*.safetensors"):
        load_file(path)
    for path in folder.rglob("*.ckpt"):
        torch.load(path, weights_only=True)
    again = call(*COMMAND, "--run-dir", folder, "--json")
    assert again.code == 0
    for key in ("accuracy", "agreement", "cost", "config_hash", "chip_hash"):
        assert again.json[key] == undisturbed[key], key
    if stage == "crossbar":
        assert " train " not in again.err


def test_ctrl_c_with_json_is_one_object(call, monkeypatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crossloom.hardware.names", stop)
    made = call("hardware", "list", "--json")
    assert made.code == 130
    assert made.json["error"]["exit_code"] == 130
    assert made.err == "interrupted: the same command goes on from here\n"
