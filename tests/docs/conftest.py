"""What the tests of the documentation share: the repository's pages and the programs in the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def blocks(page: str, language: str, title: str | None = None) -> list[str]:
    """The fenced code blocks of a page in one language, or those with a title."""
    found = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    return [body for word, words, body in found if word == language and (title is None or f'title="{title}"' in words)]


def commands(page: str) -> list[str]:
    """The `crossloom` command lines of a page, from `sh` blocks and blocks indented by four spaces."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```(?!sh)\w+.*?^```$", "", text, flags=re.M | re.S)
    lines = re.findall(r"^(?: {4})?(?:[A-Z_]+=\S+ )?(?:\.venv/bin/)?(crossloom .*)$", text, re.M)
    return [line.partition(" #")[0].strip() for line in lines]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program in a scratch folder with few threads; fails with its output unless it ends as expected."""

    def call(*arguments: str, code: int = 0, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call
