"""`crossloom validate` prints each published figure, ours and the ratio, and writes the pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossloom.cli import main
from crossloom.cost import checks
from crossloom.hardware import load, names


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["validate", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_published_figure_that_we_speak_about_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--json")
    assert code == 0
    rows = {(row["chip"], row["figure"]): row for row in json.loads(out)["figures"]}
    for name in names():
        for check in checks(load(name)):
            row = rows.pop((name, check.name))
            assert (row["ours"], row["raw"], row["published"]) == (check.ours, check.raw, check.published)
            assert row["ratio"] == check.ratio
    assert not rows


def test_raw_figures_stand_beside_calibrated_ones(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "rram-40nm")
    assert code == 0
    assert "36.4 TOPS/W" in out and "14.2 TOPS/W" in out and "0.390" in out and "0.932" in out
    assert "raw: without the factors" in out


def test_pages_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "isaac", "--pages", str(tmp_path / "pages"), "--only", "isaac", "--json")
    assert code == 0
    assert json.loads(out)["pages"] == [str(tmp_path / "pages" / "isaac.md")]
    assert "479 GOPS/s/mm²" in (tmp_path / "pages" / "isaac.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--pages", "x", "--only", "isaak"), "did you mean 'isaac'"),
        (("--only", "isaac"), "--pages DIR"),
        (("fefet",), "a chip with published figures"),
        (("isaak",), "did you mean 'isaac'"),
    ],
)
def test_bad_words_are_named(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert expected in " ".join(err.split())
