"""The page in a real browser: no complaint on the console, everything drawn, keyboard, phone, dark and light."""

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from crossloom.compiled import CompiledChip
from crossloom.report import write_report


def open_page(chromium: str, path: Path, scratch: Path, width: int = 1280) -> tuple[str, list[str]]:
    """(the document after its scripts ran, what the console said)."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={scratch / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=4000",
        "--enable-logging=stderr", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def with_script(folder: Path, script: str) -> Path:
    """A copy of the page that runs a script of the test's at its end and keeps its answer in the document."""
    text = write_report(folder).read_text(encoding="utf-8")
    answer = f"<script>document.body.dataset.answer = JSON.stringify((() => {{ {script} }})());</script></body>"
    copy = folder / "probed.html"
    copy.write_text(text.replace("</body>", answer), encoding="utf-8")
    return copy


def answer(dom: str) -> Any:
    found = re.search(r'data-answer="([^"]*)"', dom)
    assert found, "the test's script did not run to its end"
    return json.loads(unescape(found[1]))


def test_nothing_is_complained_of_and_everything_is_drawn(
    chromium: str, folder: Path, chip: CompiledChip, tmp_path: Path
) -> None:
    probe = """
      const canvas = document.getElementById("cells"), image = canvas.getContext("2d");
      const alpha = image.getImageData(0, 0, canvas.width, canvas.height).data.filter((_, i) => i % 4 === 3);
      const seen = (selector) => [...document.querySelectorAll(selector)].filter((e) => {
        const box = e.getBoundingClientRect();
        return box.width + box.height > 0;
      }).length;
      return {
        title: document.getElementById("array-title").textContent,
        facts: document.getElementById("array-facts").textContent,
        size: [canvas.height, canvas.width], alpha: [...new Set(alpha)].sort((a, b) => a - b),
        arrays: seen("#plan button.array"), bars: seen("svg.bar rect"), dots: seen("circle.dot"),
        curves: seen("polyline"), wide: document.documentElement.scrollWidth - innerWidth,
        requests: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
        stops: document.querySelectorAll('#plan button.array[tabindex="0"]').length,
      };"""
    dom, console = open_page(chromium, with_script(folder, probe), tmp_path)
    assert console == []
    found = answer(dom)
    fullest = max(chip.mapping.arrays, key=chip.mapping.array_utilisation)
    layer = chip.mapping.layers[fullest.layer]
    levels = layer.cells(layer.blocks[fullest.block]).levels
    assert found["title"] == fullest.layer
    assert f"{levels.shape[0]} of {chip.hardware.array.rows}" in found["facts"]
    assert found["size"] == list(levels.shape)
    assert found["alpha"] == [0, 85, 170, 255]  # the four levels of a 2-bit cell
    assert found["arrays"] == chip.crossbars
    assert found["dots"] == 3 and found["bars"] > 20 and found["curves"] == 4
    assert found["wide"] <= 0
    assert found["requests"] == []
    assert found["stops"] == 1


def test_a_complaint_would_be_noticed(chromium: str, folder: Path, tmp_path: Path) -> None:
    _, console = open_page(chromium, with_script(folder, "setTimeout(() => missing()); return 1;"), tmp_path)
    assert any("missing is not defined" in line for line in console)
    load = "new Image().src = 'https://example.invalid/x.png'; return 1;"
    _, console = open_page(chromium, with_script(folder, load), tmp_path)
    assert any("Content Security Policy" in line for line in console)


def test_keyboard(chromium: str, folder: Path, chip: CompiledChip, tmp_path: Path) -> None:
    probe = """
      const plan = document.getElementById("plan"), place = [];
      plan.querySelector('[tabindex="0"]').focus();
      for (const key of ["Home", "ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home", "ArrowDown"]) {
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
        place.push([...plan.querySelectorAll("button.array")].indexOf(document.activeElement));
      }
      const outline = getComputedStyle(document.activeElement).outlineStyle;
      const key = [...document.querySelectorAll("button.key")].at(-1);
      key.click();
      return {
        place, outline, dimmed: plan.querySelectorAll(".dim").length,
        shown: document.getElementById("array-title").textContent, pressed: key.getAttribute("aria-pressed"),
        text: document.getElementById("array-place").textContent,
      };"""
    dom, console = open_page(chromium, with_script(folder, probe), tmp_path)
    assert console == []
    found = answer(dom)
    last = chip.crossbars - 1
    assert found["place"][:7] == [0, 1, 2, 1, last, last, 0]
    assert found["place"][7] > 2  # the next row of macros
    assert found["outline"] == "solid"
    final = chip.mapping.arrays[-1]
    assert found["dimmed"] == chip.crossbars - 1 and found["shown"] == final.layer and found["pressed"] == "true"
    assert found["text"] == f"tile {final.tile}, macro {final.macro}, slot {final.slot}"


def test_light_dark_and_paint(chromium: str, folder: Path, tmp_path: Path) -> None:
    probe = """
      const paper = () => getComputedStyle(document.body).backgroundColor;
      const array = document.querySelector("#plan button.array"), colour = () => getComputedStyle(array).color;
      const papers = [paper()], colours = [colour()];
      document.getElementById("theme").click();
      papers.push(paper());
      colours.push(colour());
      document.getElementById("theme").click();
      papers.push(paper());
      document.querySelector('button[data-paint="layer"]').click();
      colours.push(colour());
      dispatchEvent(new Event("beforeprint"));
      const folded = () => document.querySelectorAll("details:not([open])").length;
      const printed = folded();
      dispatchEvent(new Event("afterprint"));
      return { papers, colours, printed, folded: folded() };"""
    dom, console = open_page(chromium, with_script(folder, probe), tmp_path)
    assert console == []
    found = answer(dom)
    first, other, again = found["papers"]
    assert first == again != other
    assert len(set(found["colours"])) == 3
    assert found["printed"] == 0 < found["folded"]


@pytest.mark.parametrize("width", [320, 390, 760, 1024])
def test_narrow_screens_do_not_scroll_sideways(chromium: str, folder: Path, tmp_path: Path, width: int) -> None:
    probe = "parent.postMessage([document.documentElement.scrollWidth, innerWidth], '*'); return 1;"
    inner = with_script(folder, probe)
    frame = folder / "frame.html"
    frame.write_text(
        "<!doctype html><body><script>onmessage = (e) => { document.body.dataset.answer = JSON.stringify(e.data); };"
        f"</script><iframe src='{inner.as_uri()}' width='{width}' height='900' style='border:0'></iframe></body>"
    )
    dom, console = open_page(chromium, frame, tmp_path)
    assert console == []
    scroll, inside = answer(dom)
    assert inside == width
    assert scroll <= width


def test_a_page_without_chip_and_logs(chromium: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"network": "mine", "accuracy": {"float": 0.5}}')
    dom, console = open_page(chromium, write_report(tmp_path), tmp_path)
    assert console == []
    assert "mine" in dom
