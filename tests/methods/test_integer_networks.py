"""Integer training of networks that come with batch norms, skip paths, weights and zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, fake_quantised_codes, lower
from crossloom.methods import method
from crossloom.methods.integer_training import IntegerTraining
from crossloom.nn import woven_layers
from crossloom.simulate import Executor
from crossloom.weave import Add
from tests.methods.crimp_cases import Residual, images

SHAPE = (3, 8, 8)


def residual(seed: int) -> nn.Module:
    """A residual network as training leaves one: every weight, shift and running statistic its own."""
    generator = torch.Generator().manual_seed(seed)
    model = Residual().eval()
    with torch.no_grad():
        for name, p in (*model.named_parameters(), *model.named_buffers()):
            if p.dtype.is_floating_point:
                noise = torch.randn(p.shape, generator=generator)
                p.copy_(
                    0.5 + noise.abs() if "norm" in name and "bias" not in name and "mean" not in name else 0.2 * noise
                )
    return model


def converted(seed: int, woven: bool) -> Any:
    """The network, perhaps approximated."""
    module = convert(residual(seed), torch.zeros(2, *SHAPE))
    if woven:
        weave = method("approximation", layers={"inner": {"order": 1}, "head": {"order": 1, "group": 4}})
        weave.prepare(module)
        weave.finish(module)
    return module


def prepared(step: IntegerTraining, seed: int, woven: bool = False) -> tuple[Any, Tensor]:
    """The network made integer-only and calibrated, and its images."""
    module = converted(seed, woven)
    step.prepare(module)
    x = images(SHAPE, 6, seed)
    x = (x * ((1 << step.inputs) - 1)).round() if step.input_step == "one" else x - 0.5
    calibrate(module, [x])
    return module, x


@settings(max_examples=8, deadline=None)
@given(
    weights=st.integers(1, 4), activations=st.integers(2, 4), shifts=st.sampled_from(["fitted", "learnt"]),
    pretrained=st.booleans(), input_step=st.sampled_from(["one", "fitted"]),
    woven=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_residual_network_is_its_integer_program(
    weights: int, activations: int, shifts: Any, pretrained: bool, input_step: Any, woven: bool, seed: int
) -> None:
    step = IntegerTraining(weights, activations, inputs=4, shifts=shifts, pretrained=pretrained, input_step=input_step)
    module, x = prepared(step, seed, woven)
    program = lower(module, "net")
    assert sum(isinstance(node, Add) for node in program.nodes) == 2
    assert all(layer.output.rescale.only_shifts for layer in program.layers)
    assert pretrained or not any(layer.output.bias.any() for layer in program.layers)
    expected, found = fake_quantised_codes(module, program, x), Executor(program).nodes(x)
    for name, codes in expected.items():
        assert torch.equal(found[name].long(), codes), name
    z = module(x).detach().double() / step.accumulator_step()
    assert torch.equal(z, z.round()) and torch.equal(z.long(), found[program.nodes[-1].name].long())


def test_what_an_addition_reads_keeps_its_sign() -> None:
    module, _ = prepared(IntegerTraining(weights=4, activations=4, inputs=4), 0)
    program = lower(module, "net")
    for node in program.nodes:
        if isinstance(node, Add):
            forms = [program.by_name[name].format for name in node.inputs]
            assert [(f.bits, f.signed) for f in forms] == [(8, True), (4, False)]


@pytest.mark.parametrize("woven", [False, True])
def test_a_batch_norms_scale_is_folded_into_the_latent(woven: bool) -> None:
    before = converted(1, woven)
    folded = {name: layer.folded()[0].detach() for name, layer in woven_layers(before).items()}
    module, _ = prepared(IntegerTraining(weights=8, activations=4), 1, woven)
    for name, layer in woven_layers(module).items():
        inside = (layer.weight.abs() < 1) & (folded[name].abs() > 1e-3)
        ratio = (layer.weight.detach() / folded[name])[inside]
        assert float(ratio.std() / ratio.mean()) < 1e-4 and float(inside.float().mean()) > 0.9
        assert layer.norm is None and layer.bias is None


def test_a_trained_network_keeps_what_it_computes() -> None:
    x = images(SHAPE, 32, 3) - 0.5
    model = residual(3)
    answer = model(x).detach()
    errors = []
    for pretrained in (True, False):
        step = IntegerTraining(8, 8, input_step="fitted", pretrained=pretrained)
        module = convert(residual(3), x[:2])
        step.prepare(module)
        calibrate(module, [x])
        errors.append(float((module(x).detach() - answer).square().mean() / answer.var()))
    assert errors[0] < 0.01 < errors[1]


def test_what_is_clipped_is_the_core() -> None:
    module = convert(residual(1), torch.zeros(2, *SHAPE))
    weave = method("approximation", layers={"inner": {"order": 2}, "head": {"order": 1, "group": 4}})
    weave.prepare(module)  # as in one step of a recipe: trained with its change of basis
    step = IntegerTraining(weights=3, activations=4)
    step.prepare(module)
    layer = woven_layers(module)["inner"]
    assert float(layer.latent().detach().abs().max()) == pytest.approx(1, abs=1e-5)
    (callback,) = step.callbacks()
    with torch.no_grad():
        layer.weight.mul_(3)
    wanted = layer.latent().detach().clamp(-1, 1)
    callback.on_train_batch_end(None, module)
    assert torch.allclose(layer.latent().detach(), wanted, atol=1e-5)
    weave.finish(module)
    assert torch.allclose(layer.weight.detach(), wanted, atol=1e-5)


@pytest.mark.parametrize("pretrained", [False, True])
def test_zeros_stay_zeros_from_two_bits_on(pretrained: bool) -> None:
    x = images(SHAPE)
    module = convert(residual(2), x[:2])
    gone = {}
    with torch.no_grad():
        for name, layer in woven_layers(module).items():
            gone[name] = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(4)) < 0.5
            layer.weight[gone[name]] = 0.0
    with pytest.raises(InputError, match="2 bits or more") as caught:
        IntegerTraining(weights=1).prepare(module)
    assert caught.value.nearest == "2" and all(not len(m.shaping) for m in woven_layers(module).values())
    assert all(layer.norm is not None for name, layer in woven_layers(module).items() if name != "head"), "unchanged"
    IntegerTraining(weights=2, activations=3, pretrained=pretrained).prepare(module)
    calibrate(module, [(x * 7).round()])
    for layer in lower(module, "net").layers:
        zeros = gone[layer.name].flatten(1)
        codes = torch.from_numpy(layer.core[0].T.copy())
        assert not codes[zeros].any() and float((codes != 0).float().mean()) > 0.1


def test_an_answer_that_is_pooled_keeps_its_width() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = (images((3, 6, 6)) * 3).round()
    module = convert(model.eval(), x[:2])
    step = IntegerTraining(weights=2, activations=2)
    step.prepare(module)
    calibrate(module, [x])
    program = lower(module, "net")
    assert program.nodes[-1].format.bits == 16 and program.nodes[-1].format.signed
    assert step.accumulator_step() == program.nodes[-1].format.scale


def test_bad_choices_are_named() -> None:
    with pytest.raises(InputError, match="expected one of"):
        IntegerTraining(input_step="two")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"integer-training\.residuals"):
        IntegerTraining(residuals=9)
