"""Every example runs; each checks its own claim by assertion."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT, Run

EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, run: Run) -> None:
    if "onnx" in path.stem and find_spec("onnx2torch") is None:
        pytest.skip("the packages that read ONNX are not installed")
    assert run(str(path)).stdout.strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_claims_something_and_is_on_the_page(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree)), "an example that checks nothing"
    title = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert f'--8<-- "examples/{path.name}"' in page
    assert title in page
