"""Netlists, and ngspice as the judge of the transfer matrix."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from crossloom.errors import InputError
from crossloom.hardware import load
from crossloom.mapping import Mapping, map_program
from crossloom.simulate import spice
from crossloom.simulate.parasitic import Wires, effective_conductances
from crossloom.simulate.parasitic_array import driven, of_block, physical
from crossloom.simulate.spice import compare, digit_voltages, run_ngspice, table, write_netlist
from crossloom.weave import Format, Input, InputTransform, OutputTransform, Program, Rescale, Woven, WovenLayer
from tests.simulate.nodal import nodal, relative

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")

WIRES = [
    Wires(2.0, 3.0, 500.0, 100.0),
    Wires(2.0, 3.0, 500.0, 100.0, "both", "bottom"),
    Wires(2.0, 3.0, 500.0, 100.0, "both", "both"),
    Wires(0.0, 3.0, 500.0, 100.0, "both", "both"),
    Wires(2.0, 0.0, 500.0, 100.0),
    Wires(2.0, 3.0, 0.0, 100.0, "both", "bottom"),
    Wires(2.0, 3.0, 500.0, 0.0, "left", "both"),
    Wires(1.5, 1.5),
    Wires(0.0, 0.0, 300.0, 0.0),
    Wires(),
]


def arrays(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows * 1000 + columns)
    g = np.where(rng.random((rows, columns)) < 0.2, 0.0, 10 ** rng.uniform(-7, -3.5, (rows, columns)))
    return g, rng.uniform(0, 0.5, rows)


def worst(g: np.ndarray, v: np.ndarray, wires: Wires) -> float:
    current = run_ngspice(write_netlist(g, v, wires), timeout=600)
    assert current.shape == (g.shape[1],)
    return float(np.abs(effective_conductances(g, wires) @ v - current).max() / np.abs(current).max())


@needs_ngspice
@pytest.mark.parametrize("wires", WIRES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1), (7, 4), (12, 9)])
def test_agrees_with_ngspice(shape: tuple[int, int], wires: Wires) -> None:
    assert worst(*arrays(*shape), wires) <= 1e-8


@needs_ngspice
def test_agrees_with_ngspice_at_size() -> None:
    assert worst(*arrays(40, 32), Wires(1.0, 1.0, 500.0, 100.0)) <= 1e-8


@needs_ngspice
@pytest.mark.parametrize(
    "size", [24, pytest.param(64, marks=pytest.mark.slow), pytest.param(128, marks=pytest.mark.slow)]
)
def test_three_ways_to_the_same_currents(size: int) -> None:
    """Star–mesh reduction, a sparse nodal solve and ngspice; one wordline at 0 V, one cell missing in five."""
    (g, v), wires = arrays(size, size), Wires(1.0, 1.0, 500.0, 100.0)
    v[size // 2] = 0.0
    transfer, solved = effective_conductances(g, wires), nodal(g, wires)
    assert relative(transfer, solved) <= 1e-9
    current = run_ngspice(write_netlist(g, v, wires), timeout=1800)
    assert relative(transfer @ v, current) <= 1e-8
    assert relative(current, solved @ v) <= 1e-11


@pytest.mark.parametrize("wires", WIRES, ids=str)
def test_a_netlist_has_one_element_per_resistor(wires: Wires) -> None:
    rows, columns = 5, 4
    g, v = arrays(rows, columns)
    lines = write_netlist(g, v, wires, "two\nlines").splitlines()
    assert lines[0] == "* two lines"
    assert lines[-2:] == [".op", ".end"]
    elements = [line.split() for line in lines if line[0] in "RV"]
    assert len({e[0] for e in elements}) == len(elements), "every name once"
    assert all(e[1] != e[2] and float(e[-1]) > 0 for e in elements if e[0][0] == "R")
    count = {kind: sum(e[0].startswith(kind) for e in elements) for kind in ("RC", "RW", "RB", "RL", "RR", "RS", "RT")}
    assert count == {
        "RC": np.count_nonzero(g),
        "RW": rows * (columns - 1) * (wires.row_segment > 0),
        "RB": (rows - 1) * columns * (wires.column_segment > 0),
        "RL": rows * (wires.driver > 0),
        "RR": rows * (wires.driver > 0 and wires.drive == "both"),
        "RS": columns * (wires.sense > 0),
        "RT": columns * (wires.sense > 0 and wires.collect == "both"),
    }
    assert [float(e[-1]) for e in elements if e[0].startswith("V") and not e[0].startswith("VS")] == v.tolist()


@pytest.mark.parametrize(
    ("g", "v"),
    [
        (np.ones(3), np.ones(3)),
        (np.ones((3, 0)), np.ones(3)),
        (np.ones((3, 2)), np.ones(2)),
        (-np.ones((3, 2)), np.ones(3)),
        (np.ones((3, 2)), np.full(3, np.nan)),
    ],
)
def test_an_impossible_netlist_is_refused(g: np.ndarray, v: np.ndarray) -> None:
    with pytest.raises(InputError):
        write_netlist(g, v, Wires(1.0))


def test_without_ngspice_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="apt-get install ngspice"):
        run_ngspice("* nothing\n.end\n")


@needs_ngspice
def test_a_broken_netlist_gives_what_ngspice_said() -> None:
    with pytest.raises(RuntimeError, match="ngspice"):
        run_ngspice("* broken\nR1 a b c d e f\n.op\n.end\n")


def test_a_slow_simulator_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ngspice"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setattr(spice, "ngspice", lambda: str(program))
    with pytest.raises(RuntimeError, match=r"not done after 0\.2 s"):
        run_ngspice("* nothing\n.end\n", timeout=0.2)


@pytest.mark.parametrize("said", ["exit 3", "exit 0", "printf 'Variables:\\n0 i(vs0) current\\nBinary:\\nabc' > $4"])
def test_a_failing_simulator_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    program = tmp_path / "ngspice"
    program.write_text(f"#!/bin/sh\necho cannot do that\n{said}\n")
    program.chmod(0o755)
    monkeypatch.setattr(spice, "ngspice", lambda: str(program))
    with pytest.raises(RuntimeError, match="cannot do that"):
        run_ngspice("* nothing\n.end\n")


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    rng = np.random.default_rng(5)
    chip = load(
        "rram-40nm",
        overrides={
            "array.rows": 16, "array.columns": 12, "array.active_rows": 7, "array.columns_per_adc": 4,
            "array.wire_resistance": 5.0, "array.driver_resistance": 200.0, "array.sense_resistance": 50.0,
            "precision.weights": 1,
        },
    )  # fmt: skip
    core = rng.choice([-1, 1], (1, 20, 14))
    layer = WovenLayer(
        "fc", InputTransform.identity(20), core.astype(np.int32),
        OutputTransform(np.zeros(14, np.int64), Rescale(), Format(32, True)), Format(2, False), 1, None, np.ones(1),
    )  # fmt: skip
    form = Format(2, False)
    nodes = (
        Input(name="x", inputs=(), format=form, shape=(20,)),
        Woven(name="n", inputs=("x",), format=form, shape=(14,), layer=layer),
    )
    return map_program(Program("test", nodes), chip)


def test_a_block_lies_next_to_the_drivers_and_the_sense_amplifiers(mapping: Mapping) -> None:
    array = mapping.chip.array
    g = np.arange(1.0, 7.0).reshape(2, 3)
    whole = physical(g, array, 0.5, np.array([8.0, 9.0]))
    assert whole.shape == (16, 13)
    assert whole[-1, :3].tolist() == [1, 2, 3] and whole[-2, :3].tolist() == [4, 5, 6]
    assert whole[-1, -1] == 8 and whole[-2, -1] == 9
    assert np.count_nonzero(whole == 0.5) == 16 * 13 - 8
    assert driven(np.array([0.1, 0.2]), array)[-3:].tolist() == [0, 0.2, 0.1]
    assert np.array_equal(of_block(whole.T, 2, slice(0, 3)), g)
    assert of_block(whole.T, 2, slice(12, 13))[:, 0].tolist() == [8, 9]


def test_voltages_are_digits_of_one_row_group(mapping: Mapping) -> None:
    layer = mapping.layers["fc"]
    x = np.arange(20) % 4
    first = digit_voltages(layer, 0, x, 0.5, digit=0, group=0)
    later = digit_voltages(layer, 0, x, 0.5, digit=1, group=2)
    assert first.tolist() == [0.5 * (i % 2) if i < 7 else 0 for i in range(16)]
    assert later.tolist() == [0.5 * (i % 4 // 2) if i >= 14 else 0 for i in range(16)]


@needs_ngspice
@pytest.mark.parametrize("block", [0, 3])
def test_comparing_one_array(mapping: Mapping, block: int) -> None:
    report = compare(mapping, "fc", block, np.full(20, 3))
    assert report["error"] <= 1e-8
    assert report["array"] == [16, 12]
    assert report["active_rows"] == {0: 7, 3: 4}[block]
    assert len(report["spice"]) == report["used"][1] == {0: 12, 3: 2}[block]
    assert 0 < report["ir_drop"] < 0.5
    np.testing.assert_allclose(report["transfer"], report["spice"], rtol=1e-8)
    assert json.loads(json.dumps(report)) == report
    shown = table(report, columns=5)
    assert "layer fc" in shown and "ngspice" in shown and f"{1e6 * report['spice'][0]:.9f}" in shown
    assert compare(mapping, "fc", block, np.full(20, 3), wires=Wires())["ir_drop"] == pytest.approx(0, abs=1e-9)


@needs_ngspice
def test_the_drawn_input_depends_on_the_seed_alone(mapping: Mapping) -> None:
    one, same, other = (compare(mapping, "fc", seed=s)["spice"] for s in (1, 1, 2))
    assert one == same != other


def test_wrong_names_and_numbers_are_refused(mapping: Mapping) -> None:
    with pytest.raises(InputError, match="layer"):
        compare(mapping, "fc2")
    for wrong in ({"block": 9}, {"digit": 5}, {"group": 3}, {"x": np.zeros(3, int)}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            compare(mapping, "fc", **wrong)  # type: ignore[arg-type]
