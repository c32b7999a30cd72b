"""Power-of-two integers: the fake-quantised network is the integer program, with shifts alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crossloom.errors import InputError
from crossloom.frontend import lower, quantisers
from crossloom.frontend.lower import fake_quantised_codes
from crossloom.methods import method
from crossloom.nn import woven_layers
from crossloom.simulate import Executor
from tests.methods.crimp_cases import Residual, images, integers, lenet

REACH = {"weight_reach": 1.5, "symmetric_weights": True}


@pytest.mark.parametrize(
    "options", [{}, {"symmetric_weights": True}, {"unsigned": True}, {"weight_step": "nearest"}, REACH]
)
@pytest.mark.parametrize(("model", "shape"), [(Residual, (3, 8, 8)), (lenet, (1, 10, 10))])
def test_the_fake_quantised_forward_is_the_integer_program_bit_for_bit(model, shape, options) -> None:
    x = images(shape, 16)
    module = integers(model(), x, double=True, **options)
    program = lower(module)
    fake = fake_quantised_codes(module, program, x.double())
    executor = Executor(program)
    codes = executor.run(x.double())
    assert torch.equal(codes.long(), fake[program.output.name])
    assert torch.equal(executor.logits(x.double()), module(x.double()).detach())
    assert all(node.layer.output.rescale.only_shifts for node in program.woven())
    if options.get("unsigned"):
        assert all(not q.format.signed for q in list(quantisers(module).values())[1:])


def test_one_layer_is_the_papers_formula() -> None:
    """Q_X′ = 2^(a1+a2−b1)·(Q_X ⊛ (Q_W − Z_W)) + 2^(a3−b1)·(Q_B − Z_B), with a3 = a1 + a2 and Z_B = 0."""
    x = images((1, 10, 10))
    module = integers(lenet(), x, double=True)
    program = lower(module)
    node = list(program.woven())[2]
    layer = node.layer
    weights = woven_layers(module)[layer.name]
    quantised = weights.weight_quantiser.quantise(weights.folded()[0])
    q_w, z_w = quantised.codes.numpy(), quantised.zero_point
    assert q_w.min() >= 0 and q_w.max() <= 255 and layer.weight_zero == z_w
    a1, a2 = np.log2(layer.input_format.scale), np.log2(float(quantised.scale[0]))
    b1 = np.log2(layer.output.format.scale)
    assert all(float(a) == int(a) for a in (a1, a2, b1))
    q_b = np.floor(weights.bias.detach().numpy() / 2.0 ** (a1 + a2) + 0.5)
    q_x = np.random.default_rng(0).integers(layer.input_format.low, layer.input_format.high + 1, (9, layer.inputs))
    real = 2.0 ** (a1 + a2 - b1) * (q_x @ (q_w - z_w).T) + 2.0 ** (a1 + a2 - b1) * q_b
    expected = np.clip(np.floor(real + 0.5), layer.output.low, layer.output.high)
    assert np.array_equal(layer.apply(q_x), expected)


def test_weight_steps_rounded_up_never_clip_and_the_zero_point_is_centred() -> None:
    module = integers(lenet(), images((1, 10, 10)))
    for layer in woven_layers(module).values():
        with torch.no_grad():
            layer.weight.copy_(layer.weight.abs() + 0.1 * layer.weight)  # one-sided
        step, zero = layer.weight_quantiser.step(layer.weight)
        low, high = min(float(layer.weight.min()), 0.0), max(float(layer.weight.max()), 0.0)
        codes = layer.weight_quantiser.quantise(layer.weight).codes
        assert float((layer.weight_quantiser(layer.weight) - layer.weight).abs().max()) <= 0.501 * float(step)
        assert abs((float(zero) + low / step) - (255 - float(zero) - high / step)) <= 1.001, "equal room on both sides"
        assert codes.min() >= 0 and codes.max() <= 255


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="2 to 16"):
        method("power-of-two", bits=1)
    with pytest.raises(InputError, match="weight_step"):
        method("power-of-two", weight_step="off")
    for reach in ({"weight_reach": 1.5}, {"weight_reach": 0.0, "symmetric_weights": True}):
        with pytest.raises(InputError, match="weight_reach"):
            method("power-of-two", **reach)
