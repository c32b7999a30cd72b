"""A calibrated quantised network → an integer program, node for node.

The names agree: the program node `n` computes the integer codes of the value that the module's graph node `n`
holds as floats, so the two can be compared everywhere (`fake_quantised_codes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from crossloom.errors import InputError
from crossloom.frontend import operators as ops
from crossloom.nn import Conv2d, Linear, Quantiser
from crossloom.nn.layers import Weave
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
    WovenLayer,
    zero_point_bias,
)

ACCUMULATOR_BITS = 32


@dataclass(frozen=True)
class Raw:
    """A value that no quantiser has closed yet: which graph node computes it, and the clip that follows it."""

    node: fx.Node
    low: float = -math.inf
    high: float = math.inf


class Lowering:
    """Walks the quantised graph. Use `lower`."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.nodes: list[Node] = []
        self.values: dict[fx.Node, Raw | Node] = {}

    def run(self, name: str, classes: Sequence[str]) -> Program:
        """Lower all nodes."""
        weight = next(iter(self.module.parameters()))
        example = torch.zeros(self.module.meta["example_shape"], device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            ShapeProp(self.module).propagate(example)
        for node in self.module.graph.nodes:
            if node.op == "output":
                self._output(node.args[0])
            elif node.op == "placeholder":
                self.values[node] = Raw(node)
            elif "tensor_meta" in node.meta:
                self.values[node] = self._lower(node)
        return Program(name, tuple(self.nodes), tuple(classes))

    def _output(self, node: fx.Node) -> None:
        value = self.values[node]
        if isinstance(value, Raw):
            layer = self._module_of(value.node)
            assert isinstance(layer, (Conv2d, Linear)), "only a matrix layer may end a program unquantised"
            value = self._woven(value, layer, node.name, None)
        if not self.nodes or self.nodes[-1] is not value:  # dead branches end the list: the answer must be last
            self.nodes = [n for n in self.nodes if n is not value] + [value]

    # -- helpers ------------------------------------------------------------------------------------------------

    def _module_of(self, node: fx.Node) -> nn.Module | None:
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["tensor_meta"].shape[1:])

    def _source(self, node: fx.Node, position: int = 0) -> Node:
        """The program node behind an argument of a graph node."""
        value = self.values[node.all_input_nodes[position]]
        assert isinstance(value, Node), f"{node.name} reads a value that has no quantiser"
        return value

    def _emit(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    def _lower(self, node: fx.Node) -> Raw | Node:
        module, target = self._module_of(node), node.target
        if isinstance(module, Quantiser):
            raw = self.values[node.all_input_nodes[0]]
            assert isinstance(raw, Raw)
            return self._close(raw, node, module.format)
        if isinstance(module, nn.Dropout):
            return self.values[node.all_input_nodes[0]]
        if module is not None:
            return Raw(node)
        if target in ops.CLIPS:
            before = self.values[node.all_input_nodes[0]]
            raw = before if isinstance(before, Raw) else Raw(node)
            low, high = clip_range(node)
            return replace(raw, low=max(raw.low, low), high=min(raw.high, high))
        moved = self._move(node)
        return moved if moved is not None else Raw(node)

    def _move(self, node: fx.Node) -> Node | None:
        """Nodes that keep codes as they are."""
        target, shape = node.target, self._shape(node)
        movers = ops.MAX_POOLS | ops.RESHAPES | ops.PERMUTES | ops.SLICES | ops.PADS
        if target not in movers:
            return None
        source, given = self._source(node), ops.arguments(node)
        common: dict[str, Any] = {
            "name": node.name, "inputs": (source.name,), "format": source.format, "shape": shape,
        }  # fmt: skip
        rank = len(source.shape) + 1
        if target in ops.MAX_POOLS:
            kernel = ops.pair(given["kernel_size"])
            stride = ops.pair(given["stride"]) if given["stride"] else kernel
            padding, dilation = ops.pair(given["padding"]), ops.pair(given["dilation"])
            return self._emit(
                MaxPool(
                    **common, kernel=kernel, stride=stride, padding=padding, dilation=dilation,
                    ceil_mode=bool(given["ceil_mode"]),
                )
            )  # fmt: skip
        if target in ops.RESHAPES:
            if node.meta["tensor_meta"].shape[0] != self.module.meta["example_shape"][0]:
                raise InputError("operator", f"{node.name}: view", "a view that leaves the batch axis alone")
            return self._emit(Reshape(**common))
        if target in ops.PERMUTES:
            if target is ops.aten.transpose.int:
                axes = list(range(rank))
                a, b = given["dim0"] % rank, given["dim1"] % rank
                axes[a], axes[b] = axes[b], axes[a]
            else:
                axes = [axis % rank for axis in given["dims"]]
            if axes[0] != 0:
                raise InputError(
                    "operator", f"{node.name}: permute {axes}", "a permutation that leaves the batch first"
                )
            return self._emit(Permute(**common, axes=tuple(axes)))
        if target in ops.SLICES:
            axis = given["dim"] % rank
            if axis == 0:
                if given["start"] in (None, 0) and (given["end"] is None or given["end"] >= 2**31):
                    return source
                raise InputError("operator", f"{node.name}: slice", "a slice of another axis than the batch")
            length = source.shape[axis - 1]
            start, stop, step = slice(given["start"], given["end"], given["step"]).indices(length)
            return self._emit(Slice(**common, axis=axis, start=start, stop=stop, step=step))
        if target in ops.PADS:
            pad = list(given["pad"]) + [0] * (4 - len(given["pad"]))
            value = float(given.get("value") or 0.0)
            code = round(value / source.format.scale) + source.format.zero_point
            if len(pad) > 4:  # channels too: pad them with a concatenation of constants is not worth a node
                return self._pad_channels(node, source, pad, code)
            left, right, top, bottom = pad
            return self._emit(Pad(**common, padding=(top, bottom, left, right), code=code))
        return None

    def _pad_channels(self, node: fx.Node, source: Node, pad: list[int], code: int) -> Node:
        """A pad that also adds channels (the shortcut of CIFAR ResNets)."""
        if any(pad[6:]):
            raise InputError("operator", f"{node.name}: pad", "a pad of channels, height and width only")
        left, right, top, bottom, front, back = (*pad, 0, 0)[:6]
        return self._emit(
            Pad(
                name=node.name, inputs=(source.name,), format=source.format, shape=self._shape(node),
                padding=(top, bottom, left, right), channels=(front, back), code=code,
            )
        )  # fmt: skip

    # -- closing a raw value ------------------------------------------------------------------------------------

    def _close(self, raw: Raw, closing: fx.Node, form: Format) -> Node:
        """The program node of a raw value with the format its quantiser gives."""
        node, name = raw.node, closing.name
        module, target, shape = self._module_of(node), node.target, self._shape(closing)
        if node.op == "placeholder":
            return self._emit(Input(name=name, inputs=(), format=form, shape=shape))
        if isinstance(module, (Conv2d, Linear)):
            return self._woven(raw, module, name, form)
        low = form.low if raw.low == -math.inf else max(form.low, code_of(raw.low, form))
        high = form.high if raw.high == math.inf else min(form.high, code_of(raw.high, form))
        inputs = [
            self._source(node, i) for i in range(len(node.all_input_nodes)) if self._is_value(node.all_input_nodes[i])
        ]
        common: dict[str, Any] = {
            "name": name, "inputs": tuple(n.name for n in inputs), "format": form, "shape": shape,
            "low": low, "high": high,
        }  # fmt: skip
        first = inputs[0]
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return self._emit(Scale(**common, **scale_of(module, first.format, form)))
        if isinstance(module, nn.PReLU) or target in ops.FUNCTIONS or _with_number(node):
            table = self._table(node, first.format, form, low, high)
            function = "prelu" if module is not None else str(target).split(".")[1]
            plain = {k: v for k, v in common.items() if k not in ("low", "high")}
            return self._emit(Lookup(**plain, table=table, function=function))
        if target in ops.CLIPS:
            return self._emit(Requantise(**common, rescale=Rescale.of(first.format.scale / form.scale)))
        if target in ops.SUMS:
            operands = [self.values[a] for a in node.args[:2] if isinstance(a, fx.Node)]
            signs = (1.0, ops.SUMS[target] * float(ops.arguments(node).get("alpha") or 1))
            ratios = [
                s * v.format.scale / form.scale for s, v in zip(signs, operands, strict=True) if isinstance(v, Node)
            ]
            multipliers, shift = common_shift(ratios)
            common["inputs"] = tuple(v.name for v in operands if isinstance(v, Node))
            return self._emit(Add(**common, multipliers=multipliers, shift=shift))
        if target in ops.PRODUCTS:
            operands = [self.values[a] for a in node.args[:2] if isinstance(a, fx.Node)]
            common["inputs"] = tuple(v.name for v in operands if isinstance(v, Node))
            ratio = math.prod(v.format.scale for v in operands if isinstance(v, Node)) / form.scale
            return self._emit(Multiply(**common, rescale=Rescale.of(ratio)))
        if target in ops.CONCAT:
            parts = [self.values[a] for a in node.args[0]]  # type: ignore[union-attr,index]
            common["inputs"] = tuple(p.name for p in parts if isinstance(p, Node))
            rescales = tuple(Rescale.of(p.format.scale / form.scale) for p in parts if isinstance(p, Node))
            return self._emit(Concat(**common, axis=ops.arguments(node)["dim"] % (len(shape) + 1), rescales=rescales))
        if target in ops.AVERAGE_POOLS:
            pooled = shape if len(shape) == 3 else (*shape, 1, 1)
            rows, columns, divisor = pool_windows(node, first.shape, pooled)
            rescale = Rescale.of(first.format.scale / (form.scale * divisor))
            common["shape"] = pooled
            if pooled == shape:
                return self._emit(AveragePool(**common, rows=rows, columns=columns, rescale=rescale))
            common["name"] = f"{name}_pool"
            pool = self._emit(AveragePool(**common, rows=rows, columns=columns, rescale=rescale))
            return self._emit(Reshape(name=name, inputs=(pool.name,), format=form, shape=shape))
        raise InputError("operator", str(target), ops.WORDS)

    def _is_value(self, node: fx.Node) -> bool:
        return isinstance(self.values.get(node), Node)

    def _table(self, node: fx.Node, source: Format, form: Format, low: int, high: int) -> np.ndarray:
        """The output code of every input code, computed by the function itself."""
        codes = torch.arange(source.low, source.high + 1)
        weight = next(iter(self.module.parameters()))
        x = (codes.to(weight) - source.zero_point).mul(source.scale).reshape(-1, 1)
        argument = node.all_input_nodes[0]
        with torch.no_grad():
            module = self._module_of(node)
            if module is not None:
                y = module(x)
            else:
                args = [x if a is argument else a for a in node.args]
                y = node.target(*args, **node.kwargs)  # type: ignore[operator]
        table = (torch.div(y, form.scale) + 0.5).floor().reshape(-1) + form.zero_point
        return table.clamp(low, high).cpu().numpy().astype(np.int32)

    def _woven(self, raw: Raw, layer: Conv2d | Linear, name: str, form: Format | None) -> Node:
        """A woven node; without a format the accumulators are the answer."""
        source = self._source(raw.node)
        x = source.format
        core_float, bias = layer.folded()
        quantised = layer.weight_quantiser.quantise(core_float)
        groups = layer.groups if isinstance(layer, Conv2d) else 1
        codes = (quantised.codes - quantised.zero_point).flatten(1).cpu().numpy()
        core = codes.reshape(groups, -1, codes.shape[1]).transpose(0, 2, 1).astype(np.int32)
        inputs = math.prod(layer.weight_shape[1:]) * groups
        transform = InputTransform.identity(inputs)
        if layer.weave is not None:
            weave: Weave = layer.weave  # type: ignore[assignment]
            transform = weave.transform(groups)
        step = quantised.scale.cpu().numpy()
        grid = step * x.scale
        real = np.zeros(len(codes)) if bias is None else bias.detach().double().cpu().numpy()
        integer = np.floor(real / grid + 0.5).astype(np.int64) + zero_point_bias(transform, core, x.zero_point)
        low = high = None
        if form is None:
            answer, rescale = Format(ACCUMULATOR_BITS, True, float(grid.reshape(-1)[0])), Rescale()
        else:
            answer, rescale = form, Rescale.of(grid / form.scale)
            low = form.low if raw.low == -math.inf else max(form.low, code_of(raw.low, form))
            high = form.high if raw.high == math.inf else min(form.high, code_of(raw.high, form))
        woven = WovenLayer(
            name=str(raw.node.target),
            transform=transform,
            core=np.ascontiguousarray(core),
            output=OutputTransform(integer, rescale, answer, low, high),
            input_format=x,
            weight_bits=quantised.bits,
            weight_zero=None if layer.weight_quantiser.config.symmetric else quantised.zero_point,
            weight_scale=step,
            convolution=geometry(layer) if isinstance(layer, Conv2d) else None,
        )
        return self._emit(
            Woven(name=name, inputs=(source.name,), format=answer, shape=self._shape(raw.node), layer=woven)
        )


def _with_number(node: fx.Node) -> bool:
    """True for a sum, product or quotient of a value and a plain number: a function of one value."""
    arithmetic = ops.SUMS.keys() | ops.PRODUCTS | ops.QUOTIENTS
    return node.target in arithmetic and any(isinstance(a, (int, float)) for a in node.args[:2])


def code_of(value: float, form: Format) -> int:
    """The code of a real value: ⌊v/s + ½⌋ + z."""
    return math.floor(value / form.scale + 0.5) + form.zero_point


def clip_range(node: fx.Node) -> tuple[float, float]:
    """(low, high) of a clipping operator."""
    spec, given = ops.CLIPS[node.target], ops.arguments(node)  # type: ignore[index]
    low, high = (given.get(s) if isinstance(s, str) else s for s in spec)
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)  # type: ignore[arg-type]


def geometry(layer: Conv2d) -> Convolution:
    """The convolution of a layer, string paddings resolved as PyTorch does."""
    kernel, dilation = ops.pair(layer.kernel_size), ops.pair(layer.dilation)
    if layer.padding == "same":
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        top, left = (s // 2 for s in spans)
        padding = (top, spans[0] - top, left, spans[1] - left)
    elif layer.padding == "valid":
        padding = (0, 0, 0, 0)
    else:
        vertical, horizontal = ops.pair(layer.padding)
        padding = (vertical, vertical, horizontal, horizontal)
    return Convolution(kernel, ops.pair(layer.stride), padding, dilation)


def common_shift(ratios: Sequence[float]) -> tuple[tuple[int, ...], int]:
    """Integers m_i and a shift with m_i·2^−shift ≈ ratio_i, the largest with 16 bits, factors of two removed."""
    largest = max(abs(r) for r in ratios)
    shift = min(max(15 - math.floor(math.log2(largest)), 0), 46)
    multipliers = [round(r * 2.0**shift) for r in ratios]
    while shift > 0 and all(m % 2 == 0 for m in multipliers):
        multipliers, shift = [m // 2 for m in multipliers], shift - 1
    return tuple(multipliers), shift


def scale_of(norm: nn.modules.batchnorm._BatchNorm, source: Format, form: Format) -> dict[str, Any]:
    """A batch norm on codes: the fields of a `Scale` node."""
    assert norm.running_mean is not None and norm.running_var is not None
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    gamma = norm.weight.detach().double() if norm.weight is not None else torch.ones_like(deviation)
    beta = norm.bias.detach().double() if norm.bias is not None else torch.zeros_like(deviation)
    a = (gamma / deviation).cpu().numpy()
    b = (beta - norm.running_mean.double() * gamma / deviation).cpu().numpy()
    ratio = np.abs(a) * source.scale / form.scale
    rescale = Rescale.of(np.where(ratio > 0, ratio, 1.0))
    return {
        "multiplier": np.sign(a).astype(np.int64) * rescale.multiplier,
        "offset": np.floor(b / form.scale * 2.0 ** rescale.shift.astype(np.float64) + 0.5).astype(np.int64),
        "shift": rescale.shift,
    }


def pool_windows(
    node: fx.Node, source: tuple[int, ...], pooled: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns, divisor) of an average pooling: windows cut at the borders and PyTorch's divisors."""
    given = ops.arguments(node)
    height, width = source[1:]
    h_out, w_out = pooled[1:]
    if node.target is not ops.aten.avg_pool2d.default:
        rows = np.array([(i * height // h_out, -(-(i + 1) * height // h_out)) for i in range(h_out)])
        columns = np.array([(j * width // w_out, -(-(j + 1) * width // w_out)) for j in range(w_out)])
        divisor = np.outer(rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0])
    else:
        kernel, padding = ops.pair(given["kernel_size"]), ops.pair(given["padding"])
        stride = ops.pair(given["stride"]) if given["stride"] else kernel
        spans, full = [], []
        for length, out, k, s, p in zip((height, width), (h_out, w_out), kernel, stride, padding, strict=True):
            start = np.arange(out) * s - p
            stop = np.minimum(start + k, length + p)
            full.append(stop - start)
            spans.append(np.stack([np.maximum(start, 0), np.minimum(stop, length)], axis=1))
        rows, columns = spans
        inside = np.outer(rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0])
        divisor = np.outer(*full) if given["count_include_pad"] else inside
        if given["divisor_override"]:
            divisor = np.full_like(divisor, given["divisor_override"])
    divisor = divisor.reshape(-1)
    if np.all(divisor == divisor[0]):
        divisor = divisor[:1]
    return rows.astype(np.int64), columns.astype(np.int64), divisor


def lower(module: fx.GraphModule, name: str = "network", classes: Sequence[str] = ()) -> Program:
    """The integer program of a calibrated network from `convert`.

    Args:
        module: calibrated, perhaps trained since.
        name: of the network.
        classes: names of the outputs.

    Raises:
        InputError: the network is not calibrated, or holds an operator that integers cannot express.
    """
    was_training = module.training
    module.eval()
    try:
        return Lowering(module).run(name, classes)
    finally:
        module.train(was_training)


class _Recorder(fx.Interpreter):
    """Runs a module and keeps the results of some nodes."""

    def __init__(self, module: fx.GraphModule, names: set[str]) -> None:
        super().__init__(module)
        self.names = names
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.names:
            self.kept[n.name] = result
        return result


@torch.no_grad()
def fake_quantised_codes(module: fx.GraphModule, program: Program, x: Tensor) -> dict[str, Tensor]:
    """The codes that the fake-quantised module holds at every node of its program, int64, by node name.

    The oracle of lowering: `program` run on integers must agree within one step everywhere.
    """
    module.eval()
    recorder = _Recorder(module, set(program.by_name))
    recorder.run(x)
    codes = {}
    for name, value in recorder.kept.items():
        form = program.by_name[name].format
        codes[name] = torch.round(value.double() / form.scale).long() + form.zero_point
    return codes
