"""Which kernels of a network stand and fall together, and taking them out for good.

Labels travel through the captured graph: every kernel of every layer starts one, and each operator is run on tensors
that hold the labels in place of values. Moves (views, slices, pads, concatenations, pooling) then need no rules of
their own; a sum or product of two tensors ties the labels that meet, so that a skip path ties the kernels of all
layers that write to it. What a label cannot follow is frozen: it stays.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from crossloom.errors import InputError
from crossloom.nn import Conv2d, Linear, Quantiser

aten = torch.ops.aten
TIES = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor}
"""Operators that tie the channels of their two tensors."""
RESHAPES = {aten.reshape.default, aten.view.default}
PADS = {aten.pad.default, aten.constant_pad_nd.default}
KEEPS_ZERO = (Quantiser, nn.Dropout, nn.PReLU)
"""Modules that pass labels on and map 0 to 0."""


@dataclass
class Ties:
    """The classes of kernels of a network.

    Attributes:
        outputs: per layer, the class of every kernel.
        inputs: per layer, the class of every input channel (feature for a linear layer).
        nodes: per graph node, the class of every channel of its value.
        frozen: classes that must stay.
    """

    outputs: dict[str, list[int]] = field(default_factory=dict)
    inputs: dict[str, list[int]] = field(default_factory=dict)
    nodes: dict[str, list[int]] = field(default_factory=dict)
    frozen: set[int] = field(default_factory=set)

    @property
    def kernels(self) -> dict[int, list[tuple[str, int]]]:
        """The kernels (layer, index) of every class that may go."""
        found: dict[int, list[tuple[str, int]]] = {}
        for layer, classes in self.outputs.items():
            for index, label in enumerate(classes):
                if label not in self.frozen:
                    found.setdefault(label, []).append((layer, index))
        return found


class _Tracer(fx.Interpreter):
    """Runs a graph on labels."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.parent = [0]
        self.ties = Ties()

    # -- labels -------------------------------------------------------------------------------------------------

    def fresh(self, count: int, frozen: bool = False) -> list[int]:
        """New labels."""
        first = len(self.parent)
        self.parent += range(first, first + count)
        if frozen:
            self.ties.frozen.update(range(first, first + count))
        return list(range(first, first + count))

    def find(self, label: int) -> int:
        """The class of a label."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def freeze(self, value: Tensor) -> None:
        """What a tensor holds must stay."""
        self.ties.frozen.update(int(v) for v in value.unique() if v)

    @staticmethod
    def channels(value: Tensor) -> list[int]:
        """The label of every channel."""
        return [int(v) for v in value.reshape(value.shape[0], value.shape[1], -1)[0, :, 0]]

    @staticmethod
    def spread(labels: list[int], shape: torch.Size) -> Tensor:
        """Labels as the tensor that stands for a value of that shape."""
        tall = torch.tensor(labels, dtype=torch.float64).view(1, -1, *[1] * (len(shape) - 2))
        return tall.expand(1, *shape[1:]).contiguous()

    # -- nodes --------------------------------------------------------------------------------------------------

    def run_node(self, n: fx.Node) -> Any:
        """The node on labels."""
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.dim() >= 2:
            self.ties.nodes[n.name] = self.channels(value)
        return value

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The network's input stays."""
        x = cast(Tensor, super().placeholder(target, args, kwargs))
        return self.spread(self.fresh(x.shape[1], frozen=True), x.shape)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Layers end labels and begin new ones; other modules pass them on, or freeze them."""
        module, x = self.fetch_attr(target), args[0]
        if isinstance(module, (Conv2d, Linear)):
            return self._layer(str(target), module, x)
        if not isinstance(module, KEEPS_ZERO):  # a batch norm of its own emits its shift for a zero input
            self.freeze(x)
        return x

    def _layer(self, name: str, layer: Conv2d | Linear, x: Tensor) -> Tensor:
        weight = torch.zeros(layer.weight_shape, dtype=x.dtype)
        shape = layer._apply_layer(x, weight, None).shape
        grouped = isinstance(layer, Conv2d) and layer.groups > 1
        plain = x.dim() == (4 if isinstance(layer, Conv2d) else 2) and not grouped and layer.weave is None
        labels = self.fresh(shape[1], frozen=not plain)
        if not plain:
            self.freeze(x)
        else:
            self.ties.inputs[name], self.ties.outputs[name] = self.channels(x), labels
        return self.spread(labels, shape) if x.dim() != 3 else torch.zeros(shape, dtype=x.dtype)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Sums and products tie; all else is run on the labels."""
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        if target in TIES and len(tensors) == 2:
            return self._tie(*tensors)
        if not tensors or target is operator.getitem:
            return super().call_function(target, args, kwargs)
        (x,) = tensors
        y = super().call_function(target, args, kwargs)
        if not isinstance(y, Tensor):
            return y
        zeros = [torch.zeros_like(a) if isinstance(a, Tensor) else a for a in args]
        if bool((super().call_function(target, tuple(zeros), kwargs) != 0).any()):  # 0 would not stay 0
            self.freeze(x)
            return self.spread(self.fresh(y.shape[1], frozen=True), y.shape)
        if x.dim() == y.dim() == 4 and x.shape[1] == y.shape[1] and target is not aten.permute.default:
            return self.spread(self.channels(x), y.shape)
        flat = y.reshape(1, y.shape[1], -1)[0]
        moved = set(y.unique().tolist()) <= {0.0, *x.unique().tolist()} and bool((flat == flat[:, :1]).all())
        if y.dim() in (2, 4) and moved:
            found = [label or self.fresh(1)[0] for label in self.channels(y)]
            return self.spread(found, y.shape)
        if x.shape == y.shape:
            return x
        self.freeze(x)
        return self.spread(self.fresh(y.shape[1], frozen=True), y.shape)

    def _tie(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            self.freeze(a)
            self.freeze(b)
            wide = torch.broadcast_shapes(a.shape, b.shape)
            return self.spread(self.fresh(wide[1], frozen=True), wide)
        for one, other in zip(self.channels(a), self.channels(b), strict=True):
            self.parent[self.find(one)] = self.find(other)
        return b

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The network's answer stays."""
        self.freeze(args[0])
        return args[0]


@torch.no_grad()
def ties(network: nn.Module) -> Ties:
    """Which kernels of a converted network are tied.

    Raises:
        InputError: the network is not one that `convert` made, whose graph is known.
    """
    if not isinstance(network, fx.GraphModule):
        raise InputError("network", type(network).__name__, "a converted network, whose graph is known")
    tracer = _Tracer(network)
    tracer.run(torch.zeros(1, *network.meta["example_shape"][1:], dtype=torch.float64))
    found = tracer.ties
    for table in (found.outputs, found.inputs, found.nodes):
        for name, labels in table.items():
            table[name] = [tracer.find(label) if label else 0 for label in labels]
    found.frozen = {tracer.find(label) for label in found.frozen} | {0}
    return found


@torch.no_grad()
def shrink(network: nn.Module, found: Ties, gone: set[int]) -> None:
    """Take kernels out for good, and the input channels that they fed.

    The float network computes the same if every kernel of `gone` emits 0 (a weight step for a whole layer may become
    finer, where the largest weight went); classes without a kernel (channels that a pad adds) go if
    nothing was ever added to them.

    Args:
        network: a converted network.
        found: its ties.
        gone: classes to take out.

    Raises:
        InputError: a view of pruned channels that is more than a flattening.
    """
    assert isinstance(network, fx.GraphModule)
    alive = {label for labels in found.outputs.values() for label in labels} - gone | found.frozen
    kept = {name: [c in alive for c in labels] for name, labels in found.nodes.items()}
    for name, labels in found.outputs.items():
        layer = cast(Conv2d | Linear, network.get_submodule(name))
        out = torch.tensor([c in alive for c in labels])
        into = torch.tensor([c in alive for c in found.inputs[name]])
        _cut(layer, out, into)
    for node in network.graph.nodes:
        if node.op == "call_function" and node.name in kept and not all(kept[node.name]):
            _rewrite(node, kept)
    network.graph.lint()
    network.recompile()


def _cut(layer: Conv2d | Linear, out: Tensor, into: Tensor) -> None:
    whole = layer.weight.shape
    layer.weight = nn.Parameter(layer.weight[out][:, into].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[out].clone())
    norm = layer.norm
    for owner in [*layer.shaping, *([norm] if norm is not None else [])]:
        for name, value in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
            if value.shape in (out.shape, whole):  # per kernel, or per weight
                part = (value[out] if value.shape == out.shape else value[out][:, into]).clone()
                setattr(owner, name, nn.Parameter(part) if isinstance(value, nn.Parameter) else part)
    if norm is not None:
        norm.num_features = int(out.sum())
    if isinstance(layer, Conv2d):
        layer.in_channels, layer.out_channels = int(into.sum()), int(out.sum())
    else:
        layer.in_features, layer.out_features = int(into.sum()), int(out.sum())


def _rewrite(node: fx.Node, kept: dict[str, list[bool]]) -> None:
    """Numbers of channels that stand in an operator's arguments."""
    mine, source = kept[node.name], node.all_input_nodes[0].name
    if node.target in RESHAPES:
        sizes = cast(list[Any], node.args[1])
        if len(sizes) != 2:
            raise InputError("operator", f"{node.name}: view {sizes}", "a flattening, where kernels are pruned")
        node.update_arg(1, [sizes[0], -1])
    elif node.target in PADS:
        pad = list(cast(list[int], node.args[1]))
        if len(pad) == 6:
            node.update_arg(1, [*pad[:4], sum(mine[: pad[4]]), sum(mine[len(mine) - pad[5] :])])
    elif node.target is aten.slice.Tensor and len(node.args) > 1 and node.args[1] == 1:
        start, stop, _ = slice(*(*node.args[2:4], None, None)[:2]).indices(len(kept[source]))
        node.args = (node.args[0], 1, sum(kept[source][:start]), sum(kept[source][:stop]), *node.args[4:])
