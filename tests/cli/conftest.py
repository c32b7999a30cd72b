"""The command line called in this process, in an empty folder, without the caller's environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crossloom.cli import main


@dataclass(frozen=True)
class Called:
    """Exit code, standard output and standard error of a call."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        found = json.loads(lines[0])
        assert isinstance(found, dict)
        return found


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    def calling(*arguments: object) -> Called:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return Called(code, *capsys.readouterr())

    return calling


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("CROSSLOOM_DATA", raising=False)
    monkeypatch.delenv("CROSSLOOM_WEIGHTS", raising=False)
    return place


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The demo as the README calls it, made once: its record and its folder."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo") / "run"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["demo", "--run-dir", str(folder), "--json", "--quiet"]) == 0
    return json.loads(out.getvalue()), folder
