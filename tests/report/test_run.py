import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from crossloom.compiled import CompiledChip
from crossloom.errors import InputError
from crossloom.report import read_run, write_report
from crossloom.report.run import Entry, Number

ENTRY = Entry({"a": {"b/c~d": 1.5, "n": None, "t": "x", "flag": True}, "list": [{"e": 2}], "nested": [[7]]})


def test_numbers_know_where_they_stand() -> None:
    assert ENTRY.number("a", "b/c~d") == Number("/a/b~1c~0d", 1.5)
    assert ENTRY.at("list", 0).number("e") == Number("/list/0/e", 2)
    assert ENTRY.at("a").numbers is not None
    assert ENTRY.text("a", "t") == "x"
    assert not ENTRY.at("missing", "deeper", 3)


def test_what_is_absent_is_none() -> None:
    assert ENTRY.number("a", "missing") is ENTRY.number("a", "n") is ENTRY.number("list", 5) is None
    assert ENTRY.number("a", "b/c~d", "below a number") is None
    assert list(ENTRY.at("a").rows()) == list(ENTRY.at("list").items()) == []


@pytest.mark.parametrize("key", ["t", "flag"])
def test_something_else_than_a_number_is_refused_by_name(key: str) -> None:
    with pytest.raises(InputError, match=f"result.json/a/{key}"):
        ENTRY.number("a", key)


def test_a_folder_without_a_result(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"result\.json"):
        read_run(tmp_path)
    with pytest.raises(InputError, match="run folder"):
        read_run(tmp_path / "missing")


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": NaN}', '{"a": Infinity}', "", "\udcff", '{"a": 1e999}'])
def test_a_damaged_result(folder: Path, text: str) -> None:
    (folder / "result.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    if "1e999" in text:  # JSON that Python reads as infinity: refused where it is shown
        (folder / "result.json").write_text('{"crossbars": 1e999}')
    with pytest.raises(InputError, match=r"result\.json"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_truncated_chip(folder: Path) -> None:
    file = folder / "chip.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"chip\.safetensors"):
        write_report(folder)


def test_a_chip_of_another_run(folder: Path, record: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(record | {"chip_hash": "0" * 64}))
    with pytest.raises(InputError, match="hash"):
        write_report(folder)


def test_logs(folder: Path) -> None:
    shutil.copy(folder / "float" / "metrics.csv", folder / "metrics.csv")
    own, phase = read_run(folder).logs
    assert (own.title, phase.title) == ("", "float")
    assert own.epochs == [1, 2, 3]
    assert own.series["test_accuracy"] == [None, 0.933, 0.95]
    assert own.series["train_accuracy"] == [0.384, 0.821, None]  # nan is a gap


@pytest.mark.parametrize("text", ["epoch,loss\n1,bad\n", "epoch,loss\n1,2,3\n", b"\xff\xfe\x00epoch"])
def test_a_damaged_log(folder: Path, text: str | bytes) -> None:
    (folder / "float" / "metrics.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"metrics\.csv"):
        read_run(folder)


def test_an_empty_log_is_no_section(folder: Path, chip: CompiledChip) -> None:
    (folder / "float" / "metrics.csv").write_text("epoch,train_loss\n")
    assert 'id="training"' not in write_report(folder).read_text()
