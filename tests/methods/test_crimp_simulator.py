"""The runtime simulator is the analog engine, cell for cell, and the ideal product without noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from crossloom.errors import InputError
from crossloom.frontend import QuantisationConfig, calibrate, convert, lower
from crossloom.hardware import load
from crossloom.mapping import LayerMapping, map_program
from crossloom.mapping.idle_rows import repeated
from crossloom.methods import method
from crossloom.methods.approximation import Approximation
from crossloom.methods.cell_draws import ArrayCells, ChipDraw, FreshDraw, levels
from crossloom.methods.cell_reads import deviations, read_error, summed_deviation
from crossloom.methods.runtime_simulator import RuntimeAdaptation, RuntimeSimulator, mean_deviation
from crossloom.methods.tied_rows import tie_rows
from crossloom.methods.zero_recover import set_quantised
from crossloom.nn import Linear, QuantiserConfig, WeightQuantiser, woven_layers
from crossloom.simulate import Conditions, Settings, engine
from crossloom.simulate.analog_chip import AnalogChip, program_block
from crossloom.weave import InputTransform, Woven, fields
from tests.methods.crimp_cases import Residual, images, integers, lenet

PERFECT = {"epsilon": 0.0, "stuck_hrs": 0.0, "stuck_lrs": 0.0}


def crimp_chip(cells: ArrayCells):
    """CRIMP's formula on the analog rung: no clipping, no floor conductance."""
    return load(
        "crimp-isaac",
        overrides={
            "array.flip": False, "array.b_adc": 12, "array.adc_range": "unit", "array.encoding": cells.encoding,
            "array.rows": cells.rows, "array.active_rows": cells.rows, "array.columns": cells.columns,
            "array.columns_per_adc": 1, "device.stuck_hrs": cells.stuck_hrs, "device.stuck_lrs": cells.stuck_lrs,
            "device.variation": {"model": "lognormal", "sigma": cells.epsilon},
        },
    )  # fmt: skip


class Programmed:
    """A draw that reads its cells from a chip of the analog engine."""

    def __init__(self, mappings: dict[str, LayerMapping], chip: AnalogChip) -> None:
        self.mappings, self.chip = mappings, chip

    def __call__(self, like: torch.Tensor, place: str) -> tuple[torch.Tensor, torch.Tensor]:
        name, _, group = place.removesuffix("]").partition("[")
        mapping = self.mappings[name]
        b = torch.zeros(like.shape, dtype=torch.float64)
        slices = like.shape[0]
        for index, block in enumerate(mapping.blocks):
            if block.groups[0] != int(group or 0):
                continue
            made = program_block(mapping, index, 0, self.chip)
            extra = torch.from_numpy(made.conductance - mapping.cells(block).levels)
            rows, columns = slice(*block.rows), slice(*block.columns)
            if block.groups[1] - block.groups[0] > 1:  # whole groups along the diagonal
                rows = columns = slice(None)
            b[:, rows, columns] = extra.view(len(extra), -1, slices).permute(2, 0, 1)
        return torch.zeros_like(b), b


def disagreements(module: fx.GraphModule, cells: ArrayCells, x: torch.Tensor, copies: bool = False) -> dict[str, int]:
    """By layer, how many accumulators of the simulator are not those of the analog engine on the same draw."""
    program = lower(module)
    mapping = map_program(program, crimp_chip(cells))
    if copies:
        program = program.replace_layers({name: repeated(layer) for name, layer in mapping.layers.items()})
        mapping = map_program(program, crimp_chip(cells))
    chip = AnalogChip.of(mapping.chip, 5, 2, Conditions(on_off="infinite"))
    adaptation = RuntimeAdaptation(cells, dtype=torch.float64, copies=copies)
    adaptation.draw = Programmed(mapping.layers, chip)
    adaptation.prepare(module)
    engine_ = engine("analog-reference")
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, layer in woven_layers(module).items():
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    with torch.no_grad():
        module.eval()(x[:1].double())
    found = {}
    for node in program.nodes:
        if not isinstance(node, Woven):
            continue
        given_, output = seen[node.layer.name]
        step, form = float(node.layer.weight_scale[0]), node.layer.input_format
        codes = torch.round(given_ / form.scale).long() + form.zero_point
        kernel = engine_.prepare(mapping.layers[node.layer.name], Settings(analog=chip))
        ours = torch.round(output / (step * form.scale)).long()
        bias = torch.from_numpy(node.layer.output.bias).view((1, -1) + (1,) * (ours.dim() - 2))
        found[node.name] = int((ours - bias != kernel(codes).long()).sum())
    return found


@pytest.mark.parametrize("encoding", ["offset", "differential", "twos_complement"])
@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_simulator_is_the_analog_engine_cell_for_cell(encoding, epsilon) -> None:
    cells = ArrayCells(rows=48, columns=64, encoding=encoding, epsilon=epsilon)
    x = images((1, 10, 10))
    module = integers(lenet(), x, double=True, symmetric_weights=encoding != "offset")
    with torch.no_grad():  # a block of zeros, which gets no array
        next(m for m in woven_layers(module).values() if isinstance(m, Linear)).weight[:16, :48] = 0.0
    found = disagreements(module, cells, x)
    assert len(found) == 4 and not any(found.values()), found


@pytest.mark.parametrize("encoding", ["offset", "differential"])
def test_with_copies_in_idle_rows_the_simulator_is_the_engine_on_the_repeated_program(encoding) -> None:
    cells = ArrayCells(rows=64, columns=64, encoding=encoding, epsilon=0.3)
    x = images((1, 10, 10))
    module = integers(lenet(), x, double=True, symmetric_weights=encoding != "offset")
    rows = [layer.weight.flatten(1).shape[1] for layer in woven_layers(module).values()]
    assert min(rows) <= 32 < max(rows), "some layers have idle rows, some have none"
    found = disagreements(module, cells, x, copies=True)
    assert len(found) == 4 and not any(found.values()), found


@pytest.mark.parametrize("reads", ["exact", "sampled"])
def test_copies_average_what_cells_err_by(reads) -> None:
    module = woven(1, 0, weave="none")
    cells = ArrayCells(rows=128, columns=64, epsilon=0.4)
    x = torch.rand(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    layer, errors, inputs = woven_layers(module)["2"], {}, list[torch.Tensor]()
    layer.register_forward_hook(lambda _, given_, __: inputs.append(given_[0]))
    for copies in (False, True):
        RuntimeAdaptation(cells, reads=reads, evaluation=reads, copies=copies).prepare(module)
        module.eval()
        with torch.no_grad():
            module(x)
            found = torch.stack([layer.disturbance.error(layer, inputs[0]) for _ in range(60)])
        errors[copies] = float(found.var(0).mean())
    assert errors[False] / errors[True] == pytest.approx(4, rel=0.3), "32 rows of 128"


def woven(groups: int, seed: int, order: int = 1, weave: str = "moments", tied: int = 0, double: bool = False,
    inputs: str = "symmetric", bits: int | None = None) -> fx.GraphModule:  # fmt: skip
    """A grouped convolution and a linear layer, approximated, perhaps with tied rows, as calibrated integers."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=groups), nn.Flatten(), nn.Linear(32, 5))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    x = torch.rand(6, 4, 4, 4, generator=generator) - (0.4 if inputs != "symmetric" else 0.0)
    if double:
        model, x = model.double(), x.double()
    # A clip between the layers keeps negative values, so that asymmetric codes have a zero point there too.
    codes = QuantiserConfig(bits=6, symmetric=inputs == "symmetric")
    module = convert(model.eval(), x[:2], QuantisationConfig(activations=codes, input=codes))
    if weave != "none":
        growth = {"growth": 1} if weave == "rounded" else {}
        approximation = Approximation(
            {"0": {"order": order, "group": "kernel", **growth}, "2": {"order": order, "group": 7}}
        )
        approximation.prepare(module)
        approximation.finish(module)
    if tied:
        for layer in woven_layers(module).values():
            rows = layer.weight.flatten(1).shape[1]
            tie_rows(layer, InputTransform.sum([k % min(tied, rows) for k in range(rows)]))
    for layer in woven_layers(module).values():
        config = QuantiserConfig(bits=4, symmetric=False, power_of_two="up")
        if bits is not None:
            config = QuantiserConfig(bits=bits, range="fixed", fixed_step=2.0 ** (1 - bits))
        layer.weight_quantiser = WeightQuantiser(config)
    calibrate(module, [x])
    return module


@settings(max_examples=16, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]), order=st.integers(0, 2), weave=st.sampled_from(["none", "moments"]),
    tied=st.sampled_from([0, 3]), inputs=st.sampled_from(["symmetric", "asymmetric"]),
    encoding=st.sampled_from(["offset", "differential"]), bits=st.sampled_from([None, 1, 2]),
    rows=st.sampled_from([8, 48]), seed=st.integers(0, 99),
)  # fmt: skip
def test_woven_tied_and_grouped_layers_are_the_engines_cell_for_cell(
    groups, order, weave, tied, inputs, encoding, bits, rows, seed
) -> None:
    if encoding == "differential" and bits is None:
        bits = 3
    cells = ArrayCells(rows=rows, columns=32, encoding=encoding, epsilon=0.3)
    module = woven(groups, seed, order, weave, tied, True, inputs, bits)
    x = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    found = disagreements(module, cells, x)
    assert len(found) == 2 and not any(found.values()), found


@pytest.mark.parametrize("reads", ["exact", "sampled"])
@pytest.mark.parametrize(("groups", "bits"), [(1, None), (2, 1), (4, 2)])
def test_without_noise_a_woven_layer_is_ideal_too(groups, bits, reads) -> None:
    module = woven(groups, 3, bits=bits, tied=3, inputs="asymmetric")
    x = images((4, 4, 4))
    before = module(x)
    RuntimeAdaptation(ArrayCells(**PERFECT), reads=reads).prepare(module)
    assert torch.equal(module.eval()(x), before)
    if reads == "exact":
        assert torch.equal(module.train()(x), before)


@pytest.mark.parametrize("groups", [1, 4])
def test_sampled_reads_of_a_woven_layer_have_the_mean_of_exact_ones(groups) -> None:
    module = woven(groups, 1, order=1, inputs="asymmetric")
    x, layer = images((4, 4, 4), 2), woven_layers(module)["0"]
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(x)
    torch.manual_seed(0)
    errors = {}
    for reads in ("exact", "sampled"):
        RuntimeAdaptation(ArrayCells(rows=64, columns=64, epsilon=0.4), reads=reads).prepare(module)
        simulator = layer.disturbance
        assert isinstance(simulator, RuntimeSimulator)
        simulator.train()
        layer.effective()
        errors[reads] = torch.stack([simulator.error(layer, seen[0]) for _ in range(600)])
    exact, sampled = errors["exact"], errors["sampled"]
    standard = (exact.var(0) + sampled.var(0)).div(600).sqrt()
    assert float(((exact.mean(0) - sampled.mean(0)) / standard).abs().mean()) < 1.2  # 0.8 for equal means
    assert float(sampled.std(0).mean() / exact.std(0).mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("encoding", ["offset", "differential"])
@pytest.mark.parametrize("reads", ["exact", "sampled"])
def test_without_noise_the_simulator_is_the_ideal_product(encoding, reads) -> None:
    x = images((1, 10, 10))
    module = integers(lenet(), x, symmetric_weights=encoding == "differential")
    before = module(x)
    step = RuntimeAdaptation(ArrayCells(encoding=encoding, **PERFECT), reads=reads)
    step.prepare(module)
    if reads == "exact":
        assert torch.equal(module.train()(x), before)
    assert torch.equal(module.eval()(x), before)
    assert step.finish(module) == {"epsilon": 0.0, "encoding": encoding}
    assert all(layer.disturbance is None for layer in woven_layers(module).values())


def brute(x, deviation, gains, bits, height):
    """The formula as it stands, in loops."""
    slices, rows, outputs = deviation.shape
    y = np.zeros((len(x), outputs))
    for v in range(len(x)):
        for n in range(outputs):
            for d in range(0, rows, height):
                for s in range(slices):
                    for b, weight in enumerate(bits):
                        run = range(d, min(d + height, rows))
                        mac = sum(((int(x[v, h]) >> b) & 1) * deviation[s, h, n] for h in run)
                        y[v, n] += gains[s] * weight * math.floor(mac + 0.5)
    return y


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9), height=st.integers(1, 5), signed=st.booleans(), seed=st.integers(0, 99),
    chunk=st.integers(1, 400),
)  # fmt: skip
def test_grouped_reads_are_the_loops(rows, height, signed, seed, chunk) -> None:
    rng = np.random.default_rng(seed)
    digits = fields(4, 1, signed)
    x = rng.integers(-8 if signed else 0, 8 if signed else 16, (3, rows))
    deviation, gains = rng.normal(0, 1.5, (2, rows, 3)), [1, 4]
    found = read_error(torch.from_numpy(x), torch.from_numpy(deviation), gains, digits, height, chunk)
    assert np.array_equal(found.numpy(), brute(x, deviation, gains, [f.weight for f in digits], height))


def test_sampled_reads_have_the_mean_and_the_spread_of_exact_ones() -> None:
    cells = ArrayCells(rows=32, columns=64, epsilon=0.4)
    x = images((1, 10, 10), 4)
    module = integers(lenet(), x)
    layer, seen = next(m for m in woven_layers(module).values() if isinstance(m, Linear)), []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(x)
    torch.manual_seed(0)
    errors = {}
    for reads in ("exact", "sampled"):
        RuntimeAdaptation(cells, reads=reads).prepare(module)
        simulator = layer.disturbance
        assert isinstance(simulator, RuntimeSimulator)
        simulator.train()
        layer.effective()
        errors[reads] = torch.stack([simulator.error(layer, seen[0]) for _ in range(400)])
    exact, sampled = errors["exact"], errors["sampled"]
    standard = exact.std(0) / 20
    assert float(((exact.mean(0) - sampled.mean(0)) / standard).abs().mean()) < 1.6  # 1.13 for equal means
    assert float(sampled.std(0).mean() / exact.std(0).mean()) == pytest.approx(1, abs=0.05)


def test_the_error_is_detached() -> None:
    module = integers(lenet(), images((1, 10, 10)))
    RuntimeAdaptation(ArrayCells(epsilon=0.5), draw="chip").prepare(module)
    last = list(woven_layers(module).values())[-1]
    assert isinstance(last, Linear) and isinstance(last.disturbance, RuntimeSimulator)
    x = torch.rand(3, last.in_features)
    found = {}
    for simulated in (False, True):
        last.disturbance.active = simulated
        x.requires_grad_(True).grad = None
        last.zero_grad()
        y = last(x)
        y.sum().backward()
        found[simulated] = (y.detach(), x.grad, last.weight.grad)
    assert not torch.equal(found[False][0], found[True][0])
    assert torch.equal(found[False][1], found[True][1]) and torch.equal(found[False][2], found[True][2])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("case", ["residual", "lenet", "woven", "grouped"])
def test_one_product_is_the_product_plus_the_detached_error(case, autocast) -> None:
    """With and without batch norm, in training: outputs on the same draw, and gradients of the plain product."""
    if case in ("woven", "grouped"):
        module, x = woven(4 if case == "grouped" else 1, 2, inputs="asymmetric"), images((4, 4, 4))
    else:
        x = images((3, 8, 8) if case == "residual" else (1, 10, 10))
        module = integers(Residual() if case == "residual" else lenet(), x)
    RuntimeAdaptation(ArrayCells(rows=32, columns=64, epsilon=0.5), evaluation="sampled").prepare(module)
    module.train()
    for name, layer in woven_layers(module).items():
        shape = (2, layer.in_channels, 6, 6) if isinstance(layer, nn.Conv2d) else (2, layer.in_features)
        source, simulator = layer.__dict__["input_quantiser"], layer.disturbance
        given_ = source(images(shape[1:], 2)).detach()
        found = {}
        for simulated in (False, True):
            simulator.active = simulated
            at = given_.clone().requires_grad_(True)
            layer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                weight, bias = layer.effective()
                divisor = layer.norm_scale() if layer.norm is not None else None
                if divisor is not None:
                    weight, bias = weight / divisor.view(-1, *[1] * (weight.dim() - 1)), layer.bias
                torch.manual_seed(1)
                y = layer._product(at, weight, bias, divisor)
                (y.float() * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum().backward()
                torch.manual_seed(1)
                error = simulator.error(layer, given_, divisor)
            found[simulated] = (y.detach().float(), at.grad, layer.weight.grad)
        close = {"rtol": 0.02, "atol": 0.02 * float(found[True][0].abs().max())} if autocast else {}
        assert error.abs().max() > 0, name
        assert torch.allclose(found[True][0], found[False][0] + error, **(close or {"rtol": 1e-4, "atol": 1e-4})), name
        for one, other in zip(found[True][1:], found[False][1:], strict=True):
            assert torch.equal(one, other), name


def test_it_is_off_while_the_network_is_not_quantised() -> None:
    x = images((1, 10, 10))
    module = integers(lenet(), x)
    set_quantised(module, False)
    before = module(x)
    RuntimeAdaptation(ArrayCells(epsilon=0.5)).prepare(module)
    assert torch.equal(module(x), before)
    set_quantised(module, True)
    assert not torch.equal(module(x), before)


def test_draws() -> None:
    cells = ArrayCells(epsilon=0.3)
    like = torch.zeros(4, 300, 200)
    for draw in (FreshDraw(cells), FreshDraw(cells, bank=False), ChipDraw(cells, 3)):
        a, b = draw(like, "layer")
        stuck = a == -1
        assert float((stuck & (b == 0)).float().mean()) == pytest.approx(0.0904, abs=0.003)
        assert float((b == 3).float().mean()) == pytest.approx(0.0175, abs=0.002)
        healthy = a[~stuck]
        assert float(healthy.mean()) == pytest.approx(mean_deviation(0.3), abs=0.003)
        assert float(torch.log1p(healthy).std()) == pytest.approx(0.3, abs=0.003)
        again = draw(like, "layer")[0]
        assert torch.equal(a, again) == isinstance(draw, ChipDraw)
        assert not torch.equal(a, draw(like, "another")[0])
    assert torch.equal(ChipDraw(cells, 3)(like, "layer")[0], a)
    assert not torch.equal(ChipDraw(cells, 4)(like, "layer")[0], a)


def test_a_bank_smaller_than_a_layer_is_cut_several_times(monkeypatch) -> None:
    monkeypatch.setattr("crossloom.methods.cell_draws.BANK", 1000)
    a, b = FreshDraw(ArrayCells())(torch.zeros(4, 70, 10), "layer")
    assert a.shape == b.shape == (4, 70, 10) and float(a.std()) > 0.1


@settings(max_examples=40, deadline=None)
@given(
    encoding=st.sampled_from(["offset", "differential", "twos_complement"]), bits=st.integers(2, 8),
    cell=st.integers(1, 3), seed=st.integers(0, 9),
)  # fmt: skip
def test_levels_are_those_of_the_weight_code(encoding, bits, cell, seed) -> None:
    cells = ArrayCells(encoding=encoding, cell_bits=cell)
    code = cells.code(bits, 1 << (bits - 2))
    weights = np.random.default_rng(seed).integers(max(code.low, -99), code.high + 1, (5, 3))
    mine = levels(torch.from_numpy(weights.T.copy()).double(), code)
    theirs = code.encode(weights).reshape(5, 3, code.columns)
    assert np.array_equal(mine.permute(1, 2, 0).numpy(), theirs)


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(InputError, match="fresh"):
        method("runtime-adaptation", draw="fersh")
    with pytest.raises(InputError, match="exact"):
        method("runtime-adaptation", reads="exat")
    with pytest.raises(InputError, match=r"cells\.epsilon"):
        ArrayCells(epsilon=-1.0)
    with pytest.raises(InputError, match=r"cells\.stuck"):
        ArrayCells(stuck_hrs=0.6, stuck_lrs=0.6)
    with pytest.raises(InputError, match="b_dac"):
        ArrayCells.of(load("crimp-isaac", overrides={"array.b_dac": 2}))
    found = ArrayCells.of(load("crimp-isaac"))
    assert (found.rows, found.epsilon, found.weight_columns(8)) == (128, 0.1, 32)
    module = woven(4, 1, weave="rounded")
    with pytest.raises(InputError, match="exact moments"):
        RuntimeAdaptation().prepare(module)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.sampled_from([2, 4, 8]), st.integers(0, 99))
def test_flipped_columns_are_those_of_loops(rows: int, outputs: int, bits: int, seed: int) -> None:
    """A column of an array that would hold more than half of its top level holds the complement, read negatively."""
    generator = torch.Generator().manual_seed(seed)
    cells = ArrayCells(rows=8, columns=64, flip=True, epsilon=0.3)
    code = cells.code(bits, None)
    weights = torch.randint(1 - (1 << (bits - 1)), 1 << (bits - 1), (outputs, rows), generator=generator).float()
    weights[weights == 0] = 1.0  # every block has an array
    target = levels(weights, code)
    a, b = torch.randn(target.shape, generator=generator), torch.randn(target.shape, generator=generator)
    expected = torch.empty_like(target)
    for s in range(len(target)):
        for n in range(outputs):
            for start in range(0, rows, 8):
                band = range(start, min(start + 8, rows))
                flip = 2 * sum(float(target[s, r, n]) for r in band) > cells.top * len(band)
                for r in band:
                    held = cells.top - target[s, r, n] if flip else target[s, r, n]
                    read = a[s, r, n] * held + b[s, r, n]
                    expected[s, r, n] = -read if flip else read
    found = deviations(weights, code, cells, lambda like, place: (a, b), "layer")
    assert torch.allclose(found, expected, atol=1e-5)
    gains = torch.tensor([float(piece.gain) for piece in code.slices])
    summed = summed_deviation(weights, code, cells, lambda like, place: (a, b), "layer")
    assert torch.allclose(summed, torch.einsum("srn,s->rn", expected, gains), atol=1e-3)
