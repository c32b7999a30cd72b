"""DNN+NeuroSim's default VGG8 chips (V1.3: RRAM, V1.4: SRAM) beside ours, each difference explained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from crossloom.cost.activity import activity_of
from crossloom.cost.estimate import estimate
from crossloom.cost.report import CostReport, LayerCost, si
from crossloom.cost.validation.neurosim_reasons import TEXT, reasons
from crossloom.cost.validation.neurosim_runs import Run, input_codes, load_run
from crossloom.cost.validation.page import Section, Table
from crossloom.cost.validation.programs import program
from crossloom.hardware import load
from crossloom.mapping import map_program

CHIPS = {"V1.3": "neurosim-rram", "V1.4": "neurosim-sram"}
"""Our preset of each version's default chip."""

CONVERTING = ("adc", "sample_hold", "cells", "crossbar", "column_multiplexer")
ACCUMULATION = ("shift_add", "tile_adder", "transform_adder")
NETWORK = ("bus", "router")
"""Our components under NeuroSim's headings."""

SENSED, COMPARING = 0.0631 * 1e-9 / 1.25, 31 * 1.7e-6 * 1e-9
"""W·Ω·s and J: what V1.3 charges a column of resistance R for the 1 ns of sensing it: 0.0631 W ÷ R, and 1.7 µW for each
of 31 comparators (22 nm, low standby power, 0.5 V). An access transistor of a quarter of R_on lies in series."""


@cache
def ours(version: str) -> CostReport:
    """VGG8 on our preset with NeuroSim's copies of every layer; inputs of the traces' distribution."""
    run = load_run(version)
    network = program("vgg8", 10, (3, 32, 32))
    names = [node.layer.name for node in network.woven()]
    chip = load(CHIPS[version], {"hierarchy.pipelined": run.pipelined})
    mapping = map_program(network, chip, dict(zip(names, (layer.copies for layer in run.layers), strict=True)))
    rng = np.random.default_rng(0)
    vectors = {
        name: input_codes(rng, mapped.layer.inputs, 256, i == 0).T
        for i, (name, mapped) in enumerate(mapping.layers.items())
    }
    return estimate(mapping, activity_of(mapping, vectors))


def woven(report: CostReport) -> list[LayerCost]:
    """Matrix layers in order."""
    return [layer for layer in report.layers if layer.kind == "woven"]


@dataclass(frozen=True)
class Row:
    """One figure of both, and why they differ."""

    name: str
    theirs: str
    mine: str
    ratio: float | None
    why: str

    def cells(self) -> tuple[str, ...]:
        """For the table."""
        return self.name, self.theirs, self.mine, "" if self.ratio is None else f"{self.ratio:.2f}", self.why


def _sum(report: CostReport, key: str, names: tuple[str, ...]) -> float:
    return float(np.sum([getattr(report.components[n], key) for n in names if n in report.components]))


def rows(version: str, why: dict[str, str]) -> list[Row]:
    """Tiles, utilisation, area, energy and latency by component; `why` by heading."""
    run, report = load_run(version), ours(version)
    found = [
        Row("tiles", f"{sum(layer.tiles for layer in run.layers)}", f"{report.tiles}", None, why["tiles"]),
        Row("arrays", f"{sum(run.arrays)}", f"{report.crossbars}", report.crossbars / sum(run.arrays), why["arrays"]),
        Row("utilisation", f"{100 * run.utilisation:.1f} %", f"{100 * report.utilisation:.1f} %",
            report.utilisation / run.utilisation, why["utilisation"]),
    ]  # fmt: skip

    def area(name: str, key: str, mine: float) -> Row:
        theirs = run.area[key]
        return Row(f"area: {name}", f"{theirs * 1e6:.2f} mm²", f"{mine * 1e6:.2f} mm²", mine / theirs,
                   why[f"area {key}"])  # fmt: skip

    parts = {
        "cells": ("cell arrays", ("crossbar",)),
        "converters": ("converters", ("adc", "sample_hold", "column_multiplexer")),
        "accumulation": ("accumulation", ACCUMULATION),
        "network": ("network", NETWORK),
    }
    listed = [area(name, key, _sum(report, "area_m2", names)) for key, (name, names) in parts.items()]
    rest = report.area_m2 - sum(_sum(report, "area_m2", names) for _, names in parts.values())
    found += [*listed, area("buffers, drivers, pooling, activation", "other", rest), area("all", "all", report.area_m2)]

    def energy(name: str, key: str, mine: float, theirs: float | None = None) -> Row:
        theirs = run.energy[key] if theirs is None else theirs
        return Row(f"energy: {name}", si(theirs, "J"), si(mine, "J"), mine / theirs, why[f"energy {name}"])

    shares = {
        "converters": ("converters and cells", CONVERTING), "accumulation": ("accumulation", ACCUMULATION),
        "network": ("network", NETWORK), "buffers": ("buffers", ("buffer",)),
    }  # fmt: skip
    found += [energy(name, key, _sum(report, "energy_j", names)) for key, (name, names) in shares.items()]
    left = report.dynamic_j - sum(_sum(report, "energy_j", names) for _, names in shares.values())
    found += [energy("registers, drivers, pooling, activation", "other", left)]
    found += [energy("all, dynamic", "all", report.dynamic_j)]
    found.append(
        Row("standby power", si(run.leakage, "W"), si(report.leakage_w, "W"), report.leakage_w / run.leakage,
            why["leakage"])
    )  # fmt: skip
    return [*found, *_times(run, report, why)]


def _times(run: Run, report: CostReport, why: dict[str, str]) -> list[Row]:
    """Latency by part: the sum of the layers one after another, or the slowest of pipelined ones."""
    total = max if run.pipelined else sum
    layers = woven(report)

    def step(*names: str) -> float:
        return float(total(sum(layer.time_by_step.get(name, 0.0) for name in names) for layer in layers))

    mine = {
        "converters": step("array_read", "adc_conversion"), "accumulation": step("row_drive", "shift_add"),
        "network": float(total(layer.network_s for layer in layers)), "buffers": step("buffer"),
        "all": report.interval_s if run.pipelined else report.latency_s,
    }  # fmt: skip
    names = {
        "converters": "sensing and converting", "accumulation": "accumulation", "buffers": "buffers",
        "network": "network", "all": "an image a beat of the pipeline" if run.pipelined else "layer after layer",
    }  # fmt: skip
    return [
        Row(f"latency: {name}", si(run.latency[key], "s"), si(mine[key], "s"), mine[key] / run.latency[key],
            why[f"latency {key}"])
        for key, name in names.items()
    ]  # fmt: skip


def layer_table(version: str) -> Table:
    """Arrays, energy and time of every layer."""
    run, report = load_run(version), ours(version)
    lines = tuple(
        (
            f"{i + 1}", f"{theirs.copies}", f"{theirs.tiles}", f"{arrays}", f"{mine.crossbars}", si(theirs.energy, "J"),
            si(mine.energy_j - mine.leakage_j, "J"), si(theirs.latency, "s"), si(mine.latency_s, "s"),
        )
        for i, (theirs, arrays, mine) in enumerate(zip(run.layers, run.arrays, woven(report), strict=True))
    )  # fmt: skip
    return Table(
        ("layer", "copies", "tiles, NeuroSim", "arrays, NeuroSim", "arrays, ours", "energy, NeuroSim", "energy, ours",
         "latency, NeuroSim", "latency, ours"),
        lines,
    )  # fmt: skip


def figures(version: str) -> dict[str, float]:
    """What the explanations speak of: energies in µJ, of a conversion in fJ."""
    run, report, chip = load_run(version), ours(version), load(CHIPS[version])
    conversions = sum(layer.actions["adc_conversion"] for layer in woven(report))
    cells, adc = report.components["cells"].energy_j, report.components["adc"].energy_j
    sensed = cells * SENSED / (chip.device.read_voltage**2 * chip.device.read_pulse)
    gates = ("input_register", "output_register", "router", "shift_add", "row_driver", "adc")
    return {
        "cell_f2": chip.device.cell_area_f2,
        "link_bits": chip.hierarchy.link_bits,
        "unexplained": (2 * run.area["all"] - sum(run.area.values())) * 1e6,
        "clock": run.clock_period * 1e9,
        "seconds": run.seconds,
        "acc_theirs": run.energy["accumulation"] / conversions * 1e15,
        "acc_ours": _sum(report, "energy_j", ACCUMULATION) / conversions * 1e15,
        "gates_ours": 100 * _sum(report, "leakage_w", gates) / report.leakage_w,
        "cells": cells * 1e6,
        "cells_sensed": sensed * 1e6,
        "comparators": COMPARING * conversions * 1e6,
        "sum": (sensed + COMPARING * conversions) * 1e6,
        "adc": adc * 1e6,
        "adc_each": adc / conversions * 1e15,
        "cell_each": cells / conversions * 1e15,
        "conv_theirs": run.energy["converters"] / conversions * 1e15,
        "conv_ours": _sum(report, "energy_j", CONVERTING) / conversions * 1e15,
        "bus": (max if run.pipelined else sum)(layer.time_by_step.get("bus", 0.0) for layer in woven(report)) * 1e6,
        "without": (report.dynamic_j - cells + sensed) * 1e6,
    }


def neurosim() -> Section:
    """Both versions."""
    heads = ("figure", "NeuroSim", "ours", "ours ÷ theirs", "why they differ")
    parts: list[str | Table] = [TEXT["intro"]]
    for version in CHIPS:
        known = figures(version)
        table = Table(heads, tuple(row.cells() for row in rows(version, reasons(version, known))))
        parts += [TEXT[version].format(**known), table, "Layer by layer:", layer_table(version)]
    return Section("neurosim-vgg8", "DNN+NeuroSim's default VGG8 chips, V1.3 and V1.4", (*parts, TEXT["end"]))
