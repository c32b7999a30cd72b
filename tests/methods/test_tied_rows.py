"""Tied rows train as one and compile to the rows that are stored."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import crossloom
from crossloom.errors import InputError
from crossloom.frontend import fake_quantised_codes, lower
from crossloom.mapping import rename
from crossloom.methods.approximation import Approximation
from crossloom.methods.tied_rows import TiedRows, tie_rows
from crossloom.nn import woven_layers
from crossloom.simulate import Executor
from crossloom.weave import InputTransform


def network(groups: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5),
    ).eval()  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
def test_spread_and_gathered_are_those_of_loops(rows: int, stored: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assignment = rename.Assignment(
        rng.integers(-1, stored, (1, rows)), rng.choice(np.array([-1, 1], np.int8), (1, rows)), stored
    )
    tied, core = TiedRows(assignment.group(0), None), torch.randn(3, stored)
    weight = torch.randn(3, rows)
    found, mean = tied.expand(core), tied.gathered(weight)
    for r in range(rows):
        m, sign = int(assignment.stored[0, r]), float(assignment.sign[0, r])
        assert torch.equal(found[:, r], torch.zeros(3) if m < 0 else sign * core[:, m])
    for m in range(stored):
        members = [r for r in range(rows) if assignment.stored[0, r] == m]
        expected = sum((weight[:, r] * float(assignment.sign[0, r]) for r in members), torch.zeros(3)) / max(
            len(members), 1
        )
        assert torch.allclose(mean[:, m], expected, atol=1e-6)


@pytest.mark.parametrize("approximated", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_chip_stores_the_tied_rows(groups: int, approximated: bool) -> None:
    x = torch.rand(8, 4, 6, 6)
    module = crossloom.convert(network(groups), x[:2])
    if approximated:
        method = Approximation({"0": {"order": 1, "group": 9}})
        method.prepare(module)
        method.finish(module)
    layer = woven_layers(module)["0"]
    rows = layer.weight.flatten(1).shape[1]
    targets = [k % 3 for k in range(rows)]
    tie_rows(layer, InputTransform.sum(targets))
    crossloom.calibrate(module, [x])
    program = lower(module, "net")
    assert program.layers[0].core.shape == (groups, 3, 6 // groups)
    expected, found = fake_quantised_codes(module, program, x), Executor(program).nodes(x)
    # Between layers a float's rounding may move a code by one; the last layer's plain sums carry on what it did.
    allowed = 1
    for name, codes in expected.items():
        errors = (found[name].long() - codes).abs()
        assert int(errors.max()) <= allowed, name
        allowed = 1 + 127 * int(errors.flatten(1).sum(1).max())
    module(x).square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.shape == (6, 3)


def test_latents_begin_with_the_signs_that_are_stored() -> None:
    module = crossloom.convert(network(), torch.zeros(2, 4, 6, 6))
    layer = woven_layers(module)["3"]
    stored = torch.sign(torch.randn(5, 10))
    tie_rows(layer, InputTransform.sum([k % 10 for k in range(96)]), stored)
    assert torch.equal(layer.weight.detach().sign(), stored)


def test_what_cannot_be_tied_is_refused() -> None:
    layer = woven_layers(crossloom.convert(network(), torch.zeros(2, 4, 6, 6)))["3"]
    with pytest.raises(InputError, match="96 rows"):
        tie_rows(layer, InputTransform.sum([0, 1]))
    with pytest.raises(InputError, match="one stored row"):
        TiedRows(InputTransform(2, (crossloom.weave.Factor.of("moments", [[1, 1], [0, 1]]),)), None)
    layer.shaping.append(nn.Identity())
    with pytest.raises(InputError, match="masks"):
        tie_rows(layer, InputTransform.identity(96))
