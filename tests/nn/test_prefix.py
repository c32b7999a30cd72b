"""A network that goes on from a layer gives the bits of a whole pass, and computes what lies before only once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from crossloom.frontend import calibrate, convert
from crossloom.nn import Prefix, held_weights, woven_layers


class Skips(nn.Module):
    """Two convolutions with a skip across them, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.twice = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = torch.relu(self.norm(self.second(a))) + a
        c = self.twice(torch.relu(self.twice(b)))
        return self.last((c + a).mean((2, 3)))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    module = convert(Skips().eval(), torch.zeros(2, 2, 6, 6))
    calibrate(module, [torch.randn(8, 2, 6, 6)])
    return module.eval()


@torch.no_grad()
def test_every_layer_changed_alone_gives_the_bits_of_whole_passes(network: nn.Module) -> None:
    batches = [torch.randn(3, 2, 6, 6), torch.randn(5, 2, 6, 6)]
    prefix = Prefix(network, batches)
    assert all(torch.equal(y, network(x)) for y, x in zip(prefix.outputs(), batches, strict=True))
    layers = woven_layers(network)
    for name in [*layers, "second", "first", "last"]:  # backwards too
        prefix.move_to(name)
        kept = layers[name].weight.clone()
        for factor in (0.5, -1.0, 1.0):
            layers[name].weight.copy_(kept * factor)
            found = list(prefix.outputs())
            assert all(torch.equal(y, network(x)) for y, x in zip(found, batches, strict=True))


@torch.no_grad()
def test_layers_before_run_once_and_only_values_that_are_needed_stay(network: nn.Module) -> None:
    runs = dict.fromkeys(woven_layers(network), 0)
    for name, layer in woven_layers(network).items():
        layer.register_forward_hook(lambda *_, name=name: runs.update({name: runs[name] + 1}))
    prefix = Prefix(network, [torch.randn(3, 2, 6, 6)])
    prefix.move_to("last")
    for _ in range(4):
        list(prefix.outputs())
    assert runs.pop("last") == 4 and set(runs.values()) == {1} and len(runs) == 4, "twice is two layers of one weight"
    assert len(prefix._kept[0]) == 1, "the last layer's input alone"


@torch.no_grad()
def test_a_module_that_was_not_captured_runs_whole() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    x = torch.randn(4, 2, 2, 2)
    prefix = Prefix(model, [x])
    prefix.move_to("1")
    with held_weights(model):
        assert torch.equal(next(prefix.outputs()), model(x))
