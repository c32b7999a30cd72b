"""Quantisers: fake-quantised values are exactly scale·(codes − zero), gradients are straight through."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crossloom.errors import InputError
from crossloom.nn import Conv2d, Linear, MatrixWeave, Quantiser, QuantiserConfig, WeightQuantiser, quantisers
from crossloom.nn.quantisers import to_power_of_two
from crossloom.weave import Factor, InputTransform

RANGES = ["minmax", "percentile", "mse", "learnt"]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    st.integers(1, 8), st.sampled_from(RANGES), st.booleans(), st.booleans(), st.sampled_from(["off", "nearest", "up"]),
    st.integers(0, 10**6),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_weights_are_their_codes_times_the_step(
    bits: int, how: str, per_channel: bool, symmetric: bool, two: str, seed: int
) -> None:
    if not symmetric:
        per_channel, how = False, "minmax"
    if how == "learnt":
        per_channel = False
    config = QuantiserConfig(bits=bits, range=how, per_channel=per_channel, symmetric=symmetric, power_of_two=two)  # type: ignore[arg-type]
    quantiser = WeightQuantiser(config).double()
    w = draw(seed, 5, 3, 2)
    with torch.no_grad():
        fake = quantiser(w)
    q = quantiser.quantise(w)
    scale = q.scale.view(-1, 1, 1) if per_channel else q.scale
    assert torch.allclose(fake, (q.codes - q.zero_point) * scale, rtol=1e-12, atol=0)
    if bits == 1:
        assert set(q.codes.unique().tolist()) <= {-1, 1}
    elif symmetric:
        assert int(q.codes.abs().max()) <= (1 << (bits - 1)) - 1
    else:
        assert int(q.codes.min()) >= 0
        assert int(q.codes.max()) < 1 << bits
    if two != "off":
        assert torch.equal(torch.log2(q.scale), torch.log2(q.scale).round())
    if how == "minmax" and two != "nearest" and bits > 1:  # nothing is clipped: no error above half a step
        slack = 1.0 if not symmetric else 0.5
        assert bool(((fake - w).abs() <= scale * (slack + 1e-9)).all())


@given(st.integers(2, 8), st.integers(0, 10**6), st.booleans())
@settings(deadline=None, max_examples=30)
def test_the_least_error_step_beats_the_widest(bits: int, seed: int, per_channel: bool) -> None:
    w = draw(seed, 4, 50)
    errors = {}
    for how in ("minmax", "mse"):
        quantiser = WeightQuantiser(QuantiserConfig(bits=bits, range=how, per_channel=per_channel)).double()  # type: ignore[arg-type]
        with torch.no_grad():
            errors[how] = float((quantiser(w) - w).square().sum())
    assert errors["mse"] <= errors["minmax"] * (1 + 1e-9)


def test_ternary_follows_its_paper() -> None:
    """Li et al. 2016: threshold 0.7·E|w|, scale the mean magnitude of what is kept."""
    w = torch.tensor([[0.1, -0.2, 1.0, -2.0]])
    q = WeightQuantiser(QuantiserConfig(bits=2, ternary=True)).quantise(w)
    assert q.codes.tolist() == [[0, 0, 1, -1]]
    assert q.scale.item() == pytest.approx(1.5)


def test_binary_follows_its_paper() -> None:
    """Rastegari et al. 2016: sign(w)·E|w|."""
    w = torch.tensor([[0.5, -1.5], [0.0, 2.0]])
    q = WeightQuantiser(QuantiserConfig(bits=1, per_channel=True)).quantise(w)
    assert q.codes.tolist() == [[1, -1], [1, 1]]
    assert q.scale.tolist() == [1.0, 1.0]


@given(st.floats(1e-6, 1e6))
def test_powers_of_two(scale: float) -> None:
    up = to_power_of_two(torch.tensor(scale, dtype=torch.float64), "up").item()
    near = to_power_of_two(torch.tensor(scale, dtype=torch.float64), "nearest").item()
    assert math.log2(up) == round(math.log2(up))
    assert scale * (1 - 1e-6) <= up < 2 * scale * (1 + 1e-6)
    assert abs(math.log2(near / scale)) <= 0.5 + 1e-9


@pytest.mark.parametrize("how", RANGES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_activations_are_on_the_grid_of_their_format(how: str, symmetric: bool, low: float) -> None:
    quantiser = Quantiser(QuantiserConfig(bits=5, range=how, symmetric=symmetric)).double()  # type: ignore[arg-type]
    x = draw(3, 1000).clamp_min(low)
    assert torch.equal(quantiser(x), x)
    quantiser.calibrate()
    with torch.no_grad():
        codes = quantiser(x) / quantiser.format.scale + quantiser.format.zero_point
    form = quantiser.format
    assert torch.allclose(codes, codes.round(), atol=1e-9)
    assert codes.min() >= form.low - 1e-9
    assert codes.max() <= form.high + 1e-9
    assert form.signed == (symmetric and low < 0)
    assert (form.zero_point != 0) == (not symmetric and low < 0)


def test_rounding_is_half_up_not_half_even() -> None:
    quantiser = Quantiser(QuantiserConfig(bits=4))
    quantiser(torch.tensor([0.0, 15.0]))
    quantiser.calibrate()
    assert quantiser(torch.tensor([0.5, 1.5, 2.5, 3.49])).tolist() == [1.0, 2.0, 3.0, 3.0]


def test_gradients_pass_inside_the_range_and_stop_outside() -> None:
    quantiser = Quantiser(QuantiserConfig(bits=4))
    quantiser(torch.tensor([0.0, 15.0]))
    quantiser.calibrate()
    x = torch.tensor([-3.0, 0.2, 7.7, 15.4, 99.0], requires_grad=True)
    quantiser(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_learnt_steps_follow_lsq() -> None:
    """Esser et al. 2020, eq. 3: ∂x̂/∂s is round(x/s) − x/s inside, the bound outside, scaled by 1/√(N·Q)."""
    quantiser = Quantiser(QuantiserConfig(bits=4, range="learnt")).double()
    quantiser(torch.linspace(0, 15, 64, dtype=torch.float64))
    quantiser.calibrate()
    with torch.no_grad():
        quantiser.scale.fill_(1.0)
    x = torch.tensor([[0.3, 7.6, 40.0]], dtype=torch.float64)
    quantiser(x).sum().backward()
    assert quantiser.scale.grad is not None
    expected = ((0 - 0.3) + (8 - 7.6) + 15) / math.sqrt(3 * 15)
    assert quantiser.scale.grad.item() == pytest.approx(expected)


LAYOUTS = {
    "as it is": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 2),
    "every other": lambda x: x[..., ::2],
    "repeated": lambda x: x[:1].expand(3, -1, -1, -1),
}


@pytest.mark.parametrize("how", ["mse", "learnt"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("signed", [False, True])
def test_pieces_of_any_layout_make_the_whole(
    how: str, layout: str, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values exactly, and both gradients, against the formula in plain operations."""
    monkeypatch.setattr(quantisers, "CACHED", 7)
    quantiser = Quantiser(QuantiserConfig(bits=3, range=how), signed=signed)  # type: ignore[arg-type]
    base = draw(1, 3, 4, 5, 6).float()
    quantiser(base if signed else base.abs())
    quantiser.calibrate()
    x = LAYOUTS[layout](base).detach().requires_grad_()
    weights = draw(2, *x.shape).float()
    made = quantiser(x)
    (made * weights).sum().backward()
    low, high = (-4, 3) if signed else (0, 7)
    step, again = quantiser.step().detach().requires_grad_(), x.detach().clone().requires_grad_()
    clipped = (again / step).clamp(low, high)
    expected = (clipped + ((clipped + 0.5).floor() - clipped).detach()) * step
    assert torch.equal(made, expected)
    (expected * weights).sum().backward()
    assert x.grad is not None and again.grad is not None and step.grad is not None
    if how == "learnt":
        gain = 1 / math.sqrt(x[0].numel() * high)
        assert torch.allclose(x.grad, again.grad, rtol=1e-5)
        assert float(quantiser.scale.grad) == pytest.approx(gain * float(step.grad), rel=1e-4)  # type: ignore[arg-type]
    else:  # it stops where the code is clipped, half a step further out
        codes = (x.detach() / step.detach() + 0.5).floor()
        assert torch.equal(x.grad, weights * ((codes >= low) & (codes <= high)))


@given(st.integers(1, 9), st.integers(1, 40), st.sampled_from([1, 3, 7, 127]), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_compiled_errors_are_the_errors(rows: int, values: int, top: int, seed: int) -> None:
    w = draw(seed, rows, values).float()
    steps = (draw(seed + 1, 5, rows).abs() + 0.01).float()
    exact = (torch.floor(w.double() / steps.double()[..., None] + 0.5).clamp(-top, top) * steps[..., None] - w) ** 2
    found = quantisers._squared_errors(w, steps, top)
    assert torch.allclose(found.double(), exact.sum(2), rtol=1e-4, atol=1e-6)
    assert torch.allclose(quantisers._squared_errors(w.double(), steps.double(), top), exact.sum(2))


@given(st.sampled_from(["minmax", "mse"]), st.booleans(), st.floats(0.3, 9), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_reach_caps_the_largest_weight_that_is_held(how: str, per_channel: bool, reach: float, seed: int) -> None:
    config = QuantiserConfig(bits=7, range=how, per_channel=per_channel)  # type: ignore[arg-type]
    w = draw(seed, 4, 30)
    w[:, ::3] = 0  # pruned weights do not count
    held = WeightQuantiser(config, reach)(w).reshape(4 if per_channel else 1, -1)
    rows = w.reshape(len(held), -1)
    cap = torch.minimum(reach * rows.abs().sum(1) / (rows != 0).sum(1), rows.abs().amax(1))
    assert bool((held.abs().amax(1) <= cap * (1 + 1e-9)).all())
    if how == "minmax":
        assert torch.allclose(held.abs().amax(1), cap)
    with pytest.raises(InputError, match="reach"):
        WeightQuantiser(config, 0.0)


@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_trains_on_the_quantised_product(bias: bool) -> None:
    """Krishnamoorthi's fold: the product with the folded, quantised weight, divided by the fold again, normalised."""
    torch.manual_seed(0)
    layer = Conv2d(3, 4, 3, bias=bias, weights=QuantiserConfig(bits=4, per_channel=True)).double()
    layer.norm, alone = torch.nn.BatchNorm2d(4).double(), torch.nn.BatchNorm2d(4).double()
    with torch.no_grad():
        for norm in (layer.norm, alone):
            assert norm.running_var is not None
            norm.running_var.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
            norm.weight.copy_(torch.tensor([-0.5, 1.0, 2.0, 0.3]))
    x, scale = draw(3, 2, 3, 6, 6), layer.norm_scale()
    assert scale is not None
    shaped = scale.view(-1, 1, 1, 1)
    product = torch.nn.functional.conv2d(x, layer.weight_quantiser(layer.weight * shaped)) / scale.view(1, -1, 1, 1)
    expected = alone(product if layer.bias is None else product + layer.bias.view(1, -1, 1, 1))
    assert torch.allclose(layer(x), expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(layer.norm.running_var, alone.running_var)  # type: ignore[arg-type]


def test_uncalibrated_or_broken_is_an_error() -> None:
    quantiser = Quantiser(QuantiserConfig())
    with pytest.raises(InputError, match="not calibrated"):
        _ = quantiser.format
    with pytest.raises(InputError, match="no data"):
        quantiser.calibrate()
    with pytest.raises(InputError, match="NaN"):
        quantiser(torch.tensor([float("nan")]))
    with pytest.raises(InputError, match="per_channel"):
        WeightQuantiser(QuantiserConfig(per_channel=True, symmetric=False))
    with pytest.raises(InputError, match="ternary"):
        WeightQuantiser(QuantiserConfig(bits=3, ternary=True))


@given(st.integers(1, 3), st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_a_woven_weight_trains_as_pt_c(groups: int, seed: int) -> None:
    """W_eff = Pᵀ·fakequant(C), and the gradient of C is P·dL/dW (METHODS §AAT)."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randint(-3, 4, (4, 2 * 9), generator=generator).numpy()
    one = InputTransform(18, (Factor.of("moments", matrix),))
    layer = Conv2d(2 * groups, 3 * groups, 3, groups=groups, bias=False).double()
    layer.weave = MatrixWeave(one).double()
    layer.weight = torch.nn.Parameter(torch.randn(3 * groups, 4, generator=generator, dtype=torch.float64))
    layer.weight_quantiser.enabled = False
    x = torch.randn(2, 2 * groups, 5, 5, generator=generator, dtype=torch.float64)
    dense = (layer.weight.detach() @ torch.from_numpy(matrix).double()).view(layer.weight_shape).requires_grad_()
    expected = torch.nn.functional.conv2d(x, dense, groups=groups)
    got = layer(x)
    assert torch.allclose(got, expected)
    got.square().sum().backward()
    expected.square().sum().backward()
    assert dense.grad is not None
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, dense.grad.flatten(1) @ torch.from_numpy(matrix).double().T)
    assert layer.weave.transform(groups).inputs == 18 * groups


def test_shaping_and_disturbance_hook_in() -> None:
    class Zero(torch.nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return w * torch.tensor([[1.0], [0.0]])

    class Shift(torch.nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return w + 1

    layer = Linear(3, 2, bias=False)
    layer.shaping.append(Zero())
    layer.weight_quantiser.enabled = False
    x = torch.ones(1, 3)
    assert layer(x)[0, 1] == 0
    layer.disturbance = Shift()
    assert layer(x)[0, 1] == 3


@pytest.mark.parametrize("range", ["minmax", "mse", "percentile", "learnt"])
@pytest.mark.parametrize("signed", [None, False, True])
def test_a_value_that_is_always_0_has_a_step_of_1(range: str, signed: bool | None) -> None:
    quantiser = Quantiser(QuantiserConfig(bits=4, range=range, power_of_two="nearest"), signed)  # type: ignore[arg-type]
    quantiser(torch.zeros(5))
    quantiser.calibrate()
    assert quantiser.format.scale == 1.0 and not quantiser(torch.zeros(5)).any()
