"""The page of a recipe's run: spread, candidates, noise, residuals, steps, each figure where the record has it."""

import json
from pathlib import Path
from typing import Any

import pytest

from crossloom.report import write_report
from crossloom.report.pareto import Point, beside, best, candidates, fronts, numbered
from crossloom.report.plots import residuals
from crossloom.report.run import Entry, Number
from crossloom.report.steps import tell
from tests.report.page import Page, resolve
from tests.report.test_browser import answer, open_page, with_script
from tests.report.test_page import page_of, shown

COSTS = {"area": "area_m2", "energy": "energy_j", "crossbars": "crossbars", "latency": "latency_s"}


def test_every_figure_is_the_one_of_the_record(composed_folder: Path, composed: dict[str, Any]) -> None:
    page = page_of(composed_folder)
    for figure in page.all("data"):
        exact = resolve(composed, figure.attributes["data-pointer"])
        assert float(figure.attributes["value"]) == exact
        value, tolerance = shown(figure)
        assert abs(value - exact) <= tolerance * (1 + 1e-9), figure
    for element in page.having("data-value"):
        assert float(element.attributes["data-value"]) == resolve(composed, element.attributes["data-pointer"])
    for pin in page.having("data-x"):
        for axis in ("x", "y"):
            exact = resolve(composed, pin.attributes[f"data-{axis}-pointer"])
            assert float(pin.attributes[f"data-{axis}"]) == exact


def test_cards_are_held_against_the_dense_network(composed_folder: Path, composed: dict[str, Any]) -> None:
    page = page_of(composed_folder)
    told = {e.attributes["data-of"]: e for e in page.having("data-of")}
    assert set(told) == {f"/{key}" for key in COSTS.values()}
    for pointer, element in told.items():
        assert element.attributes["data-to"] == f"/candidates/0{pointer}"
        ratio = resolve(composed, pointer) / resolve(composed, element.attributes["data-to"])
        text = element.text.partition(" ×")[0]
        assert abs(float(text) - ratio) <= 0.5000001 * 10.0 ** -len(text.partition(".")[2])
    assert page.all("data", data_pointer="/chips/analog/std")


def test_a_run_without_a_step_has_no_ratios(composed_folder: Path, composed: dict[str, Any]) -> None:
    alone = composed | {"candidates": composed["candidates"][:1]}
    (composed_folder / "result.json").write_text(json.dumps(alone))
    page = page_of(composed_folder)
    assert not page.having("data-of") and not page.all(id="candidates")


def test_every_candidate_is_on_every_chart_and_in_the_table(composed_folder: Path, composed: dict[str, Any]) -> None:
    page = page_of(composed_folder)
    charts = [e for e in page.all("figure") if "data-cost" in e.attributes]
    assert [e.attributes["data-cost"] for e in charts] == list(COSTS)
    pins = page.having("data-x")
    assert len(pins) == len(charts) * len(composed["candidates"])
    for pin in pins:
        assert any(one["name"] in pin.text for one in composed["candidates"])
    for i in range(len(composed["candidates"])):
        for key in ("accuracy", *COSTS.values()):
            assert page.all("data", data_pointer=f"/candidates/{i}/{key}"), (i, key)
    boxes = [e for e in page.all("input") if e.attributes["type"] == "radio"]
    assert len(boxes) == 4 and sum("checked" in box.attributes for box in boxes) == 1


def test_noise_residuals_and_steps_are_drawn(composed_folder: Path, composed: dict[str, Any]) -> None:
    page = page_of(composed_folder)
    chips = {e.attributes["data-pointer"] for e in page.all("path") if "data-pointer" in e.attributes}
    points = composed["noise"]
    assert chips == {f"/noise/{i}/values/{j}" for i, p in enumerate(points) for j in range(len(p["values"]))}
    training = page.id("training").text
    assert training.index("Float training") < training.index("Step 1: prune") < training.index("primal residual")
    assert "dual residual" in training and "conv1, columns" in training
    recipe = page.id("recipe").text
    assert "approximate" in recipe and "name: two" in recipe and "12 epochs" in recipe
    for pointer in ("/steps/0/figures/admm/kept/fc1", "/steps/0/figures/admm/dense/conv1", "/steps/0/epochs"):
        assert page.all("data", data_pointer=pointer)


@pytest.mark.parametrize(("absent", "section"), [("noise", "noise"), ("candidates", "candidates")])
def test_a_section_without_data_is_left_out(
    composed_folder: Path, composed: dict[str, Any], absent: str, section: str
) -> None:
    assert page_of(composed_folder).all(id=section)
    (composed_folder / "result.json").write_text(json.dumps({k: v for k, v in composed.items() if k != absent}))
    page = page_of(composed_folder)
    assert not page.all(id=section)
    assert not page.all("a", href=f"#{section}")


def test_many_residuals_are_coloured_by_their_set() -> None:
    rows = [
        {"update": u, "layer": f"layer{i}", "constraint": one, "primal": 0.0 if u else 1.0, "dual": 1.0}
        for u in range(2) for i in range(6) for one in ("columns", "levels")
    ]  # fmt: skip
    primal, _ = residuals(Entry(rows))
    assert len(primal.lines) == 12
    assert [line.name for line in primal.lines if line.name] == ["columns", "levels"]
    assert {line.colour for line in primal.lines} == {0, 1}
    assert all(0 <= y <= 100 for line in primal.lines for _, y, _ in line.points)
    assert residuals(Entry([])) == residuals(Entry(None)) == []


def test_the_front_is_what_nothing_dominates() -> None:
    known = [(1.0, 0.9), (2.0, 0.95), (2.0, 0.8), (3.0, 0.95), (0.5, 0.5), (1.0, 0.9)]
    assert best(known) == [True, True, False, False, True, True]


def test_stairs_pass_through_the_front_in_order(composed: dict[str, Any]) -> None:
    for chart in fronts(candidates(Entry(composed))):
        ahead = {pin.at for pin in chart.pins if pin.front}
        assert ahead <= set(chart.stairs)
        xs, ys = [x for x, _ in chart.stairs], [y for _, y in chart.stairs]
        assert xs == sorted(xs) and ys == sorted(ys, reverse=True)  # to the right and upwards


def test_a_wide_span_is_logarithmic_and_equal_points_have_a_scale() -> None:
    def point(name: str, area: float) -> Point:
        return Point(name, Number("/a", 0.9), {"area": Number("/b", area)})

    (chart,) = fronts([point("a", 1e-6), point("b", 1e-4)])
    assert chart.logarithmic
    (chart,) = fronts([point("a", 1e-6), point("b", 1e-6)])
    assert not chart.logarithmic and all(pin.front for pin in chart.pins)
    assert fronts([point("a", 1e-6)]) == []


def test_names_cover_neither_pins_nor_each_other() -> None:
    assert beside([(50.0, 50.0)], ["alone"]) == ["above"]
    crowd = beside([(50.0, 50.0), (50.5, 50.0), (51.0, 50.0)], ["first one", "second one", "third one"])
    assert len([side for side in crowd if side]) == len({side for side in crowd if side})
    assert beside([(0.0, 50.0)], ["left edge"])[0] == "right"


def test_in_a_browser(chromium: str, composed_folder: Path, composed: dict[str, Any], tmp_path: Path) -> None:
    probe = """
      const seen = (e) => { const box = e.getBoundingClientRect(); return box.width + box.height > 0; };
      const shown = () => [...document.querySelectorAll("figure.front")].filter(seen).map((e) => e.dataset.cost);
      const radios = [...document.querySelectorAll('input[type="radio"]')], charts = [shown()];
      for (const radio of radios.slice(1)) { radio.click(); charts.push(shown()); }
      const tabs = radios.filter((e) => e.tabIndex === 0).length;
      const pin = [...document.querySelectorAll("a.pin")].find(seen);
      pin.focus();
      const array = [...document.querySelectorAll("#plan button.array")].at(-1);
      array.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
      const hovered = document.getElementById("array-place").textContent;
      document.querySelector("#plan button.array").focus();
      const tile = document.querySelector("#plan .tile");
      return {
        charts, tabs, pins: [...document.querySelectorAll("a.pin")].filter(seen).length,
        focused: document.activeElement.className, hovered,
        afterwards: document.getElementById("array-place").textContent, use: Number(tile.dataset.use),
        band: document.querySelectorAll("polygon.band").length, curves: document.querySelectorAll("polyline").length,
        wide: document.documentElement.scrollWidth - innerWidth,
      };"""
    dom, console = open_page(chromium, with_script(composed_folder, probe), tmp_path)
    assert console == []
    found = answer(dom)
    assert found["charts"] == [[cost] for cost in COSTS]
    assert found["pins"] == len(composed["candidates"])
    assert found["hovered"] != found["afterwards"] == "tile 0, macro 0, slot 0"
    assert 0 < found["use"] < 1
    assert found["band"] == 1 and found["curves"] == 4 + 4 + 8 + 2 + 4  # trainings, residuals, noise, stairs
    assert found["wide"] <= 0


def test_a_phone(chromium: str, composed_folder: Path, tmp_path: Path) -> None:
    inner = with_script(composed_folder, "parent.postMessage(document.documentElement.scrollWidth, '*'); return 1;")
    frame = composed_folder / "frame.html"
    frame.write_text(
        "<!doctype html><body><script>onmessage = (e) => { document.body.dataset.answer = JSON.stringify(e.data); };"
        f"</script><iframe src='{inner.as_uri()}' width='390' height='900' style='border:0'></iframe></body>"
    )
    dom, console = open_page(chromium, frame, tmp_path)
    assert console == []
    assert answer(dom) <= 390


def test_the_markup_is_sound(composed_folder: Path) -> None:
    page = Page(write_report(composed_folder).read_text("utf-8"))
    ids = [e.attributes["id"] for e in page.having("id")]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"][1:] in ids
    for image in page.all("svg"):
        assert "aria-hidden" in image.attributes or image.attributes["aria-label"]


def test_points_in_one_place_are_one_heap(composed: dict[str, Any]) -> None:
    first, *_, last = composed["candidates"]
    same = [last | {"name": f"again{i}"} for i in range(3)]
    chart = fronts(candidates(Entry({"candidates": [first, last, *same]})))[0]
    assert [pin.label for pin in chart.pins] == ["1", "2", "3", "4", "2–5"]
    assert [pin.side != "" for pin in chart.pins] == [True, False, False, False, True]
    assert chart.pins[-1].tag == "approximate … again2"
    assert numbered([1, 4]) == "1, 4"


def test_what_methods_say_becomes_facts_and_columns() -> None:
    said = {"updates": 3, "done": True, "kept": {"a": 1, "b": 2}, "records": [{"x": 1}],
            "layers": {"a": {"rows": 5, "pair": [1250, 3]}, "b": {"rows": 6}}}  # fmt: skip
    told = tell("method", Entry(said, "/m"))
    assert told.facts == [("updates", Number("/m/updates", 3)), ("done", "yes")]
    assert told.columns == {
        "kept": {"a": Number("/m/kept/a", 1), "b": Number("/m/kept/b", 2)},
        "rows": {"a": Number("/m/layers/a/rows", 5), "b": Number("/m/layers/b/rows", 6)},
        "pair": {"a": "1\u202f250, 3"},
    }
    assert told.rows == ["a", "b"]
