"""Methods in any order that a recipe allows, on small networks: what was trained is what the chip computes.

After every chain the integer program equals the fake-quantised network code for code, and the program whose P is made
of three factors equals the program of its dense effective weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

import crossloom
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, fake_quantised_codes, lower
from crossloom.mapping import rename
from crossloom.methods import Method, method
from crossloom.methods.crossbar_masks import CrossbarMasks
from crossloom.methods.tied_rows import tie_rows
from crossloom.nn import woven_layers
from crossloom.simulate import Executor
from crossloom.weave import InputTransform, Program, Woven, WovenLayer
from crossloom.weave.compaction import compacted
from tests.methods.crimp_cases import Residual, images

SHAPE = (3, 8, 8)
CELLS = {"rows": 16, "columns": 32, "encoding": "differential", "epsilon": 0.2}


def lenet_like() -> nn.Module:
    """Convolutions and linear layers without batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip


def grouped() -> nn.Module:
    """A depthwise and a grouped convolution with batch norms."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Conv2d(8, 12, 3, groups=2, stride=2), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(),
        nn.Linear(48, 5),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {"residual": Residual, "lenet": lenet_like, "grouped": grouped}
WOVEN = {
    "residual": {"inner": {"order": 1}, "wide": {"order": 2, "group": 12}, "head": {"order": 1, "group": 4}},
    "lenet": {"3": {"order": 1}, "6": {"order": 1, "group": 4}},
    "grouped": {"6": {"order": 1}, "10": {"order": 1, "group": 6}},
}
TIED = {"residual": "wide", "lenet": "6", "grouped": "10"}


def converted(name: str, seed: int) -> fx.GraphModule:
    """A network with weights, shifts and running statistics of its own."""
    generator = torch.Generator().manual_seed(seed)
    model = NETWORKS[name]().eval()
    with torch.no_grad():
        for module in model.modules():
            for key, p in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if p.dtype.is_floating_point:
                    noise = torch.randn(p.shape, generator=generator)
                    positive = isinstance(module, nn.BatchNorm2d) and key in ("weight", "running_var")
                    p.copy_(0.5 + noise.abs() if positive else 0.3 * noise)
    return convert(model, torch.zeros(2, *SHAPE))


def steps(module: fx.GraphModule, x: Tensor, lasting: list[Method], step: Method | None) -> None:
    """Two steps of momentum, with what lasting methods do after each of them."""
    optimiser = torch.optim.SGD(module.parameters(), lr=0.03, momentum=0.9)
    module.train()
    for _ in range(2):
        optimiser.zero_grad()
        module(x).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        for one in lasting:
            for callback in one.callbacks():
                callback.on_train_batch_end(None, module)
    if isinstance(step, CrossbarMasks):
        step.zero(module)
    module.eval()


def composed(name: str, chain: list[tuple[str, dict[str, Any]]], seed: int) -> tuple[fx.GraphModule, Tensor]:
    """The network after a chain of methods, each prepared, trained for two steps and finished; zeros are kept."""
    module, x, lasting, pruned = converted(name, seed), images(SHAPE, 6, seed), list[Method](), False
    x = (15 * x).round() / (1 if any(word == "integer-training" for word, _ in chain) else 15)
    calibrate(module, [x])
    for word, options in chain:
        if word == "tied":
            tie(woven_layers(module)[TIED[name]])
            calibrate(module, [x])
            continue
        step = method(word, **options)
        step.prepare(module)
        calibrate(module, [x])
        keep = method("keep-zeros") if pruned else None
        if keep is not None:
            keep.prepare(module)
        steps(module, x, lasting, step)
        zeros = {n: m.latent().detach() == 0 for n, m in woven_layers(module).items()} if keep is not None else {}
        step.finish(module)
        if keep is not None:
            keep.finish(module)
        for layer, gone in zeros.items():
            assert not woven_layers(module)[layer].weight[gone].any(), f"{word}: zeros of {layer} came back"
        assert not any(len(m.shaping) for m in woven_layers(module).values())
        calibrate(module, [x])
        lasting += [step] if word == "integer-training" else []
        pruned |= word in ("admm", "crossbar-masks", "block-pruning")
    return module.eval(), x


def tie(layer: Any) -> None:
    """Store every third row of a core twice: it stands for its neighbour too."""
    rows = layer.weight.flatten(1).shape[1]
    tie_rows(layer, InputTransform.sum([k - (k % 3 == 2) - k // 3 for k in range(rows)]))


def brute(layer: WovenLayer) -> np.ndarray:
    """The effective weights Pᵀ C, factor by factor and entry by entry."""
    groups, rows, columns = layer.core.shape
    total = np.zeros((groups * rows, groups * columns), np.int64)
    for g in range(groups):
        total[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] = layer.core[g]
    for factor in reversed(layer.transform.factors):
        assert not factor.shift.any()
        dense = factor.matrix.toarray()
        before = np.zeros((dense.shape[1], total.shape[1]), np.int64)
        for r, k in zip(*np.nonzero(dense), strict=True):
            before[k] += dense[r, k] * total[r]
        total = before
    width = layer.inputs // groups
    return np.stack([total[g * width : (g + 1) * width, g * columns : (g + 1) * columns] for g in range(groups)])


def dense(program: Program) -> Program:
    """The same program with P gone: cores are the effective weights."""
    found = {}
    for layer in program.layers:
        core = np.ascontiguousarray(brute(layer)).astype(np.int32)
        bits = max(layer.weight_bits, int(np.abs(core).max()).bit_length() + 1)
        plain = InputTransform.identity(layer.inputs)
        found[layer.name] = replace(layer, transform=plain, core=core, weight_bits=bits)
    return program.replace_layers(found)


def network_weights(module: fx.GraphModule, layer: WovenLayer) -> np.ndarray:
    """The network's own effective weights in integer steps, as (groups, inputs, outputs)."""
    mine = woven_layers(module)[layer.name]
    weight = mine.effective()[0].detach().double().flatten(1).numpy()
    step = np.broadcast_to(layer.weight_scale, (len(weight),))[:, None]
    codes = np.rint(weight / step).astype(np.int64)
    assert np.allclose(codes * step, weight, atol=float(step.max()) * 1e-3)
    return codes.reshape(layer.groups, -1, codes.shape[1]).transpose(0, 2, 1)


def check(module: fx.GraphModule, x: Tensor, exact: bool) -> Program:
    """Program and network agree, on both exact rungs; effective weights too."""
    program = lower(module, "net")
    expected, found = fake_quantised_codes(module, program, x), Executor(program).nodes(x)
    for name, codes in expected.items():
        assert torch.equal(found[name].long(), codes), name
    for layer in program.layers:
        assert np.array_equal(brute(layer), network_weights(module, layer)), layer.name
        assert np.array_equal(brute(layer), layer.effective_weight())
    plain, woven = Executor(dense(program)).nodes(x), found
    assert torch.equal(plain[program.nodes[-1].name], woven[program.nodes[-1].name])
    if exact:
        assert all(node.layer.output.rescale.only_shifts for node in program.nodes if isinstance(node, Woven))
    return program


INTEGERS: list[tuple[str, dict[str, Any]]] = [
    ("integer-training", {"weights": 2, "activations": 3, "inputs": 4}),
    ("integer-training", {"weights": 4, "activations": 4, "inputs": 4, "pretrained": True}),
    ("power-of-two", {"bits": 6, "symmetric_weights": True}),
]
PRUNING: list[tuple[str, dict[str, Any]]] = [
    ("admm", {"constraints": {"*": [{"set": "columns", "keep": 0.6}]}}),
    ("admm", {"constraints": {"*": [{"set": "filters", "keep": 0.8}, {"set": "columns", "keep": 0.7}]}}),
    ("crossbar-masks", {"keep": 0.7, "rows": 8, "columns": 4}),
    ("block-pruning", {"keep": 0.7, "rows": 8, "columns": 4}),
]


@settings(max_examples=8, deadline=None)
@given(
    name=st.sampled_from(list(NETWORKS)), woven=st.booleans(), integers=st.sampled_from(INTEGERS),
    pruning=st.lists(st.sampled_from(PRUNING), max_size=2), hardened=st.booleans(), tied=st.booleans(),
    first=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_chain_is_its_program(
    name: str, woven: bool, integers: Any, pruning: list[Any], hardened: bool, tied: bool, first: bool, seed: int
) -> None:
    chain = [("approximation", {"layers": WOVEN[name]})] if woven else []
    chain += [*pruning, integers] if first else [integers, *pruning]
    chain += [("runtime-adaptation", {"cells": CELLS})] if hardened else []
    chain += [("tied", {})] if tied else []
    module, x = composed(name, chain, seed)
    check(module, x, exact=True)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_transform_of_three_factors_is_its_dense_weights(name: str) -> None:
    chain = [("approximation", {"layers": WOVEN[name]}), INTEGERS[0], PRUNING[0], PRUNING[2]]
    module, x = composed(name, chain, 1)
    with torch.no_grad():  # rows that training made equal, for rename to find
        for layer in woven_layers(module).values():
            live = layer.weight.flatten(1).any(0).nonzero().flatten()[:2]
            if layer.weave is not None and len(live) == 2:
                layer.weight[:, live[1]] = layer.weight[:, live[0]]
    calibrate(module, [x])
    program = check(module, x, exact=True)
    answer = program.nodes[-1].name
    logits = Executor(program).nodes(x)[answer]
    small = compacted(program)
    shared, done = rename.program(small)
    order = np.random.default_rng(0)
    turned = shared.replace_layers(
        {
            layer.name: layer.with_rows(InputTransform.select(layer.core.shape[1], p), layer.core[:, p])
            for layer in shared.layers
            if layer.groups == 1
            for p in [order.permutation(layer.core.shape[1])]
        }
    )
    kinds = [{f.kind for f in layer.transform.factors} for layer in turned.layers]
    assert any(done[layer].rows_before > done[layer].assignment.rows for layer in done)
    assert {"moments", "select", "sum"} in kinds, "three methods in one P"
    for before, after in zip(program.layers, turned.layers, strict=True):
        full = np.zeros_like(before.effective_weight())
        columns = after.output.columns
        made = brute(after)
        for g in range(before.groups):
            for n in range(full.shape[2]):
                j = n if columns is None else int(columns[n])
                full[g, :, n] = made[g, :, j] if j >= 0 else 0
        assert np.array_equal(full, before.effective_weight()), before.name
    for one in (small, shared, turned, dense(turned)):
        assert torch.equal(Executor(one).nodes(x)[answer], logits)


def test_the_four_papers_on_the_crossbar_rung() -> None:
    chain = [
        ("approximation", {"layers": WOVEN["residual"]}), INTEGERS[0], PRUNING[0], PRUNING[2],
        ("runtime-adaptation", {"cells": CELLS}), ("tied", {}),
    ]  # fmt: skip
    module, x = composed("residual", chain, 5)
    check(module, x, exact=True)
    fields = {"array.rows": 16, "array.active_rows": 16, "array.columns": 32, "array.columns_per_adc": 32,
              "array.b_adc": 8}  # fmt: skip
    chip = crossloom.compile(module, crossloom.load("crimp-isaac", fields))
    assert torch.equal(chip.logits(x, "crossbar"), chip.logits(x, "integer"))
    assert torch.equal(chip.logits(x, "integer"), module(x).detach())


@pytest.mark.parametrize("integers", [INTEGERS[0], INTEGERS[2]])
def test_kernels_go_from_a_network_that_keeps_zeros(integers: Any) -> None:
    chain = [
        ("approximation", {"layers": {"stem": {"order": 1}}}), integers, PRUNING[0],
        ("kernel-groups", {"keep": 0.6, "columns": 4}), ("runtime-adaptation", {"cells": CELLS}),
    ]  # fmt: skip
    module, x = converted("residual", 2), (15 * images(SHAPE)).round()
    lasting: list[Method] = []
    keeping = False
    for word, options in chain:
        step, keep = method(word, **options), method("keep-zeros")
        step.prepare(module)
        calibrate(module, [x])
        if keeping:
            keep.prepare(module)
        steps(module, x, lasting, step)
        step.finish(module)
        keep.finish(module)
        calibrate(module, [x])
        lasting += [step] if word == "integer-training" else []
        keeping |= word == "admm"
    check(module, x, exact=True)
    kernels = {name: layer.weight.shape[0] for name, layer in woven_layers(module).items()}
    assert kernels["inner"] < 12 or kernels["wide"] < 16, kernels


def test_what_does_not_go_together_says_why() -> None:
    module = converted("residual", 0)
    calibrate(module, [images(SHAPE)])
    pruning = method(*PRUNING[0][:1], **PRUNING[0][1])
    pruning.finish(module)
    with pytest.raises(InputError, match="2 bits or more"):
        method("integer-training", weights=1).prepare(module)
    with pytest.raises(InputError, match="2 bits or more"):
        method("bits", layers={"*": {"weights": 1}}).prepare(module)
    fresh = converted("residual", 0)
    method("approximation", layers={"wide": {"order": 2, "group": 12, "basis": "index"}}).prepare(fresh)
    with pytest.raises(InputError, match="in an earlier step"):
        method(*PRUNING[0][:1], **PRUNING[0][1]).prepare(fresh)
