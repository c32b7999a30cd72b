"""Blocks of cores: pruning whole arrays of woven, pruned and integer-trained layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import crossloom
from crossloom.errors import InputError
from crossloom.frontend import calibrate, lower
from crossloom.methods import method
from crossloom.methods.crossbar_masks import CrossbarMasks
from crossloom.methods.integer_training import IntegerTraining
from crossloom.methods.protocol import Method
from crossloom.nn import woven_layers
from tests.methods.crimp_cases import images, integers

ROWS, COLUMNS = 8, 4
WOVEN = {"2": {"order": 1, "group": "kernel"}, "5": {"order": 2, "group": 8}}


def model() -> nn.Module:
    """A plain, a woven and a grouped convolution, and a woven linear layer."""
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, 4),
    )  # fmt: skip


def network(grouped: bool = False) -> tuple[fx.GraphModule, Tensor]:
    """The model woven, with power-of-two integers."""
    x = images((2, 6, 6))
    found = model()
    if grouped:
        found[2] = nn.Conv2d(8, 12, 3, groups=4)
    module = integers(found, x, symmetric_weights=True)
    step = method("approximation", layers=WOVEN if not grouped else {"5": WOVEN["5"]})
    step.prepare(module)
    step.finish(module)
    calibrate(module, [x])
    return module, x


def trained(module: fx.GraphModule, step: Method, x: Tensor, epochs: int = 3) -> None:
    """A few steps of momentum on what the loss of a random target says."""
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    target = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(1))
    for _ in range(epochs):
        optimiser.zero_grad()
        (module(x) - target).square().mean().backward()
        optimiser.step()


def arrays(module: fx.GraphModule) -> int:
    """Arrays of the compiled network: one for every block that holds a weight."""
    program = lower(module)
    total = 0
    for layer in program.layers:
        for core in layer.core if layer.groups == 1 else ():
            for r in range(0, core.shape[0], ROWS):
                for n in range(0, core.shape[1], COLUMNS):
                    total += bool(core[r : r + ROWS, n : n + COLUMNS].any())
    return total


@pytest.mark.parametrize("name", ["crossbar-masks", "block-pruning"])
@pytest.mark.parametrize("grouped", [False, True])
def test_blocks_of_a_woven_layer_are_those_of_its_core(name: str, grouped: bool) -> None:
    module, x = network(grouped)
    before, dense = module(x).detach(), arrays(module)
    step = method(name, keep=0.5, rows=ROWS, columns=COLUMNS)
    step.prepare(module)
    if name == "crossbar-masks":
        # The division by a mask's value is rounded: a weight on the border between two codes may take the other.
        assert float((module(x).detach() - before).abs().max()) < 0.1 * float(before.abs().max())
    trained(module, step, x)
    if isinstance(step, CrossbarMasks):
        step.zero(module)
    calibrate(module, [x])
    masked = module(x)
    figures = step.finish(module)
    assert torch.equal(module(x), masked)
    assert figures["grouped"] == (["2"] if grouped else [])
    assert arrays(module) == figures["blocks"] == round(0.5 * dense)
    wide = COLUMNS * 4 * 2  # an 8-bit weight takes four cells of 2 bits, twice
    chip = {
        "array.rows": ROWS, "array.active_rows": ROWS, "array.columns": wide, "array.columns_per_adc": wide,
        "array.encoding": "differential", "array.flip": False,
    }  # fmt: skip
    if not grouped:
        assert crossloom.compile(module, crossloom.load("crimp-isaac", chip)).crossbars == figures["blocks"]


@pytest.mark.parametrize("name", ["crossbar-masks", "block-pruning"])
def test_blocks_that_are_gone_do_not_come_back(name: str) -> None:
    module, x = network()
    layer = woven_layers(module)["2"]
    with torch.no_grad():
        layer.weight.view(12, -1)[:4, :ROWS] = 0.0
        woven_layers(module)["5"].weight.zero_()
    dense = arrays(module)
    step = method(name, keep=1.0, rows=ROWS, columns=COLUMNS)
    step.prepare(module)
    trained(module, step, x)
    figures = step.finish(module)
    assert not layer.weight.flatten(1)[:4, :ROWS].any() and not woven_layers(module)["5"].weight.any()
    assert figures["blocks"] == arrays(module) == dense


def test_integer_training_keeps_its_range() -> None:
    x = (images((2, 6, 6)) * 15).round()
    module = crossloom.convert(model(), x[:2])
    integer = IntegerTraining(weights=3, activations=4)
    integer.prepare(module)
    calibrate(module, [x])
    before = module(x).detach()
    weights = {name: layer.weight.detach().clone() for name, layer in woven_layers(module).items()}
    step = CrossbarMasks(0.5, ROWS, COLUMNS)
    step.prepare(module)
    assert torch.equal(module(x), before), "masks begin at 1"
    assert all(torch.equal(layer.weight, weights[name]) for name, layer in woven_layers(module).items())
    values = torch.cat([m.values.detach().reshape(-1) for m in step.masks(module).values()])
    assert float(values.std()) > 0.05, "masks are ranked by their blocks' size"
    step.zero(module)
    masked = module(x)
    figures = step.finish(module)
    assert torch.equal(module(x), masked) and figures["blocks"] == arrays(module)


@pytest.mark.parametrize("name", ["crossbar-masks", "block-pruning"])
def test_one_bit_weights_have_no_zero(name: str) -> None:
    module: Any = crossloom.convert(model(), images((2, 6, 6)))
    IntegerTraining(weights=1).prepare(module)
    with pytest.raises(InputError, match="2 bits or more"):
        method(name, keep=0.5).prepare(module)
    assert not any(len(layer.shaping) for layer in woven_layers(module).values())


def test_layers_that_share_a_weight_share_their_mask() -> None:
    shared = nn.Linear(8, 8)
    x = images((8,))
    module = integers(nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(8, 3)), x)
    before = module(x).detach()
    step = CrossbarMasks(1.0, 4, 4)
    step.prepare(module)
    assert float((module(x).detach() - before).abs().max()) < 0.1 * float(before.abs().max())
    step.finish(module)
    assert not any(len(layer.shaping) for layer in woven_layers(module).values())


def test_masks_wait_for_a_change_of_basis_that_mixes() -> None:
    module: Any = crossloom.convert(model(), images((2, 6, 6)))
    method("approximation", layers={"2": {"order": 2, "basis": "index"}}).prepare(module)
    step = CrossbarMasks(0.5, ROWS, COLUMNS)
    step.prepare(module)
    with pytest.raises(InputError, match=r"Approximation\.finish"):
        step.finish(module)
