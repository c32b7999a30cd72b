"""Runs side by side: groups, ratios, what is best, what is dominated, and the page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from crossloom.errors import InputError
from crossloom.report.compare import compare, page, record
from tests.report.page import Page, resolve
from tests.report.test_browser import answer, open_page
from tests.report.test_page import shown

KEYS = ("crossbars", "area_m2", "energy_j", "latency_s")


@pytest.fixture
def runs(tmp_path: Path, record: dict[str, Any], composed: dict[str, Any]) -> list[Path]:
    """A plain run, a composed one on the same chip, one on another chip that both beat, and one of other data."""
    worse = {key: 2 * record[key] for key in KEYS}
    worse |= {"hardware": "other", "hardware_hash": "ab" * 32, "accuracy": {"float": 0.9, "crossbar": 0.8}}
    elsewhere = {"data": "mnist", "data_fingerprint": "beef"}
    made = {"plain": record, "composed": composed, "worse": record | worse, "mnist": record | elsewhere}
    for name, one in made.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(one))
    return [tmp_path / name for name in made]


def test_ratios_marks_and_groups(runs: list[Path], record: dict[str, Any], composed: dict[str, Any]) -> None:
    digits, mnist = compare(runs)
    assert (digits.network, digits.data, digits.rung, digits.baseline) == ("lenet5", "digits", "crossbar", "plain")
    assert [line.name for line in mnist.lines] == ["mnist"]
    plain, made, worse = digits.lines
    assert (plain.recipe, made.recipe) == ("plain", "two")
    assert set(plain.ratios.values()) == {1.0} and set(worse.ratios.values()) == {2.0}
    assert plain.from_dense is None
    assert made.from_dense == pytest.approx(composed["candidates"][-1]["accuracy"] - 0.9875)
    assert worse.from_float == pytest.approx(-0.1)
    assert worse.dominated_by == ["plain", "composed"] and not plain.dominated_by
    assert plain.best == made.best == {"accuracy", "area", "energy", "crossbars", "latency"} and not worse.best
    assert any("analog" in remark for remark in digits.remarks)
    assert mnist.remarks == [] and mnist.fronts == [] and not mnist.lines[0].best


def test_another_baseline(runs: list[Path]) -> None:
    (digits,) = compare(runs[:2], runs[2])
    assert digits.baseline == "worse" and digits.lines[0].name == "worse"
    assert set(digits.lines[1].ratios.values()) == {0.5}
    digits, mnist = compare(runs, runs[1])
    assert (digits.baseline, mnist.baseline) == ("composed", "mnist")
    assert [line.name for line in digits.lines] == ["plain", "composed", "worse"]


def test_the_highest_rung_that_all_have(runs: list[Path], composed: dict[str, Any]) -> None:
    other = runs[1].parent / "again"
    other.mkdir()
    (other / "result.json").write_text(json.dumps(composed))
    (group,) = compare([runs[1], other])
    assert group.rung == "analog"
    assert group.lines[0].point.spread is not None
    assert group.lines[0].point.spread.value == composed["chips"]["analog"]["std"]
    assert group.remarks == []


def test_unequal_runs_are_told(runs: list[Path], record: dict[str, Any], composed: dict[str, Any]) -> None:
    fewer = record | {"images": {"float": 400, "integer": 400, "crossbar": 50}, "data_fingerprint": "other"}
    (runs[0] / "result.json").write_text(json.dumps(fewer | {"recipe": {"name": "two"}, "hardware_hash": "cd" * 32}))
    (group,) = compare(runs[:2])
    told = "; ".join(group.remarks)
    assert "50 (plain), 200 (composed)" in told and "the images differ" in told and "recipes called two differ" in told
    assert group.lines[0].chip == "crimp-isaac #cdcdcd"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (lambda runs: runs[:1], "at least two"),
        (lambda runs: [runs[0], runs[1], runs[0]], "each run once"),
        (lambda runs: [runs[0], runs[0].parent / "missing"], "complete run"),
    ],
)
def test_bad_input_is_named(runs: list[Path], given: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        compare(given(runs))


def test_runs_without_accuracies_or_a_common_rung(runs: list[Path], record: dict[str, Any]) -> None:
    (runs[0] / "result.json").write_text(json.dumps(record | {"accuracy": {}}))
    with pytest.raises(InputError, match="--evaluate"):
        compare(runs[:2])
    (runs[0] / "result.json").write_text(json.dumps(record | {"accuracy": {"spice": 0.5}}))
    with pytest.raises(InputError, match="rung in common"):
        compare(runs[:2])


def test_the_record_is_plain_and_complete(runs: list[Path]) -> None:
    made = record_of(runs)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    one = made["groups"][0]["runs"][1]
    document = json.loads((runs[1] / "result.json").read_text())
    assert all(one[key] == document[key] for key in KEYS)
    assert one["accuracy"] == document["accuracy"]["crossbar"]
    assert set(one["ratios"]) == set(KEYS)


def record_of(runs: list[Path]) -> dict[str, Any]:
    return record(compare(runs))


def test_every_figure_of_the_page_is_the_one_of_its_run(runs: list[Path]) -> None:
    made = Page(page(compare(runs)))
    documents = [json.loads((run / "result.json").read_text()) for run in runs]
    figures = made.all("data")
    assert len(figures) == 4 * 5  # accuracy and four costs of each run
    for figure in figures:
        exact = resolve(documents, figure.attributes["data-pointer"])
        value, tolerance = shown(figure)
        assert float(figure.attributes["value"]) == exact and abs(value - exact) <= tolerance * (1 + 1e-9)
    pins = made.having("data-x")
    assert len(pins) == 4 * 3
    for pin in pins:
        for axis in ("x", "y"):
            exact = resolve(documents, pin.attributes[f"data-{axis}-pointer"])
            assert float(pin.attributes[f"data-{axis}"]) == exact
    ids = [e.attributes["id"] for e in made.having("id")]
    assert len(ids) == len(set(ids))
    assert all(link.attributes["href"][1:] in ids for link in made.all("a"))
    addresses = [e.attributes[name] for name in ("src", "href") for e in made.having(name)]
    assert all(address.startswith(("#", "data:")) for address in addresses)


def test_what_people_write_stays_text(runs: list[Path], record: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    wicked = record | {"network": evil, "hardware": evil, "recipe": {"name": evil}, "command": ["crossloom", evil]}
    for run in runs[:2]:
        (run / "result.json").write_text(json.dumps(wicked))
    made = Page(page(compare(runs[:2])))
    assert len(made.all("script")) == 1
    assert evil in made.id("group-1").text


def test_in_a_browser(chromium: str, runs: list[Path], tmp_path: Path) -> None:
    probe = """
      const seen = (e) => { const box = e.getBoundingClientRect(); return box.width + box.height > 0; };
      const shown = () => [...document.querySelectorAll("figure.front")].filter(seen).map((e) => e.dataset.cost);
      const charts = [shown()];
      for (const radio of [...document.querySelectorAll('input[type="radio"]')].slice(1)) {
        radio.click();
        charts.push(shown());
      }
      return { charts, rows: document.querySelectorAll("tbody tr").length,
        wide: document.documentElement.scrollWidth - innerWidth };"""
    script = f"<script>document.body.dataset.answer = JSON.stringify((() => {{ {probe} }})());</script></body>"
    path = tmp_path / "compared.html"
    path.write_text(re.sub("</body>", lambda _: script, page(compare(runs))), encoding="utf-8")
    dom, console = open_page(chromium, path, tmp_path)
    assert console == []
    found = answer(dom)
    assert found["charts"] == [["area"], ["energy"], ["crossbars"], ["latency"]]
    assert found["rows"] == 4 and found["wide"] <= 0
