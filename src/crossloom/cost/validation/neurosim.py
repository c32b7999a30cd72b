"""DNN+NeuroSim V1.3's default VGG8 chip beside ours.

The figures were printed by NeuroSim V1.3 (github.com/neurosim/DNN_NeuroSim_V1.3 at 388f421, defaults of Param.cpp) on
made-up traces: weights N(0, 0.25²) on an 8-bit grid in (−1, 1), inputs |N(0, 32²)| clipped to 127 with every second
value zero behind the first layer. Ours sees inputs of the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossloom.cost.activity import Activity, activity_of
from crossloom.cost.estimate import estimate
from crossloom.cost.report import CostReport, LayerCost, si
from crossloom.cost.validation.page import Section, Table
from crossloom.cost.validation.programs import program
from crossloom.hardware import load
from crossloom.mapping import Mapping, map_program


@dataclass(frozen=True)
class Run:
    """What NeuroSim printed. SI units; by component: converters, accumulation, all else (network and buffers apart)."""

    tiles: tuple[int, ...] = (1, 1, 2, 2, 4, 4, 32, 1)
    utilisation: tuple[float, ...] = (0.210938, 1, 1, 1, 1, 1, 1, 0.3125)
    arrays_per_tile: int = (1024 // 128) ** 2
    memory_utilisation: float = 0.968584
    area: float = 58.7334e-6
    area_cells: float = 1.5408e-6
    area_network: float = 7.08189e-6
    area_converters: float = 24.5324e-6
    area_accumulation: float = 5.30565e-6
    area_other: float = 20.2727e-6
    latency: float = 1.35931e-3
    latency_converters: float = 63.0762e-6
    latency_buffers: float = 1.00182e-3
    latency_network: float = 165.287e-6
    energy: float = 41.8086e-6
    energy_converters: float = 21.2693e-6
    energy_accumulation: float = 4.86179e-6
    energy_network: float = 10.2233e-6
    energy_buffers: float = 0.465134e-6
    leakage_power: float = 849.834e-6
    leakage_energy: float = 1.48458e-6
    clock_period: float = 2.03892e-9
    seconds: float = 190.0
    layer_energy: tuple[float, ...] = (
        1.32373e-6, 13.0634e-6, 5.48297e-6, 10.3371e-6, 3.72503e-6, 7.20974e-6, 0.660732e-6, 0.00593917e-6,
    )  # fmt: skip
    layer_latency: tuple[float, ...] = (
        379.809e-6, 566.444e-6, 119.167e-6, 193.417e-6, 35.4283e-6, 61.2004e-6, 2.59514e-6, 1.24973e-6,
    )  # fmt: skip


NEUROSIM = Run()


def activity(mapping: Mapping) -> Activity:
    """Inputs of the run's distribution."""
    rng = np.random.default_rng(0)
    vectors = {}
    for i, (name, mapped) in enumerate(mapping.layers.items()):
        codes = np.abs(rng.normal(0, 32, (256, mapped.layer.inputs))).clip(0, 127).astype(np.int64)
        if i:
            codes[rng.random(codes.shape) < 0.5] = 0
        vectors[name] = codes
    return activity_of(mapping, vectors)


def ours(read_pulse: float | None = None) -> CostReport:
    """VGG8 on `neurosim-rram`, one layer at a time as in the run; `read_pulse` in place of the stated one."""
    changes = {"hierarchy.pipelined": False} | ({"device.read_pulse": read_pulse} if read_pulse else {})
    mapping = map_program(program("vgg8", 10, (3, 32, 32)), load("neurosim-rram", changes))
    return estimate(mapping, activity(mapping))


def _row(name: str, theirs: str, mine: str, ratio: float | None, why: str) -> tuple[str, ...]:
    return name, theirs, mine, "" if ratio is None else f"{ratio:.2f}", why


def neurosim() -> Section:
    """The chip as a whole, and layer by layer."""
    run, full = NEUROSIM, ours()
    short = ours(run.clock_period)
    parts = full.components

    def area(*names: str) -> float:
        return sum(parts[name].area_m2 for name in names if name in parts)

    def energy(report: CostReport, *names: str) -> float:
        return sum(report.components[name].energy_j for name in names if name in report.components)

    arrays = sum(run.tiles) * run.arrays_per_tile
    needed = [round(t * run.arrays_per_tile * u) for t, u in zip(run.tiles, run.utilisation, strict=True)]
    mm2 = 1e6
    analog = ("adc", "cells", "sample_hold", "crossbar")
    table = [
        _row("arrays", f"{arrays}", f"{full.crossbars}", full.crossbars / arrays,
             "NeuroSim allocates whole tiles of 64 arrays to a layer and unrolls 3×3 kernels over nine processing "
             "elements; we allocate arrays"),
        _row("utilisation", f"{100 * run.memory_utilisation:.1f} %", f"{100 * full.utilisation:.1f} %", None,
             "the same cells hold weights; theirs counts the slots of whole tiles"),
        _row("cell arrays, area", f"{run.area_cells * mm2:.2f} mm²", f"{area('crossbar') * mm2:.2f} mm²",
             area("crossbar") / run.area_cells, "the same 48 F²; they count their idle arrays as well"),
        _row("converters, area", f"{run.area_converters * mm2:.2f} mm²", f"{area('adc', 'sample_hold') * mm2:.2f} mm²",
             area("adc", "sample_hold") / run.area_converters,
             "theirs are 31 current comparators with references each (flash); ours is a 5-bit SAR"),
        _row("accumulation, area", f"{run.area_accumulation * mm2:.2f} mm²",
             f"{area('shift_add', 'tile_adder') * mm2:.2f} mm²",
             area("shift_add", "tile_adder") / run.area_accumulation,
             "theirs has adder trees at three levels; we add over the blocks of a macro in one accumulator"),
        _row("network, area", f"{run.area_network * mm2:.2f} mm²", f"{area('bus', 'router') * mm2:.2f} mm²",
             area("bus", "router") / run.area_network, "theirs is an H-tree of up to 2048 wires with repeaters; ours "
             "has 32-bit links"),
        _row("all, area", f"{run.area * mm2:.1f} mm²", f"{full.area_m2 * mm2:.1f} mm²", full.area_m2 / run.area,
             "the sum of the above; the rest is theirs: register-file buffers, switch matrices, level shifters"),
        _row("converters and cells, energy", si(run.energy_converters, "J"), si(energy(full, *analog), "J"),
             energy(full, *analog) / run.energy_converters,
             "theirs: the amplifier's fitted power, 0.073 V²·G beyond its own, while it senses (1 ns and more); "
             "ours is 0.25 V²·G for the stated 10 ns read"),
        _row(f"the same with cells on for {run.clock_period * 1e9:.2f} ns, their clock", si(run.energy_converters, "J"),
             si(energy(short, *analog), "J"), energy(short, *analog) / run.energy_converters,
             "what is left: 0.073 against 0.25 V²·G (a factor of 3.4: the drop over selector and clamp), "
             "sensing sooner than the clock, and the weights' distribution"),
        _row("accumulation, energy", si(run.energy_accumulation, "J"), si(energy(full, "shift_add", "tile_adder"), "J"),
             energy(full, "shift_add", "tile_adder") / run.energy_accumulation,
             "one shift-and-add for every conversion on both sides"),
        _row("network, energy", si(run.energy_network, "J"), si(energy(full, "bus", "router"), "J"),
             energy(full, "bus", "router") / run.energy_network,
             "theirs drives repeated wires across a chip of twice the area"),
        _row("buffers, energy", si(run.energy_buffers, "J"), si(energy(full, "buffer"), "J"),
             energy(full, "buffer") / run.energy_buffers,
             "we fetch a window anew for every position and macro; theirs fetches a window\'s new pixels"),
        _row("dynamic energy an image", si(run.energy, "J"), si(full.dynamic_j, "J"), full.dynamic_j / run.energy,
             "the cells' read time"),
        _row("dynamic energy, cells on for their clock", si(run.energy, "J"), si(short.dynamic_j, "J"),
             short.dynamic_j / run.energy, "what is left of the difference is above"),
        _row("standby power", si(run.leakage_power, "W"), si(full.leakage_w, "W"), full.leakage_w / run.leakage_power,
             "theirs assumes low-standby-power transistors (100 pA/µm), ours low-operating-power ones (5 nA/µm)"),
        _row("latency, one layer at a time", si(run.latency, "s"), si(full.latency_s, "s"),
             full.latency_s / run.latency, "three quarters of theirs is the global buffer's port; ours has no such "
             "port but pays for links"),
        _row("time to estimate", f"{run.seconds:.0f} s", "below 1 s", None, "on the same machine, one thread"),
    ]  # fmt: skip
    layers = tuple(
        (
            f"{i + 1}", f"{need}", f"{layer.crossbars}", si(theirs_e, "J"), si(layer.energy_j - layer.leakage_j, "J"),
            si(theirs_t, "s"), si(layer.latency_s, "s"),
        )
        for i, (need, layer, theirs_e, theirs_t) in enumerate(
            zip(needed, _ordered(short), run.layer_energy, run.layer_latency, strict=True)
        )
    )  # fmt: skip
    return Section(
        "neurosim-vgg8",
        "DNN+NeuroSim V1.3's default VGG8 chip",
        (
            "22 nm, 2-bit RRAM of 6 kΩ and on/off ratio 150, 128 × 128 arrays, 8-bit weights and inputs, 5-bit "
            "converters shared by 8 columns. NeuroSim's figures are from a run of ours of V1.3 at 388f421 with the "
            "defaults of its Param.cpp, on made-up traces: weights N(0, 0.25²) on an 8-bit grid in (−1, 1), inputs "
            "|N(0, 32²)| clipped to 127, every second one zero behind the first layer. Ours sees inputs of the same "
            "distribution and the untrained network's weights; none of NeuroSim's code is used.",
            Table(("figure", "NeuroSim", "ours", "ours ÷ theirs", "why they differ"), tuple(table)),
            "Layer by layer (ours with cells on for NeuroSim's clock; arrays are those that hold weights):",
            Table(
                ("layer", "arrays, NeuroSim", "arrays, ours", "energy, NeuroSim", "energy, ours", "latency, NeuroSim",
                 "latency, ours"),
                layers,
            ),
            "NeuroSim is no silicon: where the two differ, the last column says which assumption does it, not who is "
            "right. V1.4's SRAM chip was not run.",
        ),
    )  # fmt: skip


def _ordered(report: CostReport) -> list[LayerCost]:
    return [layer for layer in report.layers if layer.kind == "woven"]
