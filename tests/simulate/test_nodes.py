"""Every digital node against its docstring, in Python integers, and the executor around them."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.hardware import load
from crossloom.mapping import map_program
from crossloom.simulate import Executor
from crossloom.simulate.digital import apply_output, evaluate, quantise, storage
from crossloom.weave import (
    Add,
    AveragePool,
    Concat,
    Convolution,
    Format,
    Input,
    InputTransform,
    Lookup,
    MaxPool,
    Multiply,
    Node,
    OutputTransform,
    Pad,
    Permute,
    Program,
    Requantise,
    Rescale,
    Reshape,
    Scale,
    Slice,
    Woven,
)  # fmt: skip
from tests.simulate.exact_cases import codes, make_layer

formats = st.builds(
    lambda bits, signed, z: Format(bits, signed, 0.1, max(min(z, Format(bits, signed).high), Format(bits, signed).low)),
    st.integers(1, 16), st.booleans(), st.integers(-40, 200),
)  # fmt: skip
seeds = st.integers(0, 2**32 - 1)
relaxed = settings(deadline=None, max_examples=50)


def rounded(value: int, multiplier: int, shift: int) -> int:
    return math.floor(Fraction(value * multiplier, 2**shift) + Fraction(1, 2))


def common(form: Format, shape: tuple[int, ...], inputs: int = 1) -> dict[str, object]:
    return {"name": "y", "inputs": tuple(f"x{i}" for i in range(inputs)), "format": form, "shape": shape}


def clipped(form: Format, rng: np.random.Generator) -> dict[str, int]:
    low, high = sorted(rng.integers(form.low, form.high + 1, 2).tolist())
    return {"low": low, "high": high}


def rescale(rng: np.random.Generator, count: int = 1) -> Rescale:
    return Rescale.of(rng.uniform(0.001, 3, count))


def check(node: Node, inputs: list[torch.Tensor], forms: list[Format], expected) -> None:
    """Compare with `expected(index)`, a Python integer for every element of the output."""
    found = evaluate(node, inputs, forms)
    assert tuple(found.shape[1:]) == tuple(node.shape)
    assert found.dtype == storage(node.format)
    for index in itertools.product(*(range(n) for n in found.shape)):
        assert int(found[index]) == expected(index), index


@relaxed
@given(formats, formats, formats, seeds, st.integers(2, 3))
def test_add(a: Format, b: Format, out: Format, seed: int, terms: int) -> None:
    rng = np.random.default_rng(seed)
    forms = [a, b, a][:terms]
    xs = [codes(f, (2, 3, 4), rng) for f in forms]
    multipliers, shift = tuple(rng.integers(1, 5000, terms).tolist()), int(rng.integers(0, 14))
    limits = clipped(out, rng)
    node = Add(**common(out, (3, 4), terms), multipliers=multipliers, shift=shift, **limits)

    def expected(index: tuple[int, ...]) -> int:
        total = sum((int(x[index]) - f.zero_point) * m for x, f, m in zip(xs, forms, multipliers, strict=True))
        return min(max(rounded(total, 1, shift) + out.zero_point, limits["low"]), limits["high"])

    check(node, xs, forms, expected)


@relaxed
@given(formats, formats, formats, seeds)
def test_multiply_broadcasts(a: Format, b: Format, out: Format, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, gate, factor, limits = codes(a, (2, 3, 2, 2), rng), codes(b, (2, 3, 1, 1), rng), rescale(rng), clipped(out, rng)
    node = Multiply(**common(out, (3, 2, 2), 2), rescale=factor, **limits)

    def expected(i: tuple[int, ...]) -> int:
        product = (int(x[i]) - a.zero_point) * (int(gate[i[0], i[1], 0, 0]) - b.zero_point)
        value = rounded(product, int(factor.multiplier[0]), int(factor.shift[0])) + out.zero_point
        return min(max(value, limits["low"]), limits["high"])

    check(node, [x, gate], [a, b], expected)


@relaxed
@given(formats, formats, seeds)
def test_scale(a: Format, out: Format, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, limits = codes(a, (2, 3, 2), rng), clipped(out, rng)
    multiplier, offset, shift = rng.integers(-3000, 3000, 3), rng.integers(-9000, 9000, 3), rng.integers(0, 14, 3)
    node = Scale(**common(out, (3, 2)), multiplier=multiplier, offset=offset, shift=shift, **limits)

    def expected(i: tuple[int, ...]) -> int:
        c = i[1]
        value = rounded((int(x[i]) - a.zero_point) * int(multiplier[c]) + int(offset[c]), 1, int(shift[c]))
        return min(max(value + out.zero_point, limits["low"]), limits["high"])

    check(node, [x], [a], expected)


@relaxed
@given(formats, formats, formats, seeds)
def test_concat_and_requantise(a: Format, b: Format, out: Format, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xs, forms = [codes(a, (2, 2, 3), rng), codes(b, (2, 4, 3), rng)], [a, b]
    factors, limits = (rescale(rng), rescale(rng)), clipped(out, rng)

    def value(which: int, index: tuple[int, ...]) -> int:
        factor, x = factors[which], int(xs[which][index]) - forms[which].zero_point
        y = rounded(x, int(factor.multiplier[0]), int(factor.shift[0])) + out.zero_point
        return min(max(y, limits["low"]), limits["high"])

    node = Concat(**common(out, (6, 3), 2), axis=1, rescales=factors, **limits)
    check(node, xs, forms, lambda i: value(0, i) if i[1] < 2 else value(1, (i[0], i[1] - 2, i[2])))
    check(Requantise(**common(out, (2, 3)), rescale=factors[0], **limits), xs[:1], [a], lambda i: value(0, i))


@relaxed
@given(st.integers(1, 8), st.booleans(), formats, seeds)
def test_lookup(bits: int, signed: bool, out: Format, seed: int) -> None:
    rng = np.random.default_rng(seed)
    form = Format(bits, signed)
    table = rng.integers(out.low, out.high + 1, 2**bits).astype(np.int32)
    x = codes(form, (3, 5), rng)
    node = Lookup(**common(out, (5,)), table=table, function="any")
    check(node, [x], [form], lambda i: int(table[int(x[i]) - form.low]))


@relaxed
@given(formats, seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_max_pool(form: Format, seed: int, kernel: int, stride: int, dilation: int, ceil: bool) -> None:
    rng = np.random.default_rng(seed)
    x, padding = codes(form, (2, 2, 9, 8), rng), kernel // 2
    module = torch.nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    expected = module(x.to(torch.float64)).to(torch.int64)
    node = MaxPool(
        **common(form, tuple(expected.shape[1:])), kernel=(kernel, kernel), stride=(stride, stride),
        padding=(padding, padding), dilation=(dilation, dilation), ceil_mode=ceil,
    )  # fmt: skip
    check(node, [x], [form], lambda i: int(expected[i]))


@relaxed
@given(formats, formats, seeds, st.booleans())
def test_average_pool(form: Format, out: Format, seed: int, shared: bool) -> None:
    rng = np.random.default_rng(seed)
    x, rows, columns = codes(form, (2, 2, 7, 6), rng), np.array([[0, 2], [1, 7], [4, 5]]), np.array([[0, 6], [3, 4]])
    factor, limits = rescale(rng, 1 if shared else 6), clipped(out, rng)
    node = AveragePool(**common(out, (2, 3, 2)), rows=rows, columns=columns, rescale=factor, **limits)

    def expected(i: tuple[int, ...]) -> int:
        (top, bottom), (left, right) = rows[i[2]], columns[i[3]]
        window = x[i[0], i[1], top:bottom, left:right].to(torch.int64) - form.zero_point
        f = 0 if shared else i[2] * 2 + i[3]
        value = rounded(int(window.sum()), int(factor.multiplier[f]), int(factor.shift[f])) + out.zero_point
        return min(max(value, limits["low"]), limits["high"])

    check(node, [x], [form], expected)


@relaxed
@given(formats, seeds)
def test_moves(form: Format, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = codes(form, (2, 3, 4, 5), rng)
    check(Reshape(**common(form, (60,))), [x], [form], lambda i: int(x[i[0]].reshape(-1)[i[1]]))
    node: Node = Permute(**common(form, (5, 3, 4)), axes=(0, 3, 1, 2))
    check(node, [x], [form], lambda i: int(x[i[0], i[2], i[3], i[1]]))
    node = Slice(**common(form, (3, 4, 2)), axis=3, start=1, stop=5, step=2)
    check(node, [x], [form], lambda i: int(x[i[0], i[1], i[2], 1 + 2 * i[3]]))
    code = int(rng.integers(form.low, form.high + 1))
    node = Pad(**common(form, (3, 7, 6)), padding=(1, 2, 0, 1), code=code)

    def padded(i: tuple[int, ...]) -> int:
        y, z = i[2] - 1, i[3]
        return int(x[i[0], i[1], y, z]) if 0 <= y < 4 and 0 <= z < 5 else code

    check(node, [x], [form], padded)


@relaxed
@given(formats, seeds)
def test_input_rounds_half_up(form: Format, seed: int) -> None:
    steps = np.random.default_rng(seed).integers(-80, 600, 40) / 2
    node = Input(name="x", inputs=(), format=dataclasses.replace(form, scale=0.25), shape=(40,))
    found = quantise(node, torch.from_numpy(steps * 0.25)[None])
    expected = [
        min(max(math.floor(Fraction(s) + Fraction(1, 2)) + form.zero_point, form.low), form.high) for s in steps
    ]
    assert found[0].tolist() == expected


@relaxed
@given(formats, seeds, st.booleans(), st.booleans(), st.integers(1, 2))
def test_output_transform(form: Format, seed: int, clip: bool, scatter: bool, axis: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, limits = 6, clipped(form, rng) if clip else {}
    columns = rng.integers(-1, 4, outputs) if scatter else None
    made = OutputTransform(rng.integers(-9000, 9000, outputs), rescale(rng, outputs), form, columns=columns, **limits)
    acc = rng.integers(-(2**30), 2**30, (2, 3, 4 if scatter else outputs))
    expected = torch.from_numpy(made.apply(acc.reshape(6, -1)).reshape(2, 3, outputs)).movedim(-1, axis)
    x = torch.from_numpy(acc).to(torch.int32).movedim(-1, axis)
    assert torch.equal(apply_output(made, x, axis, torch.int64), expected)


def small_program() -> Program:
    """Convolution, pooling, a skip and a linear layer, with zero points."""
    rng = np.random.default_rng(0)
    form = Format(8, False, 0.05, 11)
    geometry = Convolution((3, 3), (1, 1), (1, 1, 1, 1))

    def woven(name: str, inputs: int, columns: int, convolution: Convolution | None = None) -> Woven:
        raw = convolution is None
        layer = make_layer(InputTransform.identity(inputs), columns, rng, form=form, convolution=convolution)
        kept = Format(24, True, 0.01) if raw else form
        limits = {} if raw else {"low": 11, "high": 255}
        ratio = Rescale() if raw else Rescale.of(rng.uniform(1e-4, 1e-3, columns))
        output = OutputTransform(rng.integers(-500, 500, columns), ratio, kept, **limits)
        layer = dataclasses.replace(layer, name=name, output=output)
        shape = (columns,) if raw else (columns, 8, 8)
        return Woven(name=f"{name}.y", inputs=("",), format=kept, shape=shape, layer=layer)

    def fed(node: Woven, source: str) -> Woven:
        return dataclasses.replace(node, inputs=(source,))

    nodes = (
        Input(name="x", inputs=(), format=form, shape=(3, 8, 8)),
        fed(woven("conv1", 27, 6, geometry), "x"),
        fed(woven("conv2", 54, 6, geometry), "conv1.y"),
        Add(
            name="sum", inputs=("conv1.y", "conv2.y"), format=form, shape=(6, 8, 8), multipliers=(3, 5), shift=3,
            low=11, high=255,
        ),
        MaxPool(
            name="pool", inputs=("sum",), format=form, shape=(6, 4, 4), kernel=(2, 2), stride=(2, 2), padding=(0, 0),
            dilation=(1, 1),
        ),
        Reshape(name="flat", inputs=("pool",), format=form, shape=(96,)),
        fed(woven("fc", 96, 10), "flat"),
    )  # fmt: skip
    return Program("small", nodes)


def test_executor_within_any_memory_budget() -> None:
    program = small_program()
    mapping = map_program(program, load("isaac"))
    x = torch.randn(21, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 4
    expected = Executor(program).run(x)
    assert expected.shape == (21, 10)
    assert torch.equal(Executor(mapping, "integer").run(x), expected)
    sliced = Executor(mapping, "crossbar", engine_name="reference").run(x)
    for options in (
        {},
        {"memory_budget": 1},
        {"memory_budget": 50_000},
        {"shortcut": False},
        {"engine_name": "tensor"},
    ):
        assert torch.equal(Executor(mapping, "crossbar", **options).run(x), sliced), options
    assert torch.equal(Executor(program).run(x[:0]), expected[:0])


def test_nodes_and_logits() -> None:
    program = small_program()
    executor = Executor(program)
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 4
    seen = executor.nodes(x)
    assert set(seen) == {node.name for node in program.nodes}
    assert torch.equal(seen["fc.y"], executor.run(x))
    assert torch.equal(executor.logits(x), executor.run(x).to(torch.float64) * 0.01)
    for node in program.woven():
        acc = executor.kernels[node.name](seen[node.inputs[0]])
        axis = -1 if node.layer.convolution is None else 1
        assert torch.equal(apply_output(node.layer.output, acc, axis, torch.int64), seen[node.name].to(torch.int64))


def test_executor_refuses() -> None:
    program = small_program()
    for wrong in ({"rung": "crosbar"}, {"engine_name": "crossbar"}, {"memory_budget": 0}, {"rung": "crossbar"}):
        with pytest.raises(InputError):
            Executor(program, **wrong)
    with pytest.raises(InputError, match="shape"):
        Executor(program).run(torch.zeros(2, 3, 9, 8))
