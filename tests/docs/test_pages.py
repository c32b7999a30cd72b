"""The pages say what is so: programs run, commands exist, numbers are those of a run, links lead on."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from crossloom.cli.app import app
from tests.docs.conftest import ROOT, Run, blocks, commands

PAGES = ("README.md", "docs/tutorial.md")
SMALL = ("--epochs", "1", "--finetune", "1", "--train-images", "100", "--limit", "20")
EVERY_PAGE = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_readme_program_runs(run: Run, tmp_path: Path) -> None:
    """The whole of it: ResNet-18 on the README's own chip; with its lossless converter both rungs agree."""
    (yaml,), (program,) = blocks("README.md", "yaml"), blocks("README.md", "python")
    assert len(program.splitlines()) < 30
    (tmp_path / "my-chip.yaml").write_text(yaml)
    (tmp_path / "program.py").write_text(program)
    printed = run("program.py").stdout
    assert "equal, logit for logit: True" in printed
    assert "resnet18 on my-chip" in printed
    assert (tmp_path / "resnet18.safetensors").stat().st_size > 1 << 20


def test_readme_says_truly_that_six_bits_are_not_enough(tmp_path: Path) -> None:
    from crossloom.hardware import load

    (yaml,) = blocks("README.md", "yaml")
    (tmp_path / "my-chip.yaml").write_text(yaml)
    assert load(tmp_path / "my-chip.yaml").array.lossless
    assert not load(tmp_path / "my-chip.yaml", ["array.b_adc=6"]).array.lossless


def test_tutorial_program_runs(run: Run, tmp_path: Path) -> None:
    (yaml,), (program,) = blocks("docs/tutorial.md", "yaml"), blocks("docs/tutorial.md", "python")
    assert len(program.splitlines()) < 30
    (tmp_path / "my-chip.yaml").write_text(yaml)
    (tmp_path / "mine.py").write_text(program)
    printed = run("mine.py").stdout
    integer, crossbar = (re.search(rf"([\d.]+) % \({rung}, 360 images\)", printed) for rung in ("integer", "crossbar"))
    assert integer and crossbar and integer[1] == crossbar[1]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    found = commands(page)
    assert len(found) >= 4
    for line in found:
        words, command = shlex.split(line)[1:], typer.main.get_command(app)
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            command, words = command.commands[words[0]], words[1:]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= options, line


@pytest.mark.parametrize(
    "line", [line for line in commands("docs/tutorial.md") if " cost " in line or " show " in line]
)
def test_quick_commands_of_the_tutorial_run(line: str, run: Run, tmp_path: Path) -> None:
    (yaml,) = blocks("docs/tutorial.md", "yaml")
    (tmp_path / "my-chip.yaml").write_text(yaml)
    wrong = "b_adcs" in line
    done = run("-m", *shlex.split(line), "--quiet", code=2 if wrong else 0)
    if wrong:
        assert "array.b_adc" in done.stderr


def test_readme_table_is_that_of_the_demo(run: Run) -> None:
    """Its crossbars do not depend on training; a small run must print the same rows with the same counts."""
    shown = blocks("README.md", "text")[0]
    printed = run("-m", "crossloom", "demo", *SMALL, "--quiet").stdout

    def counts(text: str) -> dict[str, str]:
        rows = re.findall(r"^\s+(\w+)\s+(\d+ × \d+)\s+(\d+)\s+(\d+ %)", text, re.M)
        return {name: f"{weights}, {crossbars}, {used}" for name, weights, crossbars, used in rows}

    assert counts(shown) == counts(printed) != {}
    for label in ("accuracy", "crossbars", "area", "energy", "latency", "throughput"):
        assert re.search(rf"^\s+{label}\s", shown, re.M) and re.search(rf"^\s+{label}\s", printed, re.M), label
    assert re.search(r"crossbars\s+23\b", shown) and re.search(r"crossbars\s+23\b", printed)


def test_demo_as_the_tutorial_varies_it(run: Run) -> None:
    line = next(line for line in commands("docs/tutorial.md") if "demo --set" in line)
    record = json.loads(run("-m", *shlex.split(line), *SMALL, "--json", "--quiet").stdout)
    assert set(record["accuracy"]) >= {"float", "integer", "crossbar"}
    assert not record["agreement"]["integer=crossbar"]["equal"]


def test_pictures_are_there_and_small() -> None:
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 150 << 10, picture


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_generated_pages_are_up_to_date(run: Run) -> None:
    """If this fails: `python scripts/docs`, look at what changed, commit it."""
    run(str(ROOT / "scripts" / "docs"), "--check")


def test_the_site_builds_without_warnings(run: Run, tmp_path: Path) -> None:
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("mkdocs and its material theme are not installed")
    run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site"), cwd=ROOT)
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    fetched = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', home)
    assert [address for address in fetched if "canonical" not in address] == []
