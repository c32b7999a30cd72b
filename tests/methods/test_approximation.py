"""Approximation: the moments path equals the rebuilt-weight path, for every layer, order, group and basis."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import crossloom
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, lower
from crossloom.methods import Approximation, Setting, method
from crossloom.methods.moments import ChangeOfBasis, Moments, projected
from crossloom.methods.polynomials import BASES, exact_growth, runs
from crossloom.nn import Conv2d, Linear, woven_layers
from crossloom.simulate import Executor
from crossloom.weave import Format

BASIS = st.sampled_from(sorted(BASES))


@st.composite
def layers(draw: st.DrawFn) -> tuple[Conv2d | Linear, Setting]:
    """A convolution (perhaps grouped or depthwise) or a linear layer, float64, and a setting that fits it."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    layer: Conv2d | Linear
    if draw(st.booleans()):
        kernel = (draw(st.integers(1, 3)), draw(st.integers(2, 4)))
        layer = Conv2d(groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)), kernel, groups=groups)
        choices: list[int | str] = ["kernel", "kernel-row"]
        height, width = kernel
    else:
        layer, choices, height, width = Linear(draw(st.integers(2, 40)), draw(st.integers(1, 5))), [], 1, 0
    count = math.prod(layer.weight_shape[1:])
    group = draw(st.sampled_from([*choices, *range(2, min(count, 12) + 1)]))
    n = {"kernel": height * width, "kernel-row": width}.get(str(group), group)
    setting = Setting(order=draw(st.integers(0, min(int(n) - 1, 3))), group=group, basis=draw(BASIS))  # type: ignore[arg-type]
    return layer.double(), setting


def woven(layer: Conv2d | Linear, setting: Setting, seed: int, quantised: bool) -> Conv2d | Linear:
    """The layer, woven by the method from random weights."""
    torch.manual_seed(seed)
    network = nn.Sequential(layer)
    with torch.no_grad():
        layer.weight.copy_(torch.randn_like(layer.weight))
    Approximation({"0": setting}).prepare(network)
    layer.weight_quantiser.enabled = quantised
    return layer


def vectors(layer: Conv2d | Linear, x: torch.Tensor) -> np.ndarray:
    """Input vectors of a layer, (vectors, G·K), by plain loops; stride 1, no padding."""
    if isinstance(layer, Linear):
        return x.numpy()
    (kh, kw), found = layer.kernel_size, []
    for image in x.numpy():
        for i in range(image.shape[1] - kh + 1):
            for j in range(image.shape[2] - kw + 1):
                found.append(image[:, i : i + kh, j : j + kw].reshape(-1))
    return np.array(found)


def by_moments(layer: Conv2d | Linear, x: torch.Tensor, core: np.ndarray) -> np.ndarray:
    """Cᵀ(P x) by loops over groups of the convolution, in the dtype of the core: (vectors, N)."""
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    assert isinstance(layer.weave, Moments)
    matrix = layer.weave.transform(groups).matrix().toarray()
    z = vectors(layer, x).astype(core.dtype) @ matrix.T.astype(core.dtype)
    rows, outputs = core.shape[1], core.shape[0] // groups
    parts = [z[:, g * rows : (g + 1) * rows] @ core[g * outputs : (g + 1) * outputs].T for g in range(groups)]
    return np.concatenate(parts, 1)


def inputs_for(layer: Conv2d | Linear, integers: bool) -> torch.Tensor:
    shape = (3, layer.in_features) if isinstance(layer, Linear) else (2, layer.in_channels, 4, 5)
    x = torch.randint(0, 256, shape).double() if integers else torch.randn(shape, dtype=torch.float64)
    return x


def as_vectors(layer: Conv2d | Linear, y: torch.Tensor) -> np.ndarray:
    y = y.detach()
    return (y if isinstance(layer, Linear) else y.permute(0, 2, 3, 1).reshape(-1, layer.out_channels)).numpy()


@given(layers(), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_moments_path_is_the_rebuilt_weight_path(case: tuple[Conv2d | Linear, Setting], seed: int) -> None:
    """Φ A x = A (Φᵀ x): to rounding in float, to the bit with integer coefficients."""
    layer, setting = case
    layer = woven(layer, setting, seed, quantised=False)
    layer.bias = None
    x = inputs_for(layer, integers=False)
    core = layer.latent().detach()
    expected = as_vectors(layer, layer(x))
    assert np.allclose(by_moments(layer, x, core.numpy()), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    integers = torch.randint(-127, 128, core.shape).double()
    weight = layer.expand(integers)
    assert torch.equal(weight, weight.round()), "exact moments have integer weights"
    codes = inputs_for(layer, integers=True)
    exact = as_vectors(layer, layer._apply_layer(codes, weight, None))
    assert np.array_equal(by_moments(layer, codes, integers.numpy().astype(np.int64)), exact.astype(np.int64))


@given(layers(), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_gradients_and_lengths_are_those_of_the_weights(case: tuple[Conv2d | Linear, Setting], seed: int) -> None:
    """In training W = A·Φ with orthonormal Φ: lengths are kept, and dL/dA = dL/dW·Φᵀ."""
    layer, setting = case
    layer = woven(layer, setting, seed, quantised=False)
    weight, _ = layer.effective()
    weight.retain_grad()
    assert torch.allclose(weight.square().sum(), layer.weight.square().sum())
    weight.sin().sum().backward()
    rows = torch.eye(layer.weight.shape[1], dtype=torch.float64)
    assert isinstance(layer.weave, Moments)
    basis = layer.weave.expand(layer.shaping[0](rows))
    assert torch.allclose(basis @ basis.T, rows, atol=1e-9)
    assert weight.grad is not None
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, weight.grad.flatten(1) @ basis.T)


@given(layers(), st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_least_squares_is_the_nearest(case: tuple[Conv2d | Linear, Setting], seed: int) -> None:
    """numpy's least squares on the dense P gives the same weights."""
    layer, setting = case
    torch.manual_seed(seed)
    dense = torch.randn(layer.weight.shape, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(dense)
    Approximation({"0": setting}).prepare(nn.Sequential(layer))
    layer.weight_quantiser.enabled = False
    assert isinstance(layer.weave, Moments)
    matrix = layer.weave.transform(1).matrix().toarray().astype(np.float64)
    solution = np.linalg.lstsq(matrix.T, dense.flatten(1).numpy().T, rcond=None)[0]
    nearest = (matrix.T @ solution).T
    assert np.allclose(layer.effective()[0].detach().flatten(1).numpy(), nearest, atol=1e-8)


@given(
    st.integers(2, 60), st.integers(2, 16), st.integers(0, 3), BASIS, st.integers(1, 8), st.booleans(),
    st.sampled_from([None, 0, 1, 2, 4]), st.integers(0, 10**6),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_moments_fill_their_format_and_no_more(
    inputs: int, n: int, order: int, basis: str, bits: int, signed: bool, growth: int | None, seed: int
) -> None:
    """Bit growth: exact moments have b + G bits and no shift; rounded ones b + growth, within half a step a row."""
    n = min(n, inputs)
    order = min(order, n - 1)
    found = runs(inputs, n, order, basis, growth)  # type: ignore[arg-type]
    transform = Moments(found).transform(1)
    allowed = exact_growth(inputs, n, order, basis) if growth is None else growth  # type: ignore[arg-type]
    form = Format(bits, signed)
    assert transform.row_format(form).bits <= bits + allowed
    rng = np.random.default_rng(seed)
    x = rng.integers(form.low, form.high + 1, (50, inputs))
    z = transform.apply(x)
    plain = np.zeros_like(z, dtype=np.float64)
    row = start = 0
    for run in found:
        for _ in range(run.groups):
            width = run.rows.shape[1]
            for k in range(len(run.rows)):
                for t in range(width):
                    plain[:, row] += float(run.rows[k, t]) * x[:, start + t] * 2.0 ** float(run.exponents[k])
                row += 1
            start += width
    assert (row, start) == (transform.rows, inputs)
    if growth is None:
        assert transform.is_linear
        assert np.array_equal(z, plain)
    else:
        assert np.abs(z - plain).max() <= 0.5


@given(st.integers(2, 30), st.integers(0, 6))
@settings(deadline=None, max_examples=60)
def test_bases_are_what_they_say(n: int, order: int) -> None:
    order = min(order, n - 1)
    orthogonal = BASES["orthogonal"](n, order).astype(object)
    assert not (orthogonal @ orthogonal.T - np.diag(np.diag(orthogonal @ orthogonal.T))).any()
    powers = np.array([[t**k for t in range(n)] for k in range(order + 1)], dtype=object)
    assert np.array_equal(BASES["index"](n, order), powers)
    for k, row in enumerate(orthogonal):
        fit = np.polynomial.Polynomial.fit(np.arange(n), row.astype(np.float64), k)
        assert np.allclose(fit(np.arange(n)), row.astype(np.float64), atol=1e-6 * np.abs(row).max())
        assert math.gcd(*row) == 1
    assert np.linalg.matrix_rank(BASES["cosine"](n, order)) == order + 1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 5),
    ).eval()  # fmt: skip


PLAN = {
    "0": {"order": 1, "group": "kernel"}, "3": {"order": 1, "group": "kernel-row"},
    "7": {"order": 2, "group": 7}, "9": {"order": 1, "group": 5, "basis": "index"},
}  # fmt: skip


def prepared(plan: dict[str, dict[str, object]], **options: object) -> tuple[torch.fx.GraphModule, torch.Tensor]:
    x = torch.randn(16, 2, 8, 8)
    module = convert(network(), x[:2], crossloom.quantisation_for(crossloom.load("crimp-isaac")))
    method("approximation", layers=plan, **options).prepare(module)
    calibrate(module, [x])
    return module, x


@pytest.mark.parametrize("basis", sorted(BASES))
def test_the_chip_computes_what_was_trained(basis: str) -> None:
    """A whole network: every layer's moments path on the exact rungs equals its rebuilt weights, to the bit."""
    module, x = prepared({name: {**given, "basis": basis} for name, given in PLAN.items()})
    program = lower(module)
    for layer in program.layers:
        assert not layer.transform.is_identity
        codes = np.random.default_rng(0).integers(
            layer.input_format.low, layer.input_format.high + 1, (20, layer.inputs)
        )
        weight = layer.effective_weight()
        width = layer.inputs // layer.groups
        rebuilt = [codes[:, g * width : (g + 1) * width] @ weight[g] for g in range(layer.groups)]
        assert np.array_equal(layer.accumulate(codes), np.concatenate(rebuilt, 1))
    chip = crossloom.compile(module, "crimp-isaac")
    integer, crossbar = chip.logits(x, "integer"), chip.logits(x, "crossbar")
    assert torch.equal(integer, crossbar)
    with torch.no_grad():
        trained = module(x)
    assert (trained.argmax(1) == integer.argmax(1)).float().mean() >= 0.9
    assert torch.allclose(trained, integer.float(), atol=0.1 * float(trained.abs().max()))


def test_rounded_moments_run_and_stay_near() -> None:
    exact, x = prepared(PLAN)
    rounded, _ = prepared({name: {**given, "growth": 0} for name, given in PLAN.items()})
    one, two = (Executor(lower(m)).logits(x) for m in (exact, rounded))
    chip = crossloom.compile(rounded, "crimp-isaac")
    assert torch.equal(chip.logits(x, "integer"), chip.logits(x, "crossbar"))
    assert {len(layer.digits) for layer in chip.mapping.layers.values()} == {8}
    assert not torch.equal(one, two)
    assert float((one - two).abs().max()) < 0.2 * float(one.abs().max())


def test_finish_folds_the_change_of_basis_and_changes_nothing() -> None:
    module, x = prepared(PLAN)
    approximation = Approximation(PLAN)  # type: ignore[arg-type]
    with torch.no_grad():
        before = module(x)
        figures = approximation.finish(module)
        assert torch.allclose(module(x), before, atol=1e-5)
    assert not any(isinstance(m, ChangeOfBasis) for m in module.modules())
    assert figures == {"rows": {"0": [4, 18], "3": [12, 18], "7": [21, 48], "9": [8, 20]}}
    shapes = {name: layer.core.shape[1] for name, layer in ((p.name, p) for p in lower(module).layers)}
    assert shapes == {name: rows for name, (rows, _) in figures["rows"].items()}


def test_training_reaches_what_lies_in_the_span() -> None:
    """Coefficients train by backpropagation: a target inside the span is found, quantised."""
    torch.manual_seed(0)
    layer = Linear(24, 3, bias=False)
    Approximation({"0": Setting(order=1, group=8)}, initialisation="random").prepare(nn.Sequential(layer))
    target = torch.randn(3, 3, 2) @ torch.tensor([[1.0] * 8, list(range(8))])
    x = torch.randn(256, 24)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.3)
    scale = float(target.square().mean())
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.3 * (1 - step / 400)
        optimiser.zero_grad()
        loss = (layer(x) - x @ target.reshape(3, 24).T).square().mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 1e-3 * scale * 24


def test_random_coefficients_have_the_weights_mean_square() -> None:
    torch.manual_seed(0)
    layer = Linear(700, 400, bias=False)
    deviation = float(layer.weight.detach().square().mean())
    layer.weight_quantiser.enabled = False
    Approximation({"0": Setting(order=2, group=9)}, initialisation="random", seed=3).prepare(nn.Sequential(layer))
    assert float(layer.effective()[0].detach().square().mean()) == pytest.approx(deviation, rel=0.03)
    again = Linear(700, 400, bias=False)
    with torch.no_grad():
        again.weight.fill_(deviation**0.5)
    Approximation({"0": Setting(order=2, group=9)}, initialisation="random", seed=3).prepare(nn.Sequential(again))
    assert torch.allclose(again.weight, layer.weight, rtol=1e-4)


def test_layers_that_share_weights_are_woven_as_one() -> None:
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(12, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(self.one(x).relu())

    module = convert(Twice(), torch.randn(2, 12))
    names = list(woven_layers(module))
    assert len(names) == 2
    with pytest.raises(InputError, match="share weights"):
        Approximation({names[0]: Setting(group=4)}).prepare(module)
    Approximation({"*": Setting(group=4)}).prepare(module)
    one, two = woven_layers(module).values()
    assert one.weight is two.weight
    calibrate(module, [torch.randn(8, 12)])
    assert [layer.core.shape for layer in lower(module).layers] == [(1, 6, 12)] * 2
    assert set(Approximation({}).finish(module)["rows"]) == set(names)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"7": {"group": 49}}, r"approximation\.7\.group: got 49; expected consecutive inputs, 2 to 48, for '7'"),
        ({"7": {"group": 1}}, r"2 to 48, for '7'"),
        ({"7": {"order": 4, "group": 4}}, r"approximation\.7\.order: got 4; expected 0 to 3, for groups of 4"),
        ({"0": {"order": 9}}, r"approximation\.0\.order: got 9; expected 0 to 8"),
        ({"9": {}}, r"2 to 20: '9' is a linear layer, which has no kernel"),
        ({"1*": {"group": 4}}, r"approximation\.layers"),
        ({"7": {"grup": 4}}, r"did you mean 'group'"),
        ({"7": {"order": -1}}, r"approximation\.7\.order"),
        ({"7": {"basis": "sines"}}, r"approximation\.7\.basis"),
        ({"7": {"order": 7, "group": 24, "basis": "index"}}, r"approximation\.7\.order: got 7; expected at most 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_grouped_is_refused(plan: dict[str, dict[str, object]], message: str) -> None:
    module = convert(network(), torch.randn(2, 2, 8, 8))
    before = {name: layer.weight for name, layer in woven_layers(module).items()}
    with pytest.raises(InputError, match=message):
        method("approximation", layers={"0": {"group": 3}, **plan} if "0" not in plan else plan).prepare(module)
    assert all(layer.weight is before[name] and layer.weave is None for name, layer in woven_layers(module).items())


def test_layers_without_a_kernel_or_with_masks_are_refused() -> None:
    pointwise, single = Conv2d(8, 4, 1), Conv2d(4, 4, 1, groups=4)
    with pytest.raises(InputError, match=r"2 to 8: the kernel of '0' is 1×1"):
        Approximation({"0": Setting()}).prepare(nn.Sequential(pointwise))
    with pytest.raises(InputError, match=r"no approximation: '0' has one input"):
        Approximation({"0": Setting()}).prepare(nn.Sequential(single))
    Approximation({"0": Setting(group=4)}).prepare(nn.Sequential(pointwise))
    with pytest.raises(InputError, match="comes first in a recipe"):
        Approximation({"0": Setting(group=4)}).prepare(nn.Sequential(pointwise))
    with pytest.raises(InputError, match="least-squares"):
        Approximation({}, initialisation="least-square")  # type: ignore[arg-type]


def test_it_composes_with_block_pruning() -> None:
    """Masks added behind approximation act on the coefficients, and a block of zero coefficients gets no array."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, 12, 12)
    model = nn.Sequential(
        nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 70, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4480, 10)
    )
    module = convert(model.eval(), x[:2], crossloom.quantisation_for(crossloom.load("crimp-isaac")))
    first, second = method("approximation", layers={"2": {}}), method("block-pruning", keep=0.5)
    for step in (first, second):
        step.prepare(module)
    calibrate(module, [x])
    with torch.no_grad():
        before = module(x)
        pruned = second.finish(module)
        assert torch.allclose(module(x), before, atol=1e-5)
    chip = crossloom.compile(module, "crimp-isaac")
    assert chip.crossbars == pruned["blocks"]
    assert torch.equal(chip.logits(x, "integer"), chip.logits(x, "crossbar"))


def test_what_is_quantised_is_what_the_chip_stores() -> None:
    """Scaling rows by powers of two keeps 8-bit coefficients of a quadratic good; the index basis loses 12 dB."""
    torch.manual_seed(0)
    dense = torch.randn(64, 1152)
    errors = {}
    for basis in ("orthogonal", "index"):
        layer = Linear(1152, 64, bias=False)
        layer.weight = nn.Parameter(dense)
        Approximation({"0": Setting(order=2, group=9, basis=basis)}).prepare(nn.Sequential(layer))
        layer.weight_quantiser.enabled = False
        exact = layer.effective()[0].detach()
        layer.weight_quantiser.enabled = True
        error = (layer.effective()[0] - exact).square().mean() / exact.square().mean()
        errors[basis] = 10 * math.log10(float(error))
    assert errors["orthogonal"] < -37
    assert errors["index"] > errors["orthogonal"] + 12
    assert torch.allclose(
        projected(dense, runs(1152, 9, 2, "index")), projected(dense, runs(1152, 9, 2, "orthogonal")), atol=1e-4
    )


def test_it_trains_under_autocast() -> None:
    torch.manual_seed(0)
    module = crossloom.convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), torch.rand(2, 1, 8, 8))
    Approximation({"1": {"order": 1, "group": 4}}).prepare(module)
    x = torch.rand(4, 1, 8, 8)
    crossloom.calibrate(module, [x])
    layer = woven_layers(module)["1"]
    module(x).square().sum().backward()
    exact, layer.weight.grad = layer.weight.grad.clone(), None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(x).float().square().sum()
    loss.backward()
    assert torch.allclose(layer.weight.grad, exact, rtol=0.1, atol=0.02 * float(exact.abs().max()))
