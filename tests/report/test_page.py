import json
import re
from pathlib import Path
from typing import Any

import pytest

from crossloom.compiled import CompiledChip
from crossloom.report import write_report
from crossloom.report.units import AREAS, PREFIXES
from tests.report.page import Element, Page, details, resolve

FACTORS = {name + unit: 10.0**power for power, name in PREFIXES.items() for unit in ("J", "Js", "s", "W")}
FACTORS |= {name: factor for factor, name in AREAS}
FACTORS |= {"%": 0.01, "": 1.0, "images/s": 1.0, "TOPS/W": 1.0, "TOPS/mm²": 1.0}
FACTORS |= {f"{name}OPS/{per}": 10.0 ** (power - 12) for power, name in PREFIXES.items() for per in ("W", "mm²")}


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def shown(element: Element) -> tuple[float, float]:
    """(value that the text says, half a unit of its last digit) in SI units."""
    text, _, unit = element.text.partition("\u00a0")
    text = text.replace("\u202f", "").replace("−", "-")
    decimals = len(text.partition(".")[2])
    return float(text) * FACTORS[unit], 0.5000001 * 10.0**-decimals * FACTORS[unit]


def test_every_figure_is_the_one_of_the_record(folder: Path, record: dict[str, Any]) -> None:
    page = page_of(folder)
    figures = page.all("data")
    assert len(figures) > 100
    for figure in figures:
        exact = resolve(record, figure.attributes["data-pointer"])
        assert float(figure.attributes["value"]) == exact
        value, tolerance = shown(figure)
        assert abs(value - exact) <= tolerance * (1 + 1e-9), figure
    bars = [e for e in page.all("rect") if "data-pointer" in e.attributes]
    assert len(bars) > 30
    for bar in bars:
        assert float(bar.attributes["data-value"]) == resolve(record, bar.attributes["data-pointer"])


def test_the_headline_is_complete(folder: Path) -> None:
    page = page_of(folder)
    told = {figure.attributes["data-pointer"] for figure in page.all("data")}
    rungs = {f"/accuracy/{rung}" for rung in ("float", "integer", "crossbar")}
    assert rungs | {"/crossbars", "/area_m2", "/energy_j", "/latency_s"} <= told
    assert {
        "/cost/throughput",
        "/cost/tops_per_watt",
        "/cost/programming/energy_j",
        "/cost/levels/tile/area_m2",
    } <= told
    assert [heading.text for heading in page.all("h1")] == ["lenet5 on crimp-isaac"]
    whole = "".join(e.text for e in page.all("main"))
    assert "−0.75 points from float" in whole
    assert "integer and crossbar: equal, logit for logit, on all 200 images" in whole
    assert "crossbar rung on the first 200 of 400 test images" in whole


def test_the_page_says_how_to_make_it_again_and_what_from(folder: Path, chip: CompiledChip) -> None:
    page = page_of(folder)
    assert page.id("command").text == "crossloom demo --set array.b_adc=8 'a name'"
    hashes = {e.attributes["data-hash"]: e.text for e in page.having("data-hash")}
    assert hashes == {"config": "c0ffee", "hardware": chip.hardware.hash, "chip": chip.hash}
    sources = page.id("sources").text
    assert all(path in sources for path in chip.hardware.sources if not path.startswith("published"))
    assert "CRIMP, ACM TECS 2023" in sources and "Assumptions of the estimate" in sources
    run = page.id("run").text
    assert "network:\n  name: lenet5" in run and "a processor" in run and "12.5 s" in run


def test_every_array_is_on_the_plan(folder: Path, chip: CompiledChip) -> None:
    page = page_of(folder)
    arrays = [e for e in page.all("button") if "array" in e.attributes.get("class", "").split()]
    assert len(arrays) == chip.crossbars
    data = details(page)
    names = list(chip.mapping.layers)
    for array, placed in zip(arrays, chip.mapping.arrays, strict=True):
        assert names[int(array.attributes["data-layer"])] == placed.layer
        assert int(array.attributes["data-block"]) == placed.block
        assert float(array.attributes["data-use"]) == chip.mapping.array_utilisation(placed)
        assert placed.layer in array.attributes["aria-label"]
        assert data["layers"][int(array.attributes["data-layer"])][placed.block]["map"]


def test_nothing_is_fetched(folder: Path) -> None:
    text = write_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"@import|url\(|https?://(?!.*</code>)", page.all("style")[0].text)
    addresses = [e.attributes[name] for name in ("src", "href", "action") for e in page.having(name)]
    assert addresses and all(address.startswith(("#", "data:")) for address in addresses)
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_the_markup_is_sound(folder: Path) -> None:
    page = page_of(folder)
    ids = [e.attributes["id"] for e in page.having("id")]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"][1:] in ids
    for image in page.all("svg"):
        assert "aria-hidden" in image.attributes or image.attributes["aria-label"]
    for button in page.all("button"):
        assert button.text.strip() or button.attributes["aria-label"]


EVIL = "<script>alert(1)</script>"


def test_what_people_write_stays_text(folder: Path, record: dict[str, Any]) -> None:
    layers = [
        {**layer, "name": f'"><img src=x onerror=alert(1)>{i}'} for i, layer in enumerate(record["cost"]["layers"])
    ]
    components = {f"'\"{EVIL}": {"energy_j": 1.0, "area_m2": 1.0}, **record["cost"]["components"]}
    evil = record | {
        "network": EVIL, "data": EVIL, "hardware": EVIL, "accuracy": {EVIL: 0.5}, "notes": [EVIL],
        "cost": record["cost"] | {"layers": layers, "components": components, "assumptions": [EVIL]},
        "config": {EVIL: "</pre>" + EVIL}, "command": ["crossloom", EVIL], "config_hash": EVIL,
        "versions": {EVIL: EVIL}, "environment": {"processor": EVIL}, "timings": {},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(evil))
    (folder / "float").rename(folder / "<b>phase")
    (folder / "<b>phase" / "metrics.csv").write_text(f"epoch,{EVIL}\n1,2\n")
    page = page_of(folder)
    assert len(page.all("script")) == 2  # the page's own and the floor plan's data
    assert not page.all("img") and not page.all("b", onerror="alert(1)")
    assert not any(name.startswith("on") for e in page.elements for name in e.attributes)
    assert page.all("h1")[0].text.startswith(EVIL)
    assert page.id("command").text == f"crossloom '{EVIL}'"
    assert "<b>phase" in page.id("training").text


def test_the_script_element_cannot_be_closed_from_within() -> None:
    from crossloom.report.page import environment_for_templates

    text = environment_for_templates().from_string("{{ x | tojson }}").render(x={"a": "</script><!--"})
    assert "<" not in text


@pytest.mark.parametrize(
    ("absent", "section"), [("accuracy", "accuracy"), ("cost", "cost"), ("command", "command"), ("chip", "floorplan")]
)
def test_a_section_without_data_is_left_out(folder: Path, record: dict[str, Any], absent: str, section: str) -> None:
    if absent == "chip":
        (folder / "chip.safetensors").unlink()
    (folder / "result.json").write_text(json.dumps({k: v for k, v in record.items() if k != absent}))
    page = page_of(folder)
    assert not page.all(id=section)
    assert page.id("run")


def test_an_almost_empty_result(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"network": "mine"}')
    page = page_of(tmp_path)
    assert page.all("h1")[0].text == "mine"
    assert not page.all("data") and not page.all("table")


def test_nested_accuracies_and_a_command_in_words(folder: Path, record: dict[str, Any]) -> None:
    nested = {"float": {"value": 0.5, "images": 10}, "crossbar": {"value": 0.25, "images": 10}}
    (folder / "result.json").write_text(json.dumps(record | {"accuracy": nested, "command": "crossloom demo"}))
    page = page_of(folder)
    assert page.all("data", data_pointer="/accuracy/crossbar/value")
    assert page.id("command").text == "crossloom demo"


def test_the_page_is_written_whole_or_not_at_all(
    folder: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_report(folder).read_text()
    assert before == write_report(folder).read_text()  # the same run makes the same page

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(folder)
    assert (folder / "report.html").read_text() == before
    assert not list(folder.glob(".report*"))
