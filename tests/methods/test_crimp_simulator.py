"""The runtime simulator is the analog engine, cell for cell, and the ideal product without noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.frontend import lower
from crossloom.hardware import load
from crossloom.mapping import LayerMapping, map_program
from crossloom.methods import method
from crossloom.methods.cell_draws import ArrayCells, ChipDraw, FreshDraw, levels
from crossloom.methods.runtime_simulator import RuntimeAdaptation, RuntimeSimulator, mean_deviation, read_error
from crossloom.methods.zero_recover import set_quantised
from crossloom.nn import Linear, woven_layers
from crossloom.simulate import Conditions, Settings, engine
from crossloom.simulate.analog_chip import AnalogChip, program_block
from crossloom.weave import Woven, fields
from tests.methods.crimp_cases import images, integers, lenet

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
        mapping = self.mappings[place]
        b = torch.zeros(like.shape, dtype=torch.float64)
        slices = like.shape[0]
        for index, block in enumerate(mapping.blocks):
            made = program_block(mapping, index, 0, self.chip)
            extra = torch.from_numpy(made.conductance - mapping.cells(block).levels)
            rows, columns = slice(*block.rows), slice(*block.columns)
            b[:, rows, columns] = extra.view(len(extra), -1, slices).permute(2, 0, 1)
        return torch.zeros_like(b), b


@pytest.mark.parametrize("encoding", ["offset", "differential", "twos_complement"])
@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_simulator_is_the_analog_engine_cell_for_cell(encoding, epsilon) -> None:
    cells = ArrayCells(rows=48, columns=64, encoding=encoding, epsilon=epsilon)
    x = images((1, 10, 10))
    module = integers(lenet(), x, double=True, symmetric_weights=encoding != "offset")
    with torch.no_grad():  # a block of zeros, which gets no array
        next(m for m in woven_layers(module).values() if isinstance(m, Linear)).weight[:16, :48] = 0.0
    program = lower(module)
    mapping = map_program(program, crimp_chip(cells))
    chip = AnalogChip.of(mapping.chip, 5, 2, Conditions(on_off="infinite"))
    adaptation = RuntimeAdaptation(cells, dtype=torch.float64)
    adaptation.draw = Programmed(mapping.layers, chip)
    adaptation.prepare(module)
    engine_ = engine("analog-reference")
    seen: dict[str, torch.Tensor] = {}
    for name, layer in woven_layers(module).items():
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    with torch.no_grad():
        module.eval()(x[:1].double())
    checked = 0
    for node in program.nodes:
        if not isinstance(node, Woven):
            continue
        given_, output = seen[node.layer.name]
        step, x_scale = float(node.layer.weight_scale[0]), node.layer.input_format.scale
        codes = torch.round(given_ / x_scale).long()
        kernel = engine_.prepare(mapping.layers[node.layer.name], Settings(analog=chip))
        ours = torch.round(output / (step * x_scale)).long()
        bias = torch.from_numpy(node.layer.output.bias).view((1, -1) + (1,) * (ours.dim() - 2))
        assert torch.equal(ours - bias, kernel(codes).long()), node.name
        checked += 1
    assert checked == 4


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
        weight, _ = layer.effective()
        errors[reads] = torch.stack([simulator.error(layer, seen[0], weight) for _ in range(400)])
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
    torch_module = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=2), torch.nn.Flatten(), torch.nn.Linear(16, 3))
    module = integers(torch_module, images((4, 4, 4)))
    with pytest.raises(InputError, match="plain convolutions"):
        RuntimeAdaptation().prepare(module)
