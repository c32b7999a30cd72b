"""`crossloom compare`: table, JSON, page, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossloom.cli.compare import _runs


@pytest.fixture
def runs(empty_folder: Path, demo: tuple[dict[str, Any], Path]) -> Path:
    """`runs/` with the demo under two names; the second is worse and has half the area."""
    record, _ = demo
    worse = record | {"accuracy": record["accuracy"] | {"crossbar": 0.5}, "area_m2": record["area_m2"] / 2}
    for name, one in (("first", record), ("second", worse)):
        (empty_folder / "runs" / name).mkdir(parents=True)
        (empty_folder / "runs" / name / "result.json").write_text(json.dumps(one))
    return empty_folder / "runs"


def test_side_by_side(call, runs: Path) -> None:
    made = call("compare", "first", runs / "second")
    assert made.code == 0
    for word in ("first", "second", "lenet5", "crossbar rung", "50.00 %", "0.500 ×", "★"):
        assert word in made.out, word
    assert max(map(len, made.out.splitlines())) <= 118


def test_json_and_page(call, runs: Path, empty_folder: Path) -> None:
    made = call("compare", "first", "second", "--baseline", "second", "--html", "page.html", "--json")
    assert made.code == 0
    (group,) = made.json["groups"]
    assert group["baseline"] == "second"
    assert [run["ratios"]["area_m2"] for run in group["runs"]] == [2.0, 1.0]
    assert made.json["html"] == "page.html"
    assert (empty_folder / "page.html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("first",), "at least two"),
        (("first", "first"), "each run once"),
        (("first", "secnd"), "second"),
        (("first", "second", "--baseline", "frist"), "first"),
    ],
)
def test_bad_input_is_refused_by_name(call, runs: Path, arguments: tuple[str, ...], words: str) -> None:
    made = call("compare", *arguments)
    assert made.code == 2
    assert words in made.err


def test_an_unfinished_run_is_refused(call, runs: Path) -> None:
    (runs / "begun").mkdir()
    made = call("compare", "first", "begun")
    assert made.code == 2 and "complete run" in made.err


def test_completion_knows_finished_runs(runs: Path) -> None:
    (runs / "begun").mkdir()
    assert _runs() == ["first", "second"]
