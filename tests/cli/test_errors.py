"""Bad input: one clear line on standard error, exit code 2, one JSON object on request, nothing left behind."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossloom.training import build_network, save_weights

QUICK = (
    "demo",
    "-n",
    "mlp",
    "-d",
    "digits",
    "--epochs",
    "1",
    "--finetune",
    "0",
    "--train-images",
    "64",
    "--limit",
    "5",
)

BAD = [
    (("cost", "--network", "lenet6"), "network", "lenet5"),
    (("cost", "-n", "torchvision:resnet19"), "network", "torchvision:resnet18"),
    (("cost", "-n", "lenet5", "-H", "isac"), "hardware", "isaac"),
    (("cost", "-n", "lenet5", "-H", "nowhere.yaml"), "hardware", None),
    (("cost", "-n", "lenet5", "-s", "array.b_adcs=6"), "array.b_adcs", "array.b_adc"),
    (("cost", "-n", "lenet5", "-s", "array.b_adc"), "--set", None),
    (("cost", "-n", "lenet5", "-s", "array.b_adc=0"), "array.b_adc", "1"),
    (("cost", "-n", "lenet5", "-s", "array.b_cell=3"), "array.b_cell", "2"),
    (("cost", "-n", "lenet5", "-s", "device.r_on=6 kg"), "device.r_on.unit", None),
    (("cost", "-n", "lenet5", "-s", "device.r_on=.nan"), "device.r_on", None),
    (("cost", "-n", "lenet5", "-s", "hierarchy.tiles=0"), "hierarchy.tiles", "1"),
    (
        ("cost", "-n", "lenet5-caffe", "-s", "hierarchy.macros_per_tile=1", "-s", "hierarchy.tiles=1"),
        "hierarchy.tiles",
        None,
    ),
    (("cost", "-n", "lenet5", "-d", "imagenet"), "data", "mnist"),
    (("cost",), "target", None),
    (("cost", "a", "b", "c"), "target", None),
    (("cost", "nowhere"), "target", None),
    (("demo", "--epochs", "0"), "training.epochs", None),
    (("demo", "--epochs", "many"), "--epochs", None),
    (("demo", "--epoch", "3"), "--epoch", None),
    (("demo", "--limit", "crosbar=3"), "--limit", "crossbar"),
    (("demo", "--limit", "0"), "--limit", None),
    (("demo", "--device", "gpu"), "--device", "cpu"),
    (("demo", "--threads", "0"), "--threads", None),
    (("demo", "--name", "a/b"), "--name", None),
    (("demo", "--name", "a", "--run-dir", "b"), "--name", None),
    (("demo", "--data", "minst"), "data", "mnist"),
    (("demo", "--train-images", "99999"), "digits.subset.train", None),
    (("demo", "--seed", "-1"), "training.seed", None),
    (("train",), "--network", None),
    (("train", "--network", "resnet18"), "data", None),
    (("train", "--config", "nowhere.yaml"), "config", None),
    (("compile", "--network", "lenet5"), "--weights", None),
    (("compile", "--network", "lenet5", "--weights", "nowhere.pth", "-d", "digits"), "weights", None),
    (("simulate", "nowhere"), "target", None),
    (("simulate", "nowhere", "--rung", "analogue"), "--rung", "analog"),
    (("report", "nowhere"), "target", None),
    (("codesign", "--recipe", "aat"), "--network", None),
    (("codesign", "--network", "lenet5"), "--recipe", None),
    (("codesign", "--network", "lenet5", "--recipe", "all-for"), "recipe", "all-four"),
    (("codesign", "--network", "lenet5", "--recipe", "aat", "--limit", "analog=5"), "--limit", None),
    (("recipes", "irrr"), "recipe", "irr"),
    (("reproduce", "irr", "--network", "lenet5", "--budget", "1h"), "--budget", None),
    (("reproduce", "aat", "--network", "lenet5", "--budget", "soon"), "--budget", None),
    (("reproduce", "crmp"), "paper", None),
    (("reproduce", "crimp", "--network", "resnet65"), "network", "resnet56"),
    (("reproduce", "crimp", "--network", "resnet56"), "weights", None),
    (("hardware", "show", "sot-mramm"), "hardware", "sot-mram"),
    (("hardware", "shw"), "shw", None),
    (("nonsense",), "nonsense", None),
]


@pytest.mark.parametrize(("arguments", "field", "nearest"), BAD, ids=[" ".join(a) for a, _, _ in BAD])
def test_bad_input_is_explained(arguments, field, nearest, call, empty_folder) -> None:
    plain = call(*arguments)
    assert plain.code == 2, plain.err
    assert plain.out == ""
    assert plain.err.startswith("error: ")
    assert plain.err.count("\n") == 1, plain.err
    assert "Traceback" not in plain.err
    made = call(*arguments, "--json")
    assert made.code == 2
    error = made.json["error"]
    assert error["exit_code"] == 2
    assert error["message"] in made.err
    if arguments[0] not in ("nonsense",) and arguments[-1] != "shw":
        assert error["field"] == field
    assert error["nearest"] == nearest
    assert field in made.err
    assert list(empty_folder.iterdir()) == []


def test_missing_data_names_the_folder(call, empty_folder, monkeypatch) -> None:
    import urllib.error
    import urllib.request

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    made = call("train", "--network", "lenet5", "--data", "mnist", "--data-dir", empty_folder / "data", "--json")
    assert made.code == 2
    assert str(empty_folder / "data") in made.json["error"]["message"]
    assert not (empty_folder / "runs").exists()


def weights(kind: str, path: Path) -> Path:
    """A bad weights file."""
    network = build_network("mlp", 10, (1, 32, 32))
    if kind == "nan":
        with torch.no_grad():
            next(network.parameters())[0, 0] = float("nan")
        save_weights(network, path / "w.safetensors")
        return path / "w.safetensors"
    if kind in ("truncated safetensors", "truncated torch"):
        file = path / ("w.safetensors" if "safetensors" in kind else "w.pth")
        save_weights(network, file) if file.suffix == ".safetensors" else torch.save(network.state_dict(), file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return file
    if kind == "malicious":
        (path / "w.pth").write_bytes(pickle.dumps(Bomb(str(path / "exploded"))))
        return path / "w.pth"
    if kind == "another network":
        save_weights(build_network("lenet5", 10, (1, 32, 32)), path / "w.safetensors")
        return path / "w.safetensors"
    if kind == "a folder":
        (path / "w.pth").mkdir()
        return path / "w.pth"
    (path / "w.txt").write_text("weights")
    return path / "w.txt"


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize(
    "kind", ["nan", "truncated safetensors", "truncated torch", "malicious", "another network", "a folder", "text"]
)
def test_bad_weights_are_refused(kind: str, call, empty_folder, tmp_path) -> None:
    file = weights(kind, tmp_path)
    made = call("compile", "-n", "mlp", "-d", "digits", "-w", file, "--json")
    assert made.code == 2
    assert made.json["error"]["field"] == "weights"
    assert str(file) in made.err
    assert not (tmp_path / "exploded").exists()
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "text", "changed", "empty"])
def test_bad_chip_files_are_refused(damage: str, call, demo, tmp_path) -> None:
    good = (demo[1] / "chip.safetensors").read_bytes()
    middle = len(good) - 1000
    changed = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    bad = {"truncated": good[:-100], "text": b"chip", "changed": changed, "empty": b""}[damage]
    (tmp_path / "chip.safetensors").write_bytes(bad)
    for command in (("cost",), ("simulate", "--data", "digits")):
        made = call(*command, tmp_path / "chip.safetensors")
        assert made.code == 2
        assert made.err.startswith("error: chip: ")


@pytest.mark.parametrize(
    "where", ["config.yaml", "float/weights.safetensors", "chip.safetensors", "result.json", "report.html"]
)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_whole_files_and_the_run_goes_on(where, number, call, monkeypatch, empty_folder) -> None:
    real = os.replace

    def full(source: object, target: object) -> None:
        if str(target).endswith(where):
            raise OSError(number, os.strerror(number), str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        made = call(*QUICK, "--json", "-q")
    assert made.code == 2
    assert made.json["error"]["field"] == "disk"
    assert where in made.json["error"]["message"]
    assert not list(empty_folder.rglob("*.part"))
    assert not list(empty_folder.rglob(where))
    again = call(*QUICK, "--json", "-q")
    assert again.code == 0
    assert again.json["images"]["crossbar"] == 5


def limited(arguments: tuple[str, ...], size: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """A call in a process whose files may not grow beyond `size` bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(
        [sys.executable, "-m", "crossloom", *arguments], capture_output=True, text=True, cwd=folder, preexec_fn=limit
    )


@pytest.mark.parametrize("size", [0, 20_000])
def test_writes_that_really_fail(size: int, empty_folder, call) -> None:
    made = limited((*QUICK, "-q"), size, empty_folder)
    assert made.returncode == 2, made.stderr
    assert made.stderr.count("\n") == 1, made.stderr
    assert "files may not grow that large" in made.stderr or "the disk is full or failing" in made.stderr
    assert not list(empty_folder.rglob("*.part"))
    assert not list(empty_folder.rglob("*.safetensors"))
    assert not list(empty_folder.rglob("*.ckpt"))
    assert call(*QUICK, "-q").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("hardware", "list"), ("hardware", "list", "--json")])
def test_a_full_standard_output(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        made = subprocess.run(
            [sys.executable, "-m", "crossloom", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert made.returncode == 2
    assert made.stderr.splitlines() == ["error: cannot write: the disk is full; nothing half-written was left"]


def test_a_reader_that_goes_away_is_no_error() -> None:
    made = subprocess.run(
        f"{sys.executable} -m crossloom hardware show crimp-isaac | true", shell=True, capture_output=True, text=True
    )
    assert made.stderr == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_rights(call, empty_folder) -> None:
    empty_folder.chmod(0o500)
    try:
        made = call(*QUICK, "-q")
    finally:
        empty_folder.chmod(0o700)
    assert made.code == 2
    assert "Permission denied" in made.err


def test_a_run_folder_that_is_a_file(call, empty_folder) -> None:
    (empty_folder / "there").write_text("mine")
    made = call(*QUICK, "-q", "--run-dir", "there")
    assert made.code == 2
    assert "there" in made.err
    assert (empty_folder / "there").read_text() == "mine"


def test_another_configuration_needs_fresh(call, demo) -> None:
    made = call("demo", "--seed", 1, "--run-dir", demo[1])
    assert made.code == 2
    assert "--fresh" in made.err


def test_training_that_diverges_fails_with_code_1(call, monkeypatch) -> None:
    import crossloom.training.fit as _  # noqa: F401

    module = sys.modules["crossloom.training.fit"]

    def nan(network: torch.nn.Module) -> None:
        raise FloatingPointError("training diverged: fc1.weight is no longer finite; try a lower training.lr")

    monkeypatch.setattr(module, "finite", nan)
    made = call(*QUICK, "--json", "-q")
    assert made.code == 1
    assert made.json["error"]["kind"] == "failed"
    assert "diverged" in made.err


def test_a_fault_of_ours_is_code_1_and_traced_only_if_asked(call, monkeypatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("crossloom.hardware.names", broken)
    made = call("hardware", "list")
    assert made.code == 1
    assert made.err == "error: ZeroDivisionError: oops (a fault of crossloom's; --verbose shows where)\n"
    assert "Traceback" in call("hardware", "list", "--verbose").err
