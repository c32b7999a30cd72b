"""Many chips: the same program on chips that differ only in their draws, and the accuracy to expect of one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from crossloom.errors import InputError
from crossloom.hardware import Chip
from crossloom.mapping import Mapping
from crossloom.simulate.analog_chip import Conditions
from crossloom.simulate.analog_lookup import LookupKernel, run_chips
from crossloom.simulate.calibration import Calibration
from crossloom.simulate.digital import apply_output, evaluate, quantise, stored
from crossloom.simulate.engine import Kernel
from crossloom.simulate.executor import MEMORY_BUDGET, Executor
from crossloom.simulate.parasitic import Wires
from crossloom.weave import Input, Woven

CHIP_RUNGS = ("analog", "parasitic")
"""The rungs on which each chip has its own cells and converters, drawn from a seed."""
WEIGHT_BUDGET = 1 << 30
"""Bytes of programmed cells that are held at once by default."""


class ChipSet:
    """Several chips running one program side by side.

    What chips have in common is done once: everything up to the first analog layer, and the unfolding and packing of
    any input that all of them see.

    Args:
        mapping: the placed program.
        chips: indices of the chips within the batch of chips `seed`.
        seed: of the batch.
        conditions: of every chip.
        rung: `analog` or `parasitic`.
        device, memory_budget, calibration: as for `Executor`; the budget is shared by the chips.

    Raises:
        InputError: no chips, or a rung on which all chips compute the same.
    """

    def __init__(
        self,
        mapping: Mapping,
        chips: Iterable[int],
        seed: int = 0,
        conditions: Conditions | None = None,
        *,
        rung: str = "analog",
        device: str | torch.device = "cpu",
        memory_budget: int = MEMORY_BUDGET,
        calibration: Calibration | None = None,
    ) -> None:
        if rung not in CHIP_RUNGS:
            raise InputError.choice("rung", rung, CHIP_RUNGS)
        self.indices = tuple(chips)
        if not self.indices:
            raise InputError("chips", self.indices, "at least one chip")
        share = max(memory_budget // len(self.indices), 1)
        self.executors = [
            Executor(
                mapping, rung=rung, device=device, memory_budget=share, calibration=calibration, seed=seed,
                chip_index=k, conditions=conditions,
            )
            for k in self.indices
        ]  # fmt: skip

    @torch.no_grad()
    def run(self, x: torch.Tensor, first_image: int = 0) -> torch.Tensor:
        """Output codes (chips, B, …) of real inputs (B, …)."""
        one = self.executors[0]
        parts = []
        for part in one.batches(x, first_image):
            for other in self.executors[1:]:
                other.clock.first_image = one.clock.first_image
            parts.append(torch.stack(self._evaluate(part)))
        if not parts:
            return torch.empty((len(self.indices), *one.run(x).shape), dtype=stored(one.program.output))
        return torch.cat(parts, dim=1)

    def logits(self, x: torch.Tensor, first_image: int = 0) -> torch.Tensor:
        """Real outputs (chips, B, …), float64."""
        form = self.executors[0].program.output.format
        return (self.run(x, first_image).to(torch.float64) - form.zero_point) * form.scale

    def _evaluate(self, x: torch.Tensor) -> list[torch.Tensor]:
        one, count = self.executors[0], len(self.executors)
        codes: dict[str, list[torch.Tensor]] = {}
        for i, node in enumerate(one.program.nodes):
            inputs = [codes[name] for name in node.inputs]
            if isinstance(node, Input):
                made = [quantise(node, x)]
            elif isinstance(node, Woven):
                axis = -1 if node.layer.convolution is None else 1
                sums = _accumulators([e.kernels[node.name] for e in self.executors], inputs[0])
                made = [apply_output(node.layer.output, acc, axis, stored(node)) for acc in sums]
            else:
                forms = [source.format for source in one.program.sources(node)]
                several = max(map(len, inputs))
                made = [evaluate(node, [v[k % len(v)] for v in inputs], forms) for k in range(several)]
            codes[node.name] = made
            for name in (*node.inputs, node.name):
                if one.last[name] <= i:
                    codes.pop(name, None)
        return [made[k % len(made)] for k in range(count)]


def _accumulators(kernels: list[Kernel], inputs: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """One tensor per chip from one input that all share, or from one input each."""
    lookups = [k for k in kernels if isinstance(k, LookupKernel)]
    if len(inputs) == 1 and len(lookups) == len(kernels):
        yield from run_chips(lookups, inputs[0])
        return
    for k, kernel in enumerate(kernels):
        yield kernel(inputs[k % len(inputs)])


@dataclass(frozen=True)
class ChipAccuracy:
    """Accuracy over chips.

    Attributes:
        values: fraction of images classified rightly, one per chip.
        images: how many were tried on each.
    """

    values: tuple[float, ...]
    images: int

    @property
    def mean(self) -> float:
        """Mean over chips."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        """Standard deviation from chip to chip (n − 1 in the denominator), 0 for one chip."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    def confidence(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval for the mean accuracy of all chips that could be made; infinite for one chip."""
        count = len(self.values)
        if count < 2:
            return -math.inf, math.inf
        half = float(student.ppf(0.5 + level / 2, count - 1)) * self.std / math.sqrt(count)
        return self.mean - half, self.mean + half


def chip_accuracy(
    mapping: Mapping,
    batches: Iterable[Any],
    chips: int = 20,
    seed: int = 0,
    conditions: Conditions | None = None,
    *,
    rung: str = "analog",
    limit: int | None = None,
    first_chip: int = 0,
    device: str | torch.device = "cpu",
    memory_budget: int = MEMORY_BUDGET,
    weight_budget: int = WEIGHT_BUDGET,
    calibration: Calibration | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> ChipAccuracy:
    """Top-1 accuracy of several chips over (input, target) batches.

    Args:
        mapping: the placed program.
        batches: of (input, target); gone through once for every group of chips that fits, an iterator only once.
        chips: how many.
        seed: of the batch of chips.
        conditions: of every chip.
        rung: `analog` or `parasitic`.
        limit: stop after this many images.
        first_chip: chips `first_chip` … `first_chip + chips − 1` of the batch are made.
        device: as for `Executor`.
        memory_budget: as for `Executor`, all chips together.
        weight_budget: bytes of programmed cells to hold at once; chips are simulated in groups that fit.
        calibration: as for `Executor`.
        tick: called after every batch with the images done so far, each counted once a chip.

    Raises:
        InputError: no chips, no images, or a rung on which all chips compute the same.
    """
    if chips < 1:
        raise InputError("chips", chips, "at least one chip")
    each = sum(2 * m.used_cells * m.copies for m in mapping.layers.values())
    group = max(min(weight_budget // max(each, 1), chips), 1)
    again = group == chips or (limit is None and not isinstance(batches, Iterator))
    kept = batches if again else list(first_images(batches, limit))
    right: list[int] = []
    images = done = 0
    for start in range(first_chip, first_chip + chips, group):
        indices = range(start, min(start + group, first_chip + chips))
        made = ChipSet(
            mapping, indices, seed, conditions, rung=rung, device=device, memory_budget=memory_budget,
            calibration=calibration,
        )  # fmt: skip
        counts, images = np.zeros(len(indices), np.int64), 0
        for x, target in first_images(kept, limit):
            guess = made.logits(x, first_image=images).argmax(-1).cpu()
            counts += (guess == target.cpu()).sum(1).numpy()
            images += len(x)
            tick(done + len(indices) * images)
        right += counts.tolist()
        done += len(indices) * images
    if not images:
        raise InputError("batches", "no images", "at least one image")
    return ChipAccuracy(tuple(c / images for c in right), images)


def adds_nothing(chip: Chip, rung: str = "analog") -> bool:
    """True if a chip's description leaves nothing for a rung to add: ideal cells and converters (and ideal wires).

    The floor of a finite on/off ratio is no imperfection here: under the default conditions an ideal reference
    subtracts it.
    """
    device, errors = chip.device, chip.array.adc_errors
    heated = chip.node.temperature != device.reference_temperature and bool(device.tcr_on or device.tcr_off)
    cells = device.variation.model == "none" and not (device.stuck_hrs or device.stuck_lrs or device.read_noise)
    converters = not (errors.gain_sigma or errors.offset_sigma or errors.inl or errors.noise_sigma)
    return cells and converters and not heated and (rung == "analog" or Wires.of(chip.array).ideal)


def first_images(batches: Iterable[Any], limit: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The (input, target) batches of the first `limit` images; of all without a limit."""
    seen = 0
    for x, target in batches:
        if limit is not None:
            x, target = x[: limit - seen], target[: limit - seen]
        if len(x):
            yield x, target
        seen += len(x)
        if limit is not None and seen >= limit:
            return
