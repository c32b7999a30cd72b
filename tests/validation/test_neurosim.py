"""DNN+NeuroSim's VGG8 chips: the same arrays and cells, and figures that come from a run as it is described."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from crossloom.cost.validation import neurosim_runs
from crossloom.cost.validation.neurosim import CHIPS, ours, woven
from crossloom.cost.validation.neurosim_runs import LayerRun, Run, load_run, main, parse, write_traces


@pytest.mark.parametrize("version", CHIPS)
def test_every_layer_takes_as_many_arrays_as_in_neurosim(version: str) -> None:
    run, report = load_run(version), ours(version)
    assert tuple(layer.crossbars for layer in woven(report)) == run.arrays
    assert report.components["crossbar"].area_m2 == pytest.approx(run.area["cells"], rel=1e-4)


@pytest.mark.parametrize("version", CHIPS)
def test_the_parts_of_a_run_sum_to_its_whole(version: str) -> None:
    """Within the rounding of what is printed; V1.4 prints 5 % more area than its parts have, and the page says so."""
    run = load_run(version)
    for figures in [run.energy] if version == "V1.4" else [run.area, run.energy]:
        assert sum(value for name, value in figures.items() if name != "all") == pytest.approx(figures["all"], rel=2e-3)
    assert sum(layer.energy for layer in run.layers) == pytest.approx(run.energy["all"], rel=1e-3)
    if not run.pipelined:
        assert sum(layer.latency for layer in run.layers) == pytest.approx(run.latency["all"], rel=1e-3)


def printed(run: Run) -> str:
    """A run's figures in the words of the program."""
    pipe = "pipeline-system" if run.pipelined else "total"
    clock = "pipeline-system-clock-cycle" if run.pipelined else "layer-by-layer readLatency"
    lines = ["# of tile used for each layer", *(f"layer{i + 1}: {x.tiles}" for i, x in enumerate(run.layers))]
    lines += ["Speed-up of each layer", *(f"layer{i + 1}: {x.copies}" for i, x in enumerate(run.layers))]
    lines += [f"Memory Utilization of Whole Chip: {100 * run.utilisation} % ", "FloorPlan Done"]
    for i, x in enumerate(run.layers):
        lines += [
            f"layer{i + 1}'s readLatency is: {x.latency * 1e9}ns",
            f"layer{i + 1}'s readDynamicEnergy is: {x.energy * 1e12}pJ",
            f"layer{i + 1}'s leakagePower is: {x.leakage * 1e6}uW",
        ]
    titles = {
        "all": "ChipArea ", "cells": "Chip total CIM array ", "network": "Total IC Area on chip ",
        "converters": "Total ADC (or S/As) Area on chip ", "accumulation": "Total Accumulation Circuits on chip ",
        "other": "Other Peripheries (e.g. decoders) ",
    }  # fmt: skip
    lines += ["Summary", *(f"{title}: {run.area[key] * 1e12}um^2" for key, title in titles.items())]
    lines += [
        f"Chip clock period is: {run.clock_period * 1e9}ns",
        f"Chip {clock} (per image) is: {run.latency['all'] * 1e9}ns",
        f"Chip {pipe} readDynamicEnergy (per image) is: {run.energy['all'] * 1e12}pJ",
        f"Chip {pipe} leakage Power is: {run.leakage * 1e6}uW",
    ]  # fmt: skip
    kinds = (("readLatency", "ns", 1e9, run.latency), ("readDynamicEnergy", "pJ", 1e12, run.energy))
    for key, word in (("buffers", "buffer"), ("network", "ic")):
        lines += [f"Chip {word} {kind} is: {of[key] * scale}{unit}" for kind, unit, scale, of in kinds]
    lines.append("Breakdown of Latency and Dynamic Energy")
    for kind, unit, scale, of in kinds:
        rest = of["other"] + of["buffers"] + of["network"]
        for name, value in (("ADC", of["converters"]), ("Accumulation", of["accumulation"]), ("Other", rest)):
            lines.append(f"----------- {name} circuits {kind} is : {value * scale}{unit}")
    return "\n".join([*lines, f"Total Run-time of NeuroSim: {run.seconds} seconds"])


@pytest.mark.parametrize("version", CHIPS)
def test_figures_are_read_from_the_output(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def flat(run: Run) -> dict[str, object]:
        plain = asdict(run)
        layers = plain.pop("layers")
        figures = {key: plain.pop(key) for key in ("area", "energy", "latency")}
        found: dict[str, object] = dict(plain)
        found |= {f"{kind}.{key}": value for kind, of in figures.items() for key, value in of.items()}
        found |= {f"layer{i}.{key}": value for i, layer in enumerate(layers) for key, value in layer.items()}
        return found

    kept = load_run(version)
    assert flat(parse(printed(kept), version)) == {
        key: pytest.approx(value, abs=1e-18) if isinstance(value, float) else value for key, value in flat(kept).items()
    }
    with pytest.raises(ValueError, match="no figure"):
        parse(printed(kept).replace("ChipArea", "Area"), version)
    (tmp_path / "out.txt").write_text(printed(kept), encoding="utf-8")
    assert main(["read", str(tmp_path / "out.txt"), version]) == 0
    assert '"commit"' in capsys.readouterr().out
    assert main(["read"]) == 2


def test_traces_have_the_stated_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neurosim_runs, "VGG8", ((9, 40, 6), (4, 600, 5)))
    write_traces(tmp_path)
    weights = np.loadtxt(tmp_path / "w1.csv", delimiter=",")
    assert weights.shape == (600, 5) and abs(weights).max() <= 1
    assert weights.std() == pytest.approx(0.25, rel=0.05)
    bits = np.loadtxt(tmp_path / "x1.csv", delimiter=",", dtype=int)
    assert bits.shape == (600, 4 * 8) and set(np.unique(bits)) == {0, 1}
    values = bits.reshape(600, 4, 8) @ (1 << np.arange(7, -1, -1))
    assert values.max() <= 127
    assert (values == 0).mean() == pytest.approx(0.5, abs=0.05)
    assert "8 8 128 128 w0.csv x0.csv" in (tmp_path / "run-v1.4.sh").read_text()
    assert LayerRun(1, 2, 3.0, 4.0, 5.0).copies == 2
