"""Methods are found by name, and block pruning saves exactly the arrays that it says."""

import pytest
import torch
from torch import nn

import crossloom
from crossloom.errors import InputError
from crossloom.methods import BlockPruning, Method, method, methods
from crossloom.nn import woven_layers


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 70, 3), nn.ReLU(), nn.AvgPool2d(4),
        nn.Flatten(), nn.Linear(70, 10),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("keep", [0.3, 0.6, 1.0])
def test_counted_arrays_are_the_surviving_blocks(keep: float) -> None:
    x = torch.randn(8, 3, 8, 8)
    chip = crossloom.load("crimp-isaac")
    dense = crossloom.compile(network(), chip, x)
    module = crossloom.convert(network(), x[:2], crossloom.quantisation_for(chip))
    pruning = BlockPruning(keep=keep)
    pruning.prepare(module)
    crossloom.calibrate(module, [x])
    before = module(x)
    figures = pruning.finish(module)
    assert torch.equal(module(x), before), "folding a mask changed the output"
    assert not any(len(layer.shaping) for layer in woven_layers(module).values())
    compiled = crossloom.compile(module, chip)
    assert compiled.crossbars == figures["blocks"]
    assert dense.crossbars == figures["blocks_dense"]
    assert figures["blocks"] == pytest.approx(keep * figures["blocks_dense"], abs=2)


def test_masked_weights_stay_zero_while_the_rest_trains() -> None:
    x = torch.randn(8, 3, 8, 8)
    module = crossloom.convert(network(), x[:2])
    pruning = BlockPruning(keep=0.5)
    pruning.prepare(module)
    crossloom.calibrate(module, [x])
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimiser.zero_grad()
        module(x).square().sum().backward()
        optimiser.step()
    zeros = {name: layer.latent() == 0 for name, layer in woven_layers(module).items()}
    assert any(bool(z.any()) for z in zeros.values())
    pruning.finish(module)
    for name, layer in woven_layers(module).items():
        assert torch.equal(layer.weight == 0, zeros[name])


def test_methods_are_found_by_name_and_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Method):
        name = "mine"

    class Point:
        name = "mine"

        @staticmethod
        def load() -> type[Method]:
            return Mine

    monkeypatch.setattr("crossloom.methods.protocol.entry_points", lambda group: [Point] if "methods" in group else [])
    assert {"block-pruning", "mine"} <= set(methods())
    mine = method("mine")
    assert isinstance(mine, Mine)
    assert (mine.callbacks(), mine.extra_loss(), mine.finish(network())) == ((), None, {})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("block-prunning", {"keep": 0.5}, "did you mean 'block-pruning'"),
        ("block-pruning", {"keep": 0.0}, "above 0 and at most 1"),
        ("block-pruning", {"keep": 0.5, "rows": 0}, "at least 1 each"),
        ("block-pruning", {"kep": 0.5}, "options that it takes"),
    ],
)
def test_bad_methods_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        method(name, **options)
