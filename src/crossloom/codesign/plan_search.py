"""Plan search: which layers to approximate, and how, so that the chip is smallest at the least harm.

Every layer has options: dense, or an order and a group. An option has a cost (crossbars exactly; area, energy or
latency as the change it makes in the cost model when no other layer changes) and a loss (the rise of the loss on
calibration images when this layer alone is projected). Both are taken to add up over layers, and `plans.solve` finds
the best choice. The predicted cost in crossbars is exact; all else is to be measured, the loss after fine-tuning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from crossloom.codesign.plans import Option, Plan, assembled, solve
from crossloom.codesign.progress import Tick, untold
from crossloom.errors import InputError
from crossloom.frontend import lower
from crossloom.hardware import Array, Chip
from crossloom.mapping import map_program
from crossloom.mapping.blocks import cut
from crossloom.methods import Setting
from crossloom.methods.moments import Moments, projected
from crossloom.methods.polynomials import Run
from crossloom.nn import Conv2d, Linear, Prefix, held_weights, hold_again, woven_layers
from crossloom.weave import InputTransform, OutputTransform, Program, Rescale, WovenLayer
from crossloom.weave.formats import Format

Objective = Literal["area", "energy", "latency"]
DENSE: None = None

SETTINGS: tuple[Setting, ...] = (
    Setting(order=1, group=3), Setting(order=1, group=4), Setting(order=1, group=5), Setting(order=1, group=7),
    Setting(order=1, group=9), Setting(order=2, group=4), Setting(order=2, group=5), Setting(order=2, group=6),
    Setting(order=2, group=7), Setting(order=2, group=9), Setting(order=2, group=10),
)  # fmt: skip
"""Options that a search offers every layer besides dense, as far as they fit it."""


def options_of(
    network: fx.GraphModule,
    batches: Sequence[tuple[Tensor, Tensor]],
    chip: Chip,
    objective: Objective | Literal["crossbars"] = "crossbars",
    offered: Iterable[Setting] = SETTINGS,
    tick: Tick = untold,
) -> dict[str, list[Option]]:
    """Every layer's options with their costs and losses: the sensitivity pass and the counting.

    Args:
        network: converted and calibrated, dense, trained.
        batches: calibration images and labels.
        chip: the hardware.
        objective: what is to be small.
        offered: settings that every layer may take, besides dense.
        tick: told (done, total) of the sensitivity pass.
    """
    settings = settings_of(network, offered)
    if objective == "crossbars":
        cost = crossbar_costs(network, chip, settings)
    else:
        cost = model_costs(network, lower(network), chip, settings, objective)
    return assembled(settings, cost, sensitivity(network, batches, settings, tick))


def search(
    network: fx.GraphModule,
    batches: Sequence[tuple[Tensor, Tensor]],
    chip: Chip,
    *,
    objective: Objective | Literal["crossbars"] = "crossbars",
    saved: float | None = None,
    budget: float | None = None,
    offered: Iterable[Setting] = SETTINGS,
    tick: Tick = untold,
) -> Plan:
    """The best plan for a network under one limit.

    Args:
        network: converted and calibrated, dense, trained.
        batches: calibration images and labels.
        chip: the hardware.
        objective: what is to be small.
        saved: fraction of the dense cost that the plan must save; the predicted loss is least then.
        budget: the largest predicted rise of the loss; the cost is least then.
        offered: settings that every layer may take, besides dense.
        tick: told (done, total) of the sensitivity pass.

    Raises:
        InputError: not exactly one of `saved` and `budget`, or one that no plan meets.
    """
    found = options_of(network, batches, chip, objective, offered, tick)
    dense = sum(options[0].cost for options in found.values())
    return solve(found, budget=budget, target=None if saved is None else dense * (1 - saved))


def settings_of(network: nn.Module, offered: Iterable[Setting] = SETTINGS) -> dict[str, list[Setting | None]]:
    """For every layer dense and the offered settings that fit it, without those that give as many rows or more."""
    result: dict[str, list[Setting | None]] = {}
    for name, layer in woven_layers(network).items():
        result[name] = [DENSE]
        for setting in offered:
            try:
                setting.inputs(name, layer)
            except InputError:
                continue
            result[name].append(setting)
    return result


def core_rows(groups: tuple[Run, ...]) -> int:
    """R: rows of the coefficients."""
    return sum(run.groups * len(run.rows) for run in groups)


def arrays(name: str, layer: Conv2d | Linear, setting: Setting | None, array: Array) -> int:
    """Arrays that a layer takes on the chip, by the mapping's own rule; no block is all zero."""
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    inputs = math.prod(layer.weight_shape[1:])
    rows = inputs if setting is None else core_rows(setting.runs(name, layer))
    outputs = layer.weight_shape[0]
    blank = WovenLayer(
        name, InputTransform.identity(groups * rows), np.ones((groups, rows, outputs // groups), np.int32),
        OutputTransform(np.zeros(outputs, np.int64), Rescale(), Format(32, True)), Format(8, False),
        layer.weight_quantiser.bits, None, np.ones(1),
    )  # fmt: skip
    return cut(blank, array).arrays


def approximated(layer: WovenLayer, groups: tuple[Run, ...]) -> WovenLayer:
    """A dense layer with its core projected on the groups' coefficients, rounded to the same number of bits."""
    count, _, columns = layer.core.shape
    weights = torch.from_numpy(layer.core.transpose(0, 2, 1).reshape(count * columns, -1).astype(np.float64))
    coefficients = projected(weights, groups).numpy()
    parts, start = [], 0
    for run in groups:
        stop = start + run.groups * len(run.rows)
        part = coefficients[:, start:stop].reshape(-1, len(run.rows)) @ run.change
        parts.append(part.reshape(count * columns, -1))
        start = stop
    core = np.concatenate(parts, 1)
    top = (1 << (layer.weight_bits - 1)) - 1
    core = np.rint(core * (top / np.maximum(np.abs(core).max(1, keepdims=True), 1e-30)))
    return replace(
        layer,
        transform=Moments(groups).transform(count),
        core=np.ascontiguousarray(core.reshape(count, columns, -1).transpose(0, 2, 1).astype(np.int32)),
    )


def crossbar_costs(
    network: nn.Module, chip: Chip, options: Mapping[str, Sequence[Setting | None]]
) -> dict[str, list[float]]:
    """Arrays of every option, exactly."""
    layers = woven_layers(network)
    return {name: [float(arrays(name, layers[name], s, chip.array)) for s in found] for name, found in options.items()}


def model_costs(
    network: nn.Module,
    program: Program,
    chip: Chip,
    options: Mapping[str, Sequence[Setting | None]],
    objective: Objective,
) -> dict[str, list[float]]:
    """Area (m²), energy (J) or latency (s) of every option.

    Each is the cost model's change for the whole network when this layer alone changes, on top of an equal share of
    the dense network, so that all-dense adds up to the dense network's figure.

    Args:
        network: converted, for its layers.
        program: the dense network's program.
        chip: the hardware.
        options: by layer, dense first.
        objective: what is counted.
    """
    layers = woven_layers(network)
    dense = _whole(program, chip, objective)
    by_name = {layer.name: layer for layer in program.layers}
    result = {}
    for name, found in options.items():
        result[name] = [dense / len(options)]
        for setting in found[1:]:
            assert setting is not None
            changed = program.replace_layers({name: approximated(by_name[name], setting.runs(name, layers[name]))})
            result[name].append(dense / len(options) + _whole(changed, chip, objective) - dense)
    return result


def _whole(program: Program, chip: Chip, objective: Objective) -> float:
    """The cost model's figure for a program."""
    from crossloom.cost import estimate

    report = estimate(map_program(program, chip))
    return {"area": report.area_m2, "energy": report.energy_j, "latency": report.latency_s}[objective]


@torch.no_grad()
def sensitivity(
    network: fx.GraphModule,
    batches: Sequence[tuple[Tensor, Tensor]],
    options: Mapping[str, Sequence[Setting | None]],
    tick: Tick = untold,
) -> dict[str, list[float]]:
    """Rise of the mean cross-entropy when one layer alone is projected by least squares, for every option.

    Batch norms normalise with each batch's own statistics, before and after, as they will once they have been trained
    again; their running statistics stay as they are. A fall of the loss counts as none.

    Args:
        network: converted and calibrated, dense.
        batches: calibration images and labels.
        options: by layer, dense first.
        tick: told (done, total) after every option.
    """
    result, done, total = {}, 0, sum(len(found) - 1 for found in options.values())
    with batch_statistics(network), held_weights(network):
        prefix = Prefix(network, [x for x, _ in batches])
        before = _loss(prefix, batches)
        for name, layer in woven_layers(network).items():
            prefix.move_to(name)
            kept = layer.weight.detach().clone()
            rises = [0.0]
            for setting in options[name][1:]:
                assert setting is not None
                layer.weight.copy_(nearest(kept.flatten(1), setting.runs(name, layer)).view_as(kept))
                hold_again(network, layer)
                rises.append(max(_loss(prefix, batches) - before, 0.0))
                done += 1
                tick(done, total)
            layer.weight.copy_(kept)
            hold_again(network, layer)
            result[name] = rises
    return result


def lost_share(network: nn.Module, options: Mapping[str, Sequence[Setting | None]]) -> dict[str, list[float]]:
    """What stands for the loss where there are no trained weights: the share 1 − R/K of a layer's freedom that goes.

    It is the expected squared error of projecting white weights, relative to their square; every layer counts alike.
    """
    layers = woven_layers(network)

    def lost(name: str, setting: Setting | None) -> float:
        if setting is None:
            return 0.0
        return 1 - core_rows(setting.runs(name, layers[name])) / math.prod(layers[name].weight_shape[1:])

    return {name: [lost(name, setting) for setting in found] for name, found in options.items()}


def nearest(weight: Tensor, groups: tuple[Run, ...]) -> Tensor:
    """The least-squares approximation of a weight (outputs × inputs)."""
    parts, start = [], 0
    for run in groups:
        basis = torch.from_numpy(run.orthonormal).to(weight)
        stop = start + run.groups * basis.shape[1]
        part = weight[:, start:stop].reshape(-1, basis.shape[1])
        parts.append((part @ basis.T @ basis).view(len(weight), stop - start))
        start = stop
    return torch.cat(parts, 1)


@contextmanager
def batch_statistics(network: nn.Module) -> Any:
    """Batch norms on batch statistics without moving their running ones; everything else in evaluation mode."""
    network.eval()
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counters = [None if n.num_batches_tracked is None else n.num_batches_tracked.clone() for n in norms]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum, counter in zip(norms, momenta, counters, strict=True):
            norm.momentum = momentum
            norm.eval()
            if counter is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(counter)


def _loss(prefix: Prefix, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    logits = zip(prefix.outputs(), batches, strict=True)
    total = sum(float(F.cross_entropy(z, y, reduction="sum")) for z, (_, y) in logits)
    return total / sum(len(y) for _, y in batches)
