"""Kernel groups, crossbar masks and zero-and-recover training: what goes is exactly what no array is needed for."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import crossloom
from crossloom.errors import InputError
from crossloom.frontend import calibrate, lower
from crossloom.methods import method
from crossloom.methods.channels import ties
from crossloom.methods.crossbar_masks import CrossbarMask, CrossbarMasks, KeepZeroBlocks
from crossloom.methods.kernel_groups import KernelGroups, KernelScale, aligned, gamma, shift
from crossloom.methods.zero_recover import ZeroAndRecover, set_quantised
from crossloom.nn import Quantiser, woven_layers
from tests.methods.crimp_cases import Residual, images, integers, lenet


@settings(max_examples=100, deadline=None)
@given(count=st.integers(0, 300), kernels=st.integers(1, 300), columns=st.integers(1, 64))
def test_kept_kernels_are_a_multiple_of_the_weight_columns_and_never_0(count, kernels, columns) -> None:
    kept = aligned(min(count, kernels), kernels, columns)
    assert 0 < kept <= kernels
    assert kept == kernels if kernels <= columns else kept % columns == 0


def test_a_skip_path_ties_the_kernels_that_write_to_it() -> None:
    found = ties(integers(Residual(), images((3, 8, 8))))
    out = found.outputs
    assert out["stem"] == out["outer"] == found.inputs["inner"] == found.inputs["wide"]
    assert out["wide"][4:12] == out["stem"], "a pad shifts the channels that the sum ties"
    assert not set(out["inner"]) & set(out["stem"]) and out["inner"] == found.inputs["outer"]
    assert len(set(out["wide"])) == 16 and set(out["head"]) <= found.frozen
    assert all(len(members) == (3 if c in out["stem"] else 1) for c, members in found.kernels.items())


@pytest.mark.parametrize("keep", [0.3, 0.6])
@pytest.mark.parametrize(("model", "shape"), [(Residual, (3, 8, 8)), (lenet, (1, 10, 10))])
def test_groups_go_without_a_trace(model, shape, keep) -> None:
    x = images(shape).double()
    module = integers(model(), x, double=True)
    set_quantised(module, False)
    groups = KernelGroups(keep, columns=4)
    before = module(x).detach()
    groups.prepare(module)
    assert torch.allclose(module(x), before, atol=1e-9), "the scales change nothing"
    groups.zero(module)
    zeroed = module(x).detach()
    kernels = groups.finish(module)["kernels"]
    assert torch.allclose(module(x), zeroed, atol=1e-9) and not torch.allclose(zeroed, before, atol=1e-3)
    assert any(kept < of for kept, of in kernels.values())
    assert all(kept % 4 == 0 or kept == of <= 4 for name, (kept, of) in kernels.items() if name not in ("head", "7"))
    assert not any(isinstance(s, KernelScale) for m in woven_layers(module).values() for s in m.shaping)
    set_quantised(module, True)
    calibrate(module, [x])
    program = lower(module)
    assert torch.equal(crossloom.compile(module, "crimp-isaac").logits(x, "integer"), module(x).detach())
    assert [m.weight.numel() for m in woven_layers(module).values()] == [w.core.size for w in program.layers]


def test_a_zero_gamma_would_still_emit_its_shift() -> None:
    module = integers(Residual(), images((3, 8, 8)))
    layer = woven_layers(module)["inner"]
    dead = torch.zeros(12, dtype=torch.bool)
    dead[:3] = True
    x = images((8, 8, 8))
    with torch.no_grad():
        gamma(layer)[dead] = 0.0
        assert layer(x)[:, dead].abs().max() > 0.1
        shift(layer)[dead] = 0.0
        assert not layer(x)[:, dead].any()


@pytest.mark.parametrize("keep", [3, 0.5, 1.0])
def test_counted_arrays_are_the_surviving_masks_and_folding_changes_nothing(keep) -> None:
    x = images((3, 8, 8))
    module = integers(Residual(), x)
    before = module(x).detach()
    masks = CrossbarMasks(keep, rows=32, columns=8)
    masks.prepare(module)
    assert float((module(x) - before).abs().max().detach()) < 0.1 * float(before.abs().max())
    masks.zero(module)
    calibrate(module, [x])
    masked = module(x)
    figures = masks.finish(module)
    assert torch.equal(module(x), masked)
    fields = {"array.rows": 32, "array.active_rows": 32, "array.columns": 32, "array.columns_per_adc": 32}
    chip = crossloom.load("crimp-isaac", fields)
    compiled = crossloom.compile(module, chip)
    assert compiled.crossbars == figures["blocks"] == sum(figures["layers"].values())
    assert min(figures["layers"].values()) == 1
    if keep != 3:  # five layers keep one each
        assert figures["blocks"] == round(keep * figures["blocks_unmasked"])
    assert not any(isinstance(m, CrossbarMask) for m in module.modules())
    kept = KeepZeroBlocks(32, 8)
    kept.prepare(module)
    with torch.no_grad():
        for layer in woven_layers(module).values():
            layer.weight.add_(0.01)
    assert kept.finish(module)["blocks"] == figures["blocks"]
    assert crossloom.compile(module, chip).crossbars == figures["blocks"]


def test_neither_sparsity_table_nor_multiplier_is_left_in_the_cost() -> None:
    x = images((3, 8, 8))
    module = integers(Residual(), x)
    for step in (KernelGroups(0.5, 4), CrossbarMasks(0.6)):
        step.prepare(module)
        step.finish(module)
    calibrate(module, [x])
    chip = crossloom.compile(module, "crimp-isaac")
    assert all(node.layer.output.rescale.only_shifts for node in chip.program.woven())
    report = chip.cost()
    text = json.dumps(report.to_dict())
    assert not {"sparsity_table", "fp_multiplier", "transform_table", "tile_multiplier"} & set(report.components)
    assert '"digital_multiply"' not in text and '"transform_gather"' not in text


def optimisers(parameters) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.SGD(parameters, lr=0.1, momentum=0.9), torch.optim.Adam(parameters, lr=0.1),
        torch.optim.RMSprop(parameters, lr=0.1, momentum=0.9), torch.optim.AdamW(parameters, lr=0.1),
    ]  # fmt: skip


@pytest.mark.parametrize("which", range(4))
def test_zeroed_values_grow_back_by_their_momentum(which) -> None:
    module = integers(Residual(), images((3, 8, 8)))
    groups = KernelGroups(0.5, columns=4)
    groups.prepare(module)
    importances = list(groups.importances(module))
    optimiser = optimisers(importances)[which]
    for parameter in importances:
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    state = {k: {n: v.clone() for n, v in s.items() if torch.is_tensor(v)} for k, s in optimiser.state.items()}
    groups.zero(module)
    zeros = [p == 0 for p in importances]
    assert any(bool(z.any()) for z in zeros)
    for parameter, kept in state.items():
        assert all(torch.equal(optimiser.state[parameter][n], v) for n, v in kept.items()), "buffers are kept"
    for parameter in importances:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert all(bool((p[z] != 0).all()) for p, z in zip(importances, zeros, strict=True))


@pytest.mark.parametrize(("start", "epochs"), [(0.0, 4), (0.25, 8), (0.5, 7), (1.0, 3), (0.2, 1)])
def test_algorithm_1_alternates_and_ends_with_a_zero_epoch(start, epochs) -> None:
    callback = ZeroAndRecover(nn.Identity(), KernelGroups(0.5), start, 1e-4)
    kinds = [callback.kind(e, epochs) for e in range(epochs)]
    first = min(int(start * epochs), epochs - 1)
    assert set(kinds[:first]) <= {"plain"} and kinds[-1] == "zero" and "plain" not in kinds[first:]
    assert all(a != b for a, b in zip(kinds[first:], kinds[first + 1 :], strict=False))


class Stage:
    """What the callback reads of a trainer."""

    def __init__(self, epoch: int, epochs: int) -> None:
        self.current_epoch, self.max_epochs = epoch, epochs


def test_zero_epochs_are_quantised_and_end_in_zeros_recovery_epochs_are_plain() -> None:
    x = images((1, 10, 10))
    module = integers(lenet(), x)
    masks = CrossbarMasks(5, rows=16, columns=4)
    masks.prepare(module)
    (callback,) = masks.callbacks()
    scales = {n: m.step().clone() for n, m in module.named_modules() if isinstance(m, Quantiser)}
    for epoch, quantised in ((2, False), (3, True)):
        callback.on_train_epoch_start(Stage(epoch, 4), None)
        callback.on_train_batch_start(Stage(epoch, 4), None, (4 * x, None), 0)
        assert all(m.enabled == quantised for m in module.modules() if isinstance(m, Quantiser))
        moved = any(not torch.equal(m.step(), scales[n]) for n, m in module.named_modules() if n in scales)
        assert moved == quantised, "steps follow the data in zero epochs"
        callback.on_train_epoch_end(Stage(epoch, 4), None)
        assert any(bool((v == 0).any()) for v in masks.importances(module)) == quantised
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    callback.on_before_optimizer_step(Stage(3, 4), None, None)
    assert all(torch.equal(v.grad, masks.penalty * v.detach().sign()) for v in masks.importances(module))
    assert not any(bool(m.weight.grad.any()) for m in woven_layers(module).values())


def test_what_cannot_be_pruned_so_is_refused() -> None:
    for name, options, message in (
        ("kernel-groups", {"keep": 0.0}, "fraction"), ("kernel-groups", {"keep": 0.5, "columns": 0}, "columns"),
        ("crossbar-masks", {"keep": 0}, "array"), ("crossbar-masks", {"keep": 1.5}, "fraction"),
        ("crossbar-masks", {"keep": 0.5, "rows": 0}, "rows"), ("keep-zero-blocks", {"rows": 0}, "rows"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            method(name, **options)
    with pytest.raises(InputError, match="start"):
        ZeroAndRecover(nn.Identity(), KernelGroups(0.5), 1.5, 0.0)
    with pytest.raises(InputError, match="converted"):
        KernelGroups(0.5).prepare(lenet())
