"""What is taken out as useless changes no answer, shortcuts included; weak channels go only if few and weak."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import crossloom
from crossloom.errors import InputError
from crossloom.methods import Flow, narrow
from crossloom.nn import woven_layers
from crossloom.weave.compaction import compacted


class Residual(nn.Module):
    """A shortcut around two convolutions, then a linear layer on flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.outer = nn.Conv2d(5, 6, 1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.norm(self.outer(torch.relu(self.inner(x)))))
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


def converted() -> tuple[torch.fx.GraphModule, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(8, 2, 4, 4)
    model = Residual().eval()
    module = crossloom.convert(model, x[:2])
    crossloom.calibrate(module, [x])
    for layer in woven_layers(module).values():
        layer.weight_quantiser.enabled = False  # steps follow the largest weight, which may be one that goes
    return module, x


def kill(module: torch.fx.GraphModule, name: str, filters: list[int]) -> None:
    """Take filters out for good: weights, bias and the batch norm's shift."""
    layer = woven_layers(module)[name]
    with torch.no_grad():
        shifts = [] if layer.norm is None else [layer.norm.bias, layer.norm.running_mean]
        for t in (layer.weight, layer.bias, *shifts):
            if t is not None:
                t[filters] = 0


def test_unused_paths_go_and_the_answer_stays() -> None:
    module, x = converted()
    kill(module, "inner", [1, 3])
    with torch.no_grad():
        woven_layers(module)["outer"].weight[:, 2] = 0  # nobody reads inner's filter 2
        before = module(x)
    flow = Flow(module)
    weights = {name: layer.weight.data for name, layer in flow.layers.items()}
    flow.tie(weights)
    assert not weights["outer"][:, [1, 2, 3]].any()
    assert not weights["inner"][[1, 2, 3]].any()
    with torch.no_grad():
        assert torch.allclose(module(x), before, atol=1e-5)
    kill(module, "inner", [2])
    shapes = narrow(module)
    assert shapes["inner"] == (2, 6, 3, 3)
    assert shapes["outer"] == (6, 2, 1, 1)
    with torch.no_grad():
        assert torch.allclose(module(x), before, atol=1e-5)


def test_a_shortcut_keeps_channels_until_every_branch_is_gone() -> None:
    module, x = converted()
    flow = Flow(module)
    kill(module, "stem", [0, 4])
    weights = {name: layer.weight.data for name, layer in flow.layers.items()}
    head = weights["head"].clone()
    flow.tie(weights)
    assert torch.equal(weights["head"], head), "the other branch still feeds these channels"
    kill(module, "outer", [4])
    with torch.no_grad():
        before = module(x)
    flow.tie(weights)
    gone = weights["head"].view(3, 6, 4)[:, 4]
    assert not gone.any()
    assert weights["head"].view(3, 6, 4)[:, 0].any()
    with torch.no_grad():
        assert torch.allclose(module(x), before, atol=1e-5)
    assert narrow(module)["stem"][0] == 5
    with torch.no_grad():
        assert torch.allclose(module(x), before, atol=1e-5)


def test_filters_of_a_shortcut_are_used_while_anyone_reads_them() -> None:
    module, _ = converted()
    flow = Flow(module)
    weights = {name: layer.weight.data for name, layer in flow.layers.items()}
    weights["head"].view(3, 6, 4)[:, 2] = 0
    flow.tie(weights)
    assert weights["stem"][2].any(), "inner still reads it"
    weights["inner"][:, 2] = 0
    flow.tie(weights)
    assert not weights["stem"][2].any()
    assert not weights["outer"][2].any()


def test_weak_channels_go_if_few_columns_are_left() -> None:
    module, _ = converted()
    flow = Flow(module)
    weights = {name: layer.weight.data for name, layer in flow.layers.items()}
    weights["outer"][:, 1] *= 1e-3  # weak, but all of its columns are there
    assert flow.purify(weights, few=0.5, weak=0.01) == 0
    assert flow.purify(weights, few=1.0, weak=0.01) == 1
    assert not weights["inner"][1].any()
    with pytest.raises(InputError, match=r"purification\.few"):
        flow.purify(weights, few=2, weak=0.1)
    with pytest.raises(InputError, match="converted"):
        Flow(Residual())


def test_compacted_programs_answer_the_same_on_fewer_cells() -> None:
    module, x = converted()
    with torch.no_grad():
        layers = woven_layers(module)
        layers["stem"].weight.view(6, -1)[:, [0, 5, 7]] = 0
        layers["inner"].weight[[1, 2]] = 0
        layers["head"].weight[:, 3:20] = 0
    chip = crossloom.compile(module, "sot-mram-and")
    small = compacted(chip.program)
    cells = {layer.name: layer.core.shape for layer in small.layers}
    assert cells == {"stem": (1, 15, 6), "inner": (1, 54, 3), "outer": (1, 5, 6), "head": (1, 7, 3)}
    from crossloom.compiled import CompiledChip
    from crossloom.mapping import map_program

    other = CompiledChip(map_program(small, chip.hardware))
    for rung in ("integer", "crossbar"):
        assert torch.equal(other.logits(x, rung), chip.logits(x, rung))
