"""Layers of different widths, from the quantisers to the arrays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import crossloom
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, fake_quantised_codes, lower
from crossloom.methods import method
from crossloom.methods.integer_training import IntegerTraining
from crossloom.methods.power_of_two import PowerOfTwoIntegers
from crossloom.nn import woven_layers
from crossloom.simulate import Executor
from tests.methods.crimp_cases import Residual, images

MIXED: dict[str, Any] = {
    "stem": {"weights": 8, "activations": 6},
    "head": {"weights": 6},
    "*": {"weights": 3, "activations": 4},
}


def network(layers: dict[str, Any], integer: bool = False) -> tuple[Any, Any, Tensor]:
    """A residual network with these widths, calibrated; the method; its images."""
    torch.manual_seed(0)
    module = convert(Residual().eval(), torch.zeros(2, 3, 8, 8))
    first = IntegerTraining(weights=4, activations=4) if integer else PowerOfTwoIntegers(symmetric_weights=True)
    first.prepare(module)
    step = method("bits", layers=layers)
    step.prepare(module)
    x = images((3, 8, 8))
    x = (x * 15).round() if integer else x
    calibrate(module, [x])
    return module, step, x


@pytest.mark.parametrize("integer", [False, True])
def test_every_layer_has_its_width_from_training_to_the_arrays(integer: bool) -> None:
    module, step, x = network(MIXED, integer)
    figures = step.finish(module)
    assert figures["weights"] == {"stem": 8, "inner": 3, "outer": 3, "wide": 3, "head": 6}
    assert figures["activations"] == {"stem": 6, "inner": 4, "outer": 4, "wide": 4, "head": 4 if integer else 8}
    program = lower(module, "net")
    assert {layer.name: layer.weight_bits for layer in program.layers} == figures["weights"]
    assert {layer.name: layer.input_format.bits for layer in program.layers} == figures["activations"]
    assert all(layer.output.rescale.only_shifts for layer in program.layers)
    expected, found = fake_quantised_codes(module, program, x), Executor(program).nodes(x)
    for name, codes in expected.items():
        assert torch.equal(found[name].long(), codes), name
    chip = crossloom.compile(module, "crimp-isaac")
    slices = {name: mapped.code.columns for name, mapped in chip.mapping.layers.items()}
    assert slices == {"stem": 4, "inner": 2, "outer": 2, "wide": 2, "head": 3}, "cells of two bits"
    assert torch.equal(chip.logits(x, "crossbar"), chip.logits(x, "integer"))
    assert torch.equal(chip.logits(x, "integer"), module(x).detach())


def test_fewer_bits_cost_less() -> None:
    reports = []
    for bits in (8, 2):
        module, _, _ = network({"*": {"weights": bits, "activations": bits}})
        reports.append(crossloom.compile(module, "crimp-isaac").cost())
    assert reports[1].energy_j < reports[0].energy_j and reports[1].latency_s < reports[0].latency_s


@settings(max_examples=10, deadline=None)
@given(before=st.integers(1, 8), after=st.integers(1, 8))
def test_a_fixed_range_stays(before: int, after: int) -> None:
    module = convert(Residual().eval(), torch.zeros(2, 3, 8, 8))
    IntegerTraining(weights=before).prepare(module)
    method("bits", layers={"*": {"weights": after}}).prepare(module)
    for layer in woven_layers(module).values():
        config = layer.weight_quantiser.config
        assert (config.bits, config.fixed_step) == (after, 2.0 ** (1 - after))


def test_what_cannot_be_is_refused_and_nothing_is_changed() -> None:
    module = convert(Residual().eval(), torch.zeros(2, 3, 8, 8))
    for layers, message in (
        ({}, "at least one"), ({"*": {"weight": 3}}, "did you mean 'weights'"), ({"*": {"weights": 0}}, "greater than"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            method("bits", layers=layers)
    with pytest.raises(InputError, match="did you mean 'inner'"):
        method("bits", layers={"iner": {"weights": 3}}).prepare(module)
    with torch.no_grad():
        woven_layers(module)["wide"].weight[:2] = 0.0
    with pytest.raises(InputError, match=r"bits\.wide\.weights.*no zero"):
        method("bits", layers={"*": {"weights": 1}}).prepare(module)
    admm = method("admm", constraints={"outer": [{"set": "fixed-point", "bits": 4}]})
    admm.prepare(module)
    with pytest.raises(InputError, match="level set"):
        method("bits", layers={"*": {"weights": 2}}).prepare(module)
    assert all(m.weight_quantiser.bits == 8 for name, m in woven_layers(module).items() if name != "outer")
