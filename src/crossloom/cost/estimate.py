"""Actions × components → area, energy and latency of one image.

Area is that of what is allocated: arrays that hold blocks, macros that hold arrays, tiles that hold macros, and as
many on-demand units as keep up with the arrays. Energy is dynamic energy plus leakage over the interval between
images. Every assumption that the numbers rest on is in the report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from crossloom.cost.actions import Counts, NodeWork, count
from crossloom.cost.activity import Activity
from crossloom.cost.programming import programming
from crossloom.cost.report import RAW, ComponentCost, CostReport, LayerCost
from crossloom.cost.timing import Clockwork, NodeTime, image_latency
from crossloom.hardware import CELLS, Action, Chip, Component, cell_factor, components
from crossloom.mapping import Mapping


class Parts:
    """A chip's components, with widths looked up once."""

    def __init__(self, chip: Chip, calibrated: bool = True) -> None:
        self.by_name = components(chip, calibrated=calibrated)
        self.cell_factor = cell_factor(chip, calibrated=calibrated)
        self._widths: dict[tuple[str, int], Component] = {}

    def at(self, name: str, bits: int | None) -> Component:
        """A part at a width."""
        if bits is None:
            return self.by_name[name]
        key = (name, bits)
        if key not in self._widths:
            self._widths[key] = self.by_name[name].at(bits)
        return self._widths[key]

    def payers(self, action: Action) -> list[str]:
        """Names of the parts that pay for an action."""
        return [name for name, part in self.by_name.items() if action in part.actions]


def estimate(mapping: Mapping, activity: Activity | None = None, *, zero_skipping: bool = False) -> CostReport:
    """Area, energy and latency of one image; of a calibrated chip, the raw headline figures beside them.

    Args:
        mapping: a placed program.
        activity: statistics of a calibration batch (`measure`); without it every row is taken to be driven with
            its largest digit in every cycle, an upper bound, which the report says.
        zero_skipping: the chip leaves out reads in which every row's digit is zero.

    Raises:
        InputError: zero-skipping without activity, activity of another network, or an unknown component.
    """
    chip = mapping.chip
    counts = count(mapping, activity, zero_skipping)

    def report(calibrated: bool) -> CostReport:
        parts = Parts(chip, calibrated)
        times = Clockwork(chip, parts.by_name, counts).all(mapping.program)
        return _Report(mapping, parts, counts, times, activity, zero_skipping).build()

    found = report(True)
    if not chip.components.calibration:
        return found
    raw = report(False)
    return replace(found, raw={key: float(getattr(raw, key)) for key in RAW})


class _Report:
    """Puts one report together."""

    def __init__(
        self, mapping: Mapping, parts: Parts, counts: Counts, times: dict[str, NodeTime], activity: Activity | None,
        zero_skipping: bool,
    ) -> None:  # fmt: skip
        self.mapping, self.parts, self.counts, self.times = mapping, parts, counts, times
        self.chip, self.activity, self.zero_skipping = mapping.chip, activity, zero_skipping
        self.energy = {node.name: self._energy(node) for node in counts.nodes}
        self.area, self.leakage, self.number = {}, {}, {}
        for node in counts.nodes:
            self.area[node.name], self.leakage[node.name], self.number[node.name] = self._silicon(node)

    def _energy(self, node: NodeWork) -> dict[str, float]:
        """Dynamic energy of a node by component, J."""
        found: dict[str, float] = {}
        for work in node.work:
            for name in self.parts.payers(work.action):
                found[name] = found.get(name, 0.0) + work.count * self.parts.at(name, work.bits).energy
        if node.cell_power:
            device = self.chip.device
            energy = node.cell_power * device.read_voltage**2 * device.read_pulse
            found[CELLS] = energy * self.parts.cell_factor
        return found

    def _silicon(self, node: NodeWork) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
        """Area, leakage and number of parts by component that a node has to itself, chip level left out."""
        area: dict[str, float] = {}
        leakage: dict[str, float] = {}
        number: dict[str, float] = {}
        share = {"array": 0.0, "macro": 0.0, "tile": 0.0}
        if node.geometry is not None and node.owner and self.mapping.macros:
            share = {level: float(number) for level, number in node.geometry.instances.items()}
            share["tile"] = share["macro"] * self.mapping.tiles / self.mapping.macros
        for name, part in self.parts.by_name.items():
            if part.level == "chip":
                continue
            if part.count == "entries":
                for table in node.tables if node.owner else ():
                    entry, copies = self.parts.at(name, table.bits), node.geometry.mapped.copies if node.geometry else 1
                    number[name] = number.get(name, 0.0) + table.entries * copies
                    area[name] = area.get(name, 0.0) + table.entries * copies * entry.area
                    leakage[name] = leakage.get(name, 0.0) + table.entries * copies * entry.leakage
                continue
            sized = part
            if part.count == "on_demand":
                widths = [w.bits for w in node.work if w.action in part.actions and w.bits is not None]
                sized = self.parts.at(name, max(widths, default=None))
                count = float(self.times[node.name].units.get(name, 0))
            else:
                count = share[part.level] * float(part.count)
            if count:
                area[name], leakage[name], number[name] = count * sized.area, count * sized.leakage, count
        return area, leakage, number

    def build(self) -> CostReport:
        """The report."""
        program, plan = self.mapping.program, self.counts.plan
        pipelined = self.chip.hierarchy.pipelined
        latency = image_latency(program, self.times, pipelined)
        flows = [node.flows for node in self.counts.nodes]
        interval = latency
        if pipelined:
            link = plan.busiest_link(type(flows[0]).joined(flows)) / plan.bandwidth
            interval = max(link, *(time.latency for time in self.times.values()))
        own = self._chip_level(interval)
        layers = tuple(self._layer(node, interval) for node in self.counts.nodes)
        parts = self._components(interval)
        dynamic = sum(sum(found.values()) for found in self.energy.values())
        leakage = sum(layer.leakage_w for layer in layers) + own["leakage_w"]
        area = sum(layer.area_m2 for layer in layers) + own["area_m2"]
        return CostReport(
            network=program.name, chip=self.chip.name, hardware_hash=self.chip.hash,
            crossbars=self.mapping.crossbars, macros=self.mapping.macros, tiles=self.mapping.tiles,
            utilisation=self.mapping.utilisation, area_m2=area, idle_area_m2=self._idle_area(),
            energy_j=dynamic + leakage * interval, dynamic_j=dynamic, leakage_j=leakage * interval,
            latency_s=latency, interval_s=interval, leakage_w=leakage, operations=2 * program.macs(),
            layers=layers, components=parts, chip_level=own,
            programming=programming(self.mapping, self.parts.by_name), assumptions=tuple(self._assumptions()),
        )  # fmt: skip

    def _layer(self, node: NodeWork, interval: float) -> LayerCost:
        time, energy = self.times[node.name], self.energy[node.name]
        area, leakage = self.area[node.name], sum(self.leakage[node.name].values())
        mapped = node.geometry.mapped if node.geometry is not None else None
        mine = mapped if node.owner else None
        arrays = mine.arrays if mine else 0
        size = self.chip.array.rows * self.chip.array.columns
        actions: dict[str, float] = {}
        for work in node.work:
            actions[work.action.value] = actions.get(work.action.value, 0.0) + work.count
        copies = mapped.copies if mapped else 1
        return LayerCost(
            name=node.name, kind=node.kind, crossbars=arrays,
            rows=mapped.layer.groups * mapped.layer.core.shape[1] if mapped else 0,
            columns=mapped.layer.groups * mapped.layer.core.shape[2] if mapped else 0,
            macros=node.geometry.instances["macro"] if mine and node.geometry else 0, copies=copies,
            positions=node.positions,
            digits=len(mapped.drives) if mapped else 0, cycles=-(-node.positions // copies) * node.reads,
            macs=node.macs, utilisation=mine.used_cells * copies / (arrays * size) if mine and arrays else 0.0,
            busy=time.compute / interval if mapped and interval else 0.0,
            energy_j=sum(energy.values()) + leakage * interval, leakage_j=leakage * interval, leakage_w=leakage,
            latency_s=time.latency, compute_s=time.compute, network_s=time.network, area_m2=sum(area.values()),
            actions=actions, energy_by_component=energy, area_by_component=area, time_by_step=time.steps,
        )  # fmt: skip

    def _chip_level(self, interval: float) -> dict[str, float]:
        """Area and leakage of the parts that the chip has once, which belong to no layer."""
        own = [p for p in self.parts.by_name.values() if p.level == "chip" and p.fixed]
        leakage = sum(p.leakage * float(p.count) for p in own)
        area = sum(p.area * float(p.count) for p in own)
        return {"area_m2": area, "leakage_w": leakage, "leakage_j": leakage * interval}

    def _components(self, interval: float) -> dict[str, ComponentCost]:
        def total(of: dict[str, dict[str, float]], name: str) -> float:
            return sum(found.get(name, 0.0) for found in of.values())

        result = {}
        for name, part in self.parts.by_name.items():
            number, area = total(self.number, name), total(self.area, name)
            leakage = total(self.leakage, name)
            if part.level == "chip" and part.fixed:
                number = float(part.count)
                area, leakage = number * part.area, number * part.leakage
            energy = total(self.energy, name)
            if number or energy:
                result[name] = ComponentCost(
                    part.level, number, energy, leakage * interval, leakage, area, part.source
                )  # fmt: skip
        cells = total(self.energy, CELLS)
        if cells:
            device = self.chip.device
            source = f"V²·G·t of every cell: {device.technology}, {device.read_voltage:g} V, {device.read_pulse:g} s"
            array = self.chip.array
            result[CELLS] = ComponentCost(
                "array", float(self.mapping.crossbars * array.rows * array.columns), cells, 0.0, 0.0, 0.0, source
            )  # fmt: skip
        return result

    def _idle_area(self) -> float:
        """Silicon of empty array slots in allocated macros, and of empty macro slots in allocated tiles."""
        hierarchy, mapping = self.chip.hierarchy, self.mapping
        of_level = {
            level: sum(float(p.count) * p.area for p in self.parts.by_name.values() if p.level == level and p.fixed)
            for level in ("array", "macro")
        }
        macros = mapping.tiles * hierarchy.macros_per_tile
        arrays = macros * hierarchy.arrays_per_macro
        return (arrays - mapping.crossbars) * of_level["array"] + (macros - mapping.macros) * of_level["macro"]

    def _assumptions(self) -> Iterable[str]:
        chip, plan = self.chip, self.counts.plan
        array = chip.array
        if self.activity is None:
            yield "inputs: no activity given, so every row is driven with its largest digit (upper bound)"
        else:
            seen = min((a.vectors for a in self.activity.layers.values()), default=0)
            yield f"inputs: digits measured on at least {seen} input vectors of every layer"
        yield "zero-skipping: " + ("reads without a driven row are left out" if self.zero_skipping else "none")
        for name, entry in chip.components.calibration.items():
            yield f"calibrated: {name}, {entry.source}"
        if chip.components.cell_energy == "conductance":
            yield "cells: V²·G·t with the target conductance of every programmed cell; unused columns draw nothing"
        else:
            yield f"cells: included in array_read of the {chip.components.family} family, whatever they hold"
        if array.readout == "and":
            layers = [(n.positions, n.geometry.mapped) for n in self.counts.nodes if n.geometry is not None]
            writes = max((-(-positions // m.copies) * len(m.drives) for positions, m in layers), default=0)
            life = f"worn out after {chip.device.endurance / max(writes, 1):.2g} images"
            yield f"input planes are written beside the weights: {writes} writes of a cell an image, {life}"
        beat = f"fixed at {array.cycle:g} s" if array.cycle is not None else "the sum of its parts"
        yield f"read cycle: {beat}, {array.columns_per_adc} columns to a converter"
        kept = "only what a window adds to the one before it in its row" if chip.hierarchy.window_reuse else "anew"
        yield f"buffers: input codes are fetched {kept} for every position and macro; tensors written once per tile"
        yield "digital nodes stream behind the layer before them; pooling goes through the buffer"
        links = f"{chip.hierarchy.link_bits} bits at {plan.clock:g} Hz"
        yield f"network: {plan.kind}, links of {links}, the busiest one bounds time"
        if chip.hierarchy.pipelined:
            yield "layers work on successive images at once; within an image each waits for all of its operands"
        else:
            yield "one layer works at a time"
        yield "area: allocated arrays, macros and tiles; empty slots are in idle_area_m2; on-demand units keep pace"
        yield "energy: dynamic, plus leakage over the interval of images; no clock tree or control beyond the parts"
        yield "programming: one row of an array at a time, the arrays of a tile one after another, tiles side by side"
        free = sorted({w.action.value for n in self.counts.nodes for w in n.work if not self.parts.payers(w.action)})
        if free:
            yield f"free of charge, because no component of {chip.components.family} pays for it: {', '.join(free)}"
