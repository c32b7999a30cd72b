"""Standalone charts say their values and are well-formed."""

import xml.etree.ElementTree as ET

import pytest

from crossloom.errors import InputError
from crossloom.report.chart import Axis, Series, line_chart, said

SVG = "{http://www.w3.org/2000/svg}"


def test_points_lie_where_their_values_say() -> None:
    series = [Series("a & b", [(1, 10), (10, 100), (100, 1000)]), Series("flat", [(1, 10), (100, 10)], dashed=True)]
    root = ET.fromstring(line_chart("growth", Axis("n", logarithmic=True), Axis("t [s]", logarithmic=True), series))
    spots = [(float(c.get("cx")), float(c.get("cy")), c[0].text) for c in root.iter(f"{SVG}circle") if len(c)]
    assert [words for *_, words in spots[:3]] == ["a & b: 1, 10", "a & b: 10, 100", "a & b: 100, 1000"]
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = spots[:3]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y1 > y2 and spots[3][1] == spots[4][1] == y0
    assert sum("dashed" in (line.get("class") or "") for line in root.iter(f"{SVG}polyline")) == 1


def test_error_bars_end_at_the_spread() -> None:
    chart = line_chart("t", Axis("x"), Axis("y", low=0, high=10), [Series("s", [(0, 5)], spread=[5])])
    (bar,) = [b for b in ET.fromstring(chart).iter(f"{SVG}line") if b.get("class") == "curve c0"]
    assert (float(bar.get("y1")), float(bar.get("y2"))) == (440 - 64, 56)


def test_labels_stand_beside_their_points() -> None:
    chart = line_chart("t", Axis("x"), Axis("y"), [Series("s", [(0, 5), (1, 6)], labels=["<3", "4"])])
    root = ET.fromstring(chart)
    spots = [(float(c.get("cx")) + 5, float(c.get("cy")) - 5) for c in root.iter(f"{SVG}circle") if len(c)]
    written = {
        t.text: (float(t.get("x")), float(t.get("y"))) for t in root.iter(f"{SVG}text") if t.get("class") == "tick"
    }
    assert [written["<3"], written["4"]] == spots


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (0.25, "0.25"), (12_000, "12000"), (1e6, "10⁶"), (2.5e-9, "2.5·10⁻⁹")]
)
def test_numbers_read_well(value: float, words: str) -> None:
    assert said(value) == words


@pytest.mark.parametrize("points", [[], [(0.0, float("nan"))]])
def test_a_chart_of_nothing_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(InputError):
        line_chart("t", Axis("x"), Axis("y"), [Series("s", points)])


def test_a_logarithmic_axis_needs_positive_values() -> None:
    with pytest.raises(InputError, match="logarithmic"):
        line_chart("t", Axis("x", logarithmic=True), Axis("y"), [Series("s", [(0, 1)])])
