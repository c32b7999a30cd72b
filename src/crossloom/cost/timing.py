"""How long reads, layers and images take, and how many units of a part keep up with them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from crossloom.cost.actions import Counts, NodeWork
from crossloom.hardware import Action, Chip, Component
from crossloom.weave import Program

IN_READ = (
    Action.INPUT_WRITE, Action.ROW_DRIVE, Action.ARRAY_READ, Action.SAMPLE_HOLD, Action.INTEGRATE, Action.BULK_AND,
    Action.POPCOUNT, Action.ADC_CONVERSION, Action.SHIFT_ADD,
)  # fmt: skip
"""The steps of one read, one after the other where the chip has no fixed cycle."""

BY_COLUMN = (Action.ADC_CONVERSION, Action.BULK_AND, Action.POPCOUNT)
"""Steps that the columns of one converter or counter take in turn."""


@dataclass(frozen=True)
class NodeTime:
    """Seconds that one node takes for one image.

    Attributes:
        compute: the arrays and the parts that serve them.
        network: until its operands have arrived.
        units: on-demand parts by component name, over all copies.
        steps: of that, the arrays' reads by action, one after another (overlapping where the cycle is fixed), and
            the work of each other part, which goes on beside the reads.
    """

    compute: float
    network: float
    units: dict[str, int]
    steps: dict[str, float]

    @property
    def latency(self) -> float:
        """Arriving and computing overlap: the slower of the two."""
        return max(self.compute, self.network)


def read_steps(chip: Chip, parts: Iterable[Component], columns: int, width: int = 1) -> dict[Action, float]:
    """Seconds of each step of one read of an array of which `columns` physical columns are used.

    Columns share converters in runs of `columns_per_adc`, so the fullest converter works min(columns_per_adc,
    columns) times. A serial digit of `width` bits is driven and sampled once a bit and integrated 2^width − 1 times.
    Of several parts that serve a step, the slowest counts.
    """
    converted = min(chip.array.columns_per_adc, columns)
    repeats = dict.fromkeys(BY_COLUMN, converted)
    if chip.array.digit_drive == "serial":
        repeats |= {Action.ROW_DRIVE: width, Action.SAMPLE_HOLD: width, Action.INTEGRATE: (1 << width) - 1}
    times = dict.fromkeys(IN_READ, 0.0)
    for part in parts:
        for action in IN_READ:
            if action in part.actions and part.level == "array":
                times[action] = max(times[action], part.latency * repeats.get(action, 1))
    return times


def read_time(chip: Chip, parts: Iterable[Component], columns: int, width: int = 1) -> float:
    """Seconds of one read of an array, for a digit of `width` bits.

    With a fixed cycle the samples of one read are converted while the next one settles: the cycle, or whichever of
    the two takes longer. Without one, the steps of `read_steps` follow each other.
    """
    times = read_steps(chip, parts, columns, width)
    if chip.array.cycle is None:
        return sum(times.values())
    return max(chip.array.cycle, times[Action.ROW_DRIVE] + times[Action.ARRAY_READ], times[Action.ADC_CONVERSION])


class Clockwork:
    """Times of all nodes.

    Args:
        chip: the hardware.
        parts: its components by name.
        counts: the work of one image.
    """

    def __init__(self, chip: Chip, parts: dict[str, Component], counts: Counts) -> None:
        self.chip, self.parts, self.counts = chip, parts, counts
        routers = [p.latency for p in parts.values() if Action.NETWORK_HOP in p.actions]
        self.hop = max([1 / counts.plan.clock, *routers])

    def _instances(self, part: Component, node: NodeWork) -> float:
        """Parts that share a node's work."""
        count = float(part.count) if isinstance(part.count, float | int) else 1.0
        if node.geometry is None or part.level == "chip":
            return count
        return count * max(node.geometry.instances[part.level], 1)

    def _occupied(self, part: Component, node: NodeWork) -> float:
        """Seconds of one unit's work for one image."""
        return part.latency * sum(w.count for w in node.work if w.action in part.actions)

    def node(self, node: NodeWork, pace: float) -> NodeTime:
        """Times of one node; `pace` is how long the layer before a digital node takes for an image."""
        arrays = 0.0
        copies = 1
        steps: dict[str, float] = {}
        if node.geometry is not None and node.geometry.mapped.blocks:
            copies = node.geometry.mapped.copies
            columns, digits = int(node.geometry.columns.max()), node.geometry.mapped.drives
            reads = math.ceil(node.positions / copies) * node.reads / len(digits)
            for digit in digits:
                arrays += reads * read_time(self.chip, self.parts.values(), columns, digit.width)
                for action, time in read_steps(self.chip, self.parts.values(), columns, digit.width).items():
                    if time:
                        steps[action.value] = steps.get(action.value, 0.0) + reads * time
        compute = arrays
        for name, part in self.parts.items():
            inside = part.level == "array" and any(action in IN_READ for action in part.actions)
            if part.fixed and not inside and Action.NETWORK_HOP not in part.actions:
                busy = self._occupied(part, node) / self._instances(part, node)
                compute = max(compute, busy)
                if busy:
                    steps[name] = busy
        available = compute if node.geometry is not None else pace
        units: dict[str, int] = {}
        for name, part in self.parts.items():
            if part.count == "on_demand" and any(w.action in part.actions for w in node.work):
                busy = self._occupied(part, node) / copies
                units[name] = copies * max(math.ceil(busy / available - 1e-9) if available > 0 else 1, 1)
        return NodeTime(compute, self.counts.plan.time(node.flows, self.hop), units, steps)

    def all(self, program: Program) -> dict[str, NodeTime]:
        """Times by node name. A digital node keeps pace with the slowest layer it reads from."""
        work = {node.name: node for node in self.counts.nodes}
        pace: dict[str, float] = {}
        found: dict[str, NodeTime] = {}
        for node in program.nodes:
            before = max((pace[name] for name in node.inputs), default=0.0)
            pace[node.name] = before
            if node.name in work:
                found[node.name] = self.node(work[node.name], before)
                if work[node.name].geometry is not None:
                    pace[node.name] = found[node.name].compute
        answer = self.counts.nodes[-1]
        found[answer.name] = self.node(answer, pace[program.output.name])
        return found


def image_latency(program: Program, times: dict[str, NodeTime], pipelined: bool) -> float:
    """Seconds from the image's arrival to the answer.

    Every node waits for the whole of its operands. With layers pipelined, branches run side by side and the
    longest way counts; otherwise one node works at a time.
    """
    if not pipelined:
        return sum(time.latency for time in times.values())
    done: dict[str, float] = {}
    for node in program.nodes:
        before = max((done[name] for name in node.inputs), default=0.0)
        done[node.name] = before + (times[node.name].latency if node.name in times else 0.0)
    answer = next(reversed(times.values()))
    return done[program.output.name] + answer.latency
