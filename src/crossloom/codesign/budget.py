"""A chip and a target, and the constraints that meet it: ADMM's budget mode with the cost model as its oracle.

`ADMM(budget(network, batches, "sot-mram-and", "energy", 2e-9).sets)` trains a network into two nanojoules an image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from crossloom.codesign.progress import Tick, untold
from crossloom.compiled import quantisation_for
from crossloom.cost import CostReport, estimate
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, lower
from crossloom.hardware import Chip, load
from crossloom.mapping import map_program
from crossloom.methods import Constraint
from crossloom.methods.admm import ADMM
from crossloom.methods.admm_budget import FORMATS, KEEPS, Cost, Found, Setting, harms, ladders, search
from crossloom.weave.compaction import compacted

TARGETS: dict[str, Callable[[CostReport], float]] = {
    "crossbars": lambda report: float(report.crossbars),
    "area": lambda report: report.area_m2,
    "energy": lambda report: report.energy_j,
    "latency": lambda report: report.latency_s,
}
"""What can be bounded: arrays, m², J an image, s an image."""


def oracle(module: fx.GraphModule, chip: Chip, target: str) -> Cost:
    """The cost of a network whose weights are projected on sets: lowered, compacted, mapped and estimated.

    Inputs are taken at their largest digit (there is no activity), the same for every plan. Costs are remembered.

    Args:
        module: converted and calibrated; it is not changed.
        chip: the hardware.
        target: one of `TARGETS`.

    Raises:
        InputError: an unknown target.
    """
    if target not in TARGETS:
        raise InputError.choice("budget.of", target, TARGETS)
    known: dict[str, float] = {}

    def cost(sets: Mapping[str, Sequence[Constraint]]) -> float:
        key = repr(sorted((name, [repr(s) for s in of_layer]) for name, of_layer in sets.items()))
        if key not in known:
            pruned = copy.deepcopy(module)
            if any(sets.values()):
                method = ADMM(sets)
                method.prepare(pruned)
                method.finish(pruned)
            mapping = map_program(compacted(lower(pruned)), chip)
            known[key] = TARGETS[target](estimate(mapping))
        return known[key]

    return cost


def budget(
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    chip: str | Chip,
    of: str,
    target: float,
    *,
    keeps: Sequence[float] = KEEPS,
    formats: Sequence[str] = FORMATS,
) -> Found:
    """The gentlest constraints that were found with which a network costs at most `target` on a chip.

    Args:
        network: a trained classifier.
        batches: (images, labels) on which the harm of every setting is measured.
        chip: preset or description.
        of: `crossbars`, `area` (m²), `energy` (J an image) or `latency` (s an image).
        target: in that unit.
        keeps: shares of filter shapes to try.
        formats: of weights to try, `set:bits`.

    Raises:
        InputError: an unknown chip, target or format, no batches, or a target that cannot be met (the nearest is said).
    """
    if not batches:
        raise InputError("budget.batches", "none", "at least one batch of (images, labels)")
    hardware = chip if isinstance(chip, Chip) else load(chip)
    module = convert(network, torch.zeros_like(batches[0][0][:2]), quantisation_for(hardware))
    calibrate(module, batches)
    return budget_of(module, batches, hardware, of, target, keeps=keeps, formats=formats)


def budget_of(
    module: fx.GraphModule, batches: Sequence[tuple[Tensor, Tensor]], hardware: Chip, of: str, target: float, *,
    keeps: Sequence[float] = KEEPS, formats: Sequence[str] = FORMATS, tick: Tick = untold,
) -> Found:  # fmt: skip
    """`budget` for a network that is converted and calibrated already, perhaps by other methods; it is not changed."""
    priced = oracle(module, hardware, of)
    settings = [Setting(keep, form) for keep in keeps for form in formats]
    return search(ladders(harms(module, batches, settings, tick=tick)), priced, target)
