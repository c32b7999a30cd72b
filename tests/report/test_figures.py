import pytest

from crossloom.report.figures import LEAKAGE, OTHERS, PLAIN, layers, parts
from crossloom.report.run import Entry

PARTS = [f"part{i}" for i in range(10)]


def cost(leakage: float = 0.0) -> Entry:
    """Two layers and a digital node; ten parts, each half as costly as the one before."""
    energies = {name: 2.0**-i for i, name in enumerate(PARTS)}
    areas = {name: 2.0 ** (i - 9) for i, name in enumerate(PARTS)}
    whole, area = sum(energies.values()), sum(areas.values())
    layer = {
        "name": "one", "energy_j": whole + leakage, "leakage_j": leakage, "latency_s": 1.0, "area_m2": area,
        "energy_by_component": energies, "area_by_component": areas,
    }  # fmt: skip
    half = {"name": "two", "energy_j": whole / 2, "latency_s": 4.0, "area_m2": area}
    half |= {"energy_by_component": {name: value / 2 for name, value in energies.items()}}
    idle = {"name": "idle", "energy_j": 0.0, "latency_s": 0.0, "area_m2": 0.0, "energy_by_component": {}}
    components = {
        name: {"energy_j": 1.5 * energies[name], "leakage_j": leakage / 10, "area_m2": areas[name]} for name in PARTS
    }
    return Entry({"cost": {"layers": [layer, half, idle], "components": components}})


def test_bars_add_up() -> None:
    entry = cost(leakage=0.5)
    found = parts(entry)
    colours = {part.name: part.colour for part in found} | {"leakage": LEAKAGE}
    shown = layers(entry, ["one", "two", "idle"], colours)
    assert shown is not None
    assert shown.names == ["one", "two"]
    assert shown.quantities == ["energy", "latency", "area"]
    assert shown.stacked == ["energy", "area"]
    for line in shown.bars:
        for bar in line:
            assert bar is not None
            assert sum(s.length for s in bar.segments) == pytest.approx(100 * bar.number.value / bar.like, abs=0.01)
            edges = [s.left + s.length for s in bar.segments[:-1]]
            assert edges == pytest.approx([s.left for s in bar.segments[1:]], abs=0.01)
            assert len({s.colour for s in bar.segments}) == len(bar.segments)
    energy, latency, area = shown.bars[0]
    assert energy is not None and latency is not None and area is not None
    assert LEAKAGE in {s.colour for s in energy.segments}
    assert latency.segments[0].colour == PLAIN
    two = shown.bars[1]
    assert two[2] is not None and two[2].segments[0].colour == PLAIN  # told without its parts


def test_colours_go_to_what_is_large_in_any_bar() -> None:
    found = parts(cost())
    assert [part.name for part in found] == PARTS  # costliest first
    coloured = {part.name for part in found if part.colour < LEAKAGE}
    assert len(coloured) == LEAKAGE
    assert {"part0", "part1", "part8", "part9"} <= coloured  # the largest in energy and in area
    assert {part.colour for part in found} == {*range(LEAKAGE), OTHERS}
    shares = [part.numbers["energy"][1] for part in found]
    assert sum(shares) == pytest.approx(100)
    assert shares[0] == pytest.approx(2 * shares[1])


def test_cost_without_layers_or_parts() -> None:
    assert layers(Entry({}), [], {}) is None
    assert parts(Entry({})) == []
