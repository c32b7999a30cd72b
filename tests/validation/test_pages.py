"""The validation pages are what their command writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossloom.cost.validation import SECTIONS, build, render
from crossloom.cost.validation.__main__ import main
from crossloom.errors import InputError

PAGES = Path(__file__).parents[2] / "docs" / "validation"
QUICK = ("isaac", "neurram", "rram-40nm", "crimp-figure-7")


@pytest.mark.parametrize("name", QUICK)
def test_the_committed_page_is_current(name: str) -> None:
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8") == build(name).markdown()


def test_every_section_has_its_page() -> None:
    assert {f"{name}.md" for name in SECTIONS} | {"index.md"} == {path.name for path in PAGES.glob("*.md")}


def test_calibrated_chips_print_raw_figures_too() -> None:
    for name in ("neurram", "rram-40nm"):
        text = build(name).markdown()
        assert "ours, raw" in text
        assert "ours, calibrated" in text
    assert "raw" not in build("isaac").markdown()


def test_the_command_writes_one_section(tmp_path: Path) -> None:
    assert main([str(tmp_path / "new"), "isaac"]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["isaac.md"]
    assert main([str(tmp_path), "isaak"]) == 2
    assert main([]) == 2


def test_an_unknown_section_names_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        build("isaak")
    assert caught.value.nearest == "isaac"


def test_tables_are_rectangular() -> None:
    pages = render([build("isaac")])
    widths = {line.count("|") for line in pages["isaac.md"].splitlines() if line.startswith("|")}
    assert len(widths) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SECTIONS) - set(QUICK)))
def test_the_slow_pages_are_current(name: str) -> None:
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8") == build(name).markdown()
