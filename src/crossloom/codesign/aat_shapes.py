"""AAT's plans by shape alone: what they save and cost on the chip, and SOT-MRAM against RRAM arrays under them.

Nothing here needs trained weights: crossbars follow from shapes, area and time from the mapped program, and energy is
that of random weights with every row driven.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from crossloom.codesign.aat_trial import COSTS, figures
from crossloom.codesign.plan_search import approximated, crossbar_costs, lost_share, settings_of
from crossloom.codesign.plans import Plan, assembled, solve
from crossloom.codesign.results import Budget, Row
from crossloom.codesign.targets import random_chip
from crossloom.compiled import quantisation_for
from crossloom.cost import CostReport, estimate
from crossloom.cost.validation.devices import BASE, CHIPS, CLAIM, RRAM, SOT
from crossloom.frontend import convert
from crossloom.hardware import Chip, load
from crossloom.mapping import map_program
from crossloom.methods.polynomials import runs
from crossloom.training import SOURCES, build_network
from crossloom.weave import Program

DATA = "cifar100"
"""The paper's."""
SHAPES = "Plans by shape alone, CIFAR-100 (random weights, every row driven)"
DEVICES = "ResNet18 under its plan by shape: SOT-MRAM in place of RRAM arrays"


def untrained(network: str, chip: Chip) -> fx.GraphModule:
    """A network for the paper's data with random weights, converted."""
    source = SOURCES[DATA]
    model = build_network(network, len(source.classes), source.shape).eval()
    return convert(model, torch.zeros(2, *source.shape), quantisation_for(chip))


def target_of(dense: float, reduction: float) -> float:
    """The most crossbars that save `reduction` per cent of `dense`."""
    return float(int(dense * (1 - reduction / 100) + 1e-9))


def shape_plan(module: nn.Module, chip: Chip, reduction: float) -> Plan:
    """The plan that saves so many per cent of the crossbars and keeps most of the layers' freedom.

    Args:
        module: the converted network; its weights do not matter.
        chip: the hardware.
        reduction: per cent.

    Raises:
        InputError: the reduction is out of reach on this chip; the message says what is not.
    """
    options = settings_of(module)
    found = crossbar_costs(module, chip, options)
    dense = sum(of_layer[0] for of_layer in found.values())
    return solve(assembled(options, found, lost_share(module, options)), target=target_of(dense, reduction))


def largest_reduction(module: nn.Module, chip: Chip) -> float:
    """Per cent of the crossbars that are saved when every layer takes its smallest option."""
    found = crossbar_costs(module, chip, settings_of(module)).values()
    return 100 * (1 - sum(min(of_layer) for of_layer in found) / sum(of_layer[0] for of_layer in found))


def compressed(dense: Program, plan: Plan) -> Program:
    """A program with its planned layers replaced by their projections."""
    changed = {}
    for layer in dense.layers:
        setting = plan.layers[layer.name]
        if setting is not None:
            kernel = layer.convolution.kernel if layer.convolution else (0, 0)
            n = {"kernel": kernel[0] * kernel[1], "kernel-row": kernel[1]}.get(str(setting.group), setting.group)
            groups = runs(layer.inputs // layer.groups, int(n), setting.order, setting.basis, setting.growth)
            changed[layer.name] = approximated(layer, groups)
    return dense.replace_layers(changed)


def shape_rows(network: str, name: str, reduction: float, chip: Chip, plain: Chip, command: str) -> Iterator[Row]:
    """A network's plan, and what the chip pays for it.

    Args:
        network: ours.
        name: the paper's word for it.
        reduction: the paper's, per cent.
        chip: on which it can be reached.
        plain: the preset without changes.
        command: makes the rows again.
    """

    def row(table: str, label: str, metric: str, unit: str, paper: float | None, ours: float) -> Row:
        return Row(
            table=table, row=label, metric=metric, unit=unit, paper=paper, ours=float(f"{ours:.7g}"), spread=None,
            budget=Budget(epochs=0, images=0, device="cpu"), command=command, config_hash=None,
        )  # fmt: skip

    module = untrained(network, chip)
    plan = shape_plan(module, chip, reduction)
    size = f"{name}, {chip.array.rows} × {chip.array.columns} arrays"
    program = random_program(network)
    plans = {"dense": program, "plan": compressed(program, plan)}
    for label, made in plans.items():
        mapping = map_program(made, chip)
        yield row(SHAPES, f"{size}, {label}", "crossbars", "arrays", None, mapping.crossbars)
        if label == "plan":
            saved = 100 * (1 - mapping.crossbars / plan.dense)
            yield row(SHAPES, f"{size}, plan", "reduction of crossbars", "%", reduction, saved)
        found = figures(estimate(mapping), chip)
        for metric, key, unit in COSTS:
            yield row(SHAPES, f"{size}, {label}", metric, unit, None, found[key])
    most = f"{name}, {plain.array.rows} × {plain.array.columns} arrays, smallest option of every layer"
    yield row(SHAPES, most, "reduction of crossbars", "%", reduction, largest_reduction(module, plain))
    if network == "resnet18-cifar":
        for around, a, b, rram, sot in device_sweep(plans["plan"]):
            for metric, claim, before, after in (
                ("latency", CLAIM[0], rram.latency_s, sot.latency_s),
                ("energy", CLAIM[1], rram.energy_j, sot.energy_j),
            ):
                change = 100 * (after / before - 1)
                yield row(DEVICES, f"{around}: {a} → {b}", f"change of {metric}", "%", round(100 * claim, 6), change)


def random_program(network: str) -> Program:
    """The integer program of a network with random weights."""
    return random_chip(network, "crimp-isaac", data=DATA).chip.program


def device_sweep(made: Program) -> Iterator[tuple[str, str, str, CostReport, CostReport]]:
    """(surroundings, RRAM, SOT, cost on RRAM, cost on SOT): the sourced points of the validation page."""

    def cost(device: str, changes: dict[str, object]) -> CostReport:
        return estimate(map_program(made, load(BASE, {"device": device, **changes})))

    for around, changes in CHIPS.items():
        rram = {name: cost(device, changes) for name, device in RRAM.items()}
        sot = {name: cost("sot-mram", {**changes, **more}) for name, more in SOT.items()}
        for a, one in rram.items():
            for b, two in sot.items():
                yield around, a, b, one, two
