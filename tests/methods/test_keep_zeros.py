"""What is zero stays zero, whatever the core stands for, and whatever trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import crossloom
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, lower
from crossloom.methods import method
from crossloom.methods.integer_training import IntegerTraining
from crossloom.methods.tied_rows import tie_rows
from crossloom.nn import woven_layers
from crossloom.weave import InputTransform
from tests.methods.crimp_cases import images


def network(woven: bool, tied: bool, integer: bool) -> tuple[Any, Tensor]:
    """A network with batch norms and a grouped convolution, some of its core weights zero."""
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip
    x = (images((2, 6, 6)) * 15).round() if integer else images((2, 6, 6))
    module = convert(model, x[:2])
    if woven:
        step = method("approximation", layers={"*": {"order": 1, "group": 4}})
        step.prepare(module)
        step.finish(module)
    if tied:
        layer = woven_layers(module)["7"]
        rows = layer.weight.shape[1]
        tie_rows(layer, InputTransform.sum([k % 7 for k in range(rows)]))
    if integer:
        IntegerTraining(weights=3, activations=4).prepare(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in woven_layers(module).values():
            layer.weight.mul_(torch.rand(layer.weight.shape, generator=generator) < 0.6)
    calibrate(module, [x])
    return module, x


@settings(max_examples=12, deadline=None)
@given(
    woven=st.booleans(), tied=st.booleans(), integer=st.booleans(),
    optimiser=st.sampled_from([torch.optim.SGD, torch.optim.Adam]),
)  # fmt: skip
def test_zeros_stay_zeros_and_the_rest_trains(woven: bool, tied: bool, integer: bool, optimiser: Any) -> None:
    module, x = network(woven, tied, integer)
    layers = woven_layers(module)
    zeros = {name: layer.weight.detach() == 0 for name, layer in layers.items()}
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    module.eval()
    answer = module(x).detach()
    step = method("keep-zeros")
    step.prepare(module)
    assert torch.equal(module(x), answer)
    module.train()
    moving = optimiser(module.parameters(), lr=0.01, **({"momentum": 0.9} if optimiser is torch.optim.SGD else {}))
    for _ in range(3):
        moving.zero_grad()
        module(x).square().mean().backward()
        moving.step()
    module.eval()
    trained = module(x).detach()
    figures = step.finish(module)
    assert torch.equal(module(x), trained)
    for name, layer in layers.items():
        assert not layer.weight[zeros[name]].any() and not len(layer.shaping)
        assert not torch.equal(layer.weight, before[name])
        assert figures["layers"][name] == [int((~zeros[name]).sum()), zeros[name].numel()]
    assert figures["kept"] == sum(kept for kept, _ in figures["layers"].values()) < figures["weights"]
    for layer, mine in zip(lower(module, "net").layers, zeros.values(), strict=True):
        codes = torch.from_numpy(layer.core).transpose(1, 2).reshape(mine.flatten(1).shape)
        assert not codes[mine.flatten(1)].any(), "a zero is a zero on the chip"


def test_one_bit_weights_have_no_zero_to_keep() -> None:
    module, _ = network(False, False, False)
    for layer in woven_layers(module).values():
        layer.weight_quantiser = crossloom.nn.WeightQuantiser(crossloom.nn.QuantiserConfig(bits=1))
    with pytest.raises(InputError, match="2 bits or more"):
        method("keep-zeros").prepare(module)
    with torch.no_grad():
        for layer in woven_layers(module).values():
            layer.weight.add_(0.1)
    method("keep-zeros").prepare(module)
    assert not any(len(layer.shaping) for layer in woven_layers(module).values())
