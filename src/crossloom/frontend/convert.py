"""A captured network → the same network with woven layers and quantisers, ready to calibrate or train.

Every value that a chip would hold passes a `Quantiser`. Operators are fused the way the integer program runs them:
a batch norm goes into the layer before it, a clip into the quantiser after it, and values that are only moved or
max-pooled keep the format they have.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, fx, nn

from crossloom.errors import InputError
from crossloom.frontend import operators as ops
from crossloom.frontend.capture import Captured, capture
from crossloom.nn import Conv2d, Linear, Quantiser, QuantiserConfig, held_weights, woven_layers

LOGIT_BITS = 16
"""Width of the network's answer where it does not come straight from a matrix layer."""


class QuantisationConfig(BaseModel):
    """How a whole network is quantised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: QuantiserConfig = Field(default_factory=lambda: QuantiserConfig(bits=8, per_channel=True))
    """Every woven layer's weights; the last layer always has one step for the tensor, so that its accumulators
    compare."""

    activations: QuantiserConfig = Field(default_factory=lambda: QuantiserConfig(bits=8, range="mse"))
    """Every value between layers."""

    input: QuantiserConfig = Field(default_factory=lambda: QuantiserConfig(bits=8))
    """The network's input."""

    residual_bits: int | None = Field(None, ge=1, le=16)
    """Width of values that only additions read; None: as other activations."""

    overrides: dict[str, QuantiserConfig] = Field(default_factory=dict)
    """Weight quantisers by layer-name pattern (`layer1.*`), the first match wins."""

    def weights_of(self, layer: str) -> QuantiserConfig:
        """The weight quantiser of a layer by name."""
        for pattern, config in self.overrides.items():
            if fnmatch.fnmatch(layer, pattern):
                return config
        return self.weights


@dataclass
class Value:
    """What an old node has become.

    Attributes:
        node: the new node.
        raw: True while the value is an accumulator or another unquantised result.
        layer: the woven layer that makes a raw value, if nothing but the layer has been applied.
        name: what the quantiser that closes the value is to be called.
    """

    node: fx.Node
    raw: bool
    name: str
    layer: Conv2d | Linear | None = None


class Converter:
    """Builds the quantised network node by node. Use `convert`."""

    def __init__(self, captured: Captured, config: QuantisationConfig) -> None:
        self.captured = captured
        self.config = config
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[fx.Node, Any] = {}
        self.quantisers = 0
        self.device = next((t.device for _, t in captured.tensors.values()), torch.device("cpu"))
        (result,) = next(n for n in captured.graph.nodes if n.op == "output").args[0]
        self.final = self._behind_norm(result)

    @staticmethod
    def _behind_norm(node: fx.Node) -> fx.Node:
        """The operator whose result is the network's answer, batch norm and identities looked through."""
        through = ops.NORMS | ops.IDENTITIES | ops.DROPOUTS
        while node.op == "call_function" and (node.target in through or node.target.__name__ == "getitem"):  # type: ignore[union-attr]
            node = node.args[0]  # type: ignore[assignment]
        return node

    def run(self) -> fx.GraphModule:
        """Convert all nodes."""
        for node in self.captured.graph.nodes:
            if node.op == "placeholder":
                if node.name == self.captured.input:
                    new = self.graph.placeholder("x")
                    self.values[node] = self._quantised(Value(new, True, "input_codes"), self.config.input)
            elif node.op == "output":
                self.graph.output(self._answer(node.args[0][0]))
            else:
                self.values[node] = self._convert(node)
        module = fx.GraphModule(self.root, self.graph, "Network")
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        module.eval()
        for quantiser in quantisers(module).values():
            quantiser.to(self.device)
        module.meta["example_shape"] = tuple(self.captured.example)
        return module

    # -- values -------------------------------------------------------------------------------------------------

    def tensor(self, node: Any) -> Tensor | None:
        """The parameter or buffer behind a placeholder, or None if the node is a computed value."""
        if isinstance(node, fx.Node) and node.name in self.captured.tensors:
            return self.captured.tensors[node.name][1]
        return None

    def tensor_name(self, node: fx.Node) -> str:
        """The name of a parameter or buffer in the user's model."""
        return self.captured.tensors[node.name][0]

    def _quantised(self, value: Value, config: QuantiserConfig) -> Value:
        """Close a raw value with a quantiser."""
        if not value.raw:
            return value
        name = value.name.replace(".", "_")
        self.quantisers += 1
        path = f"quantisers.{name}"
        if _submodule(self.root, path) is not None:
            path = f"{path}_{self.quantisers}"
        _add(self.root, path, Quantiser(config))
        node = self.graph.create_node("call_module", path, (value.node,), name=name)
        value.node, value.raw, value.layer = node, False, None
        return value

    def codes(self, node: fx.Node) -> fx.Node:
        """The quantised form of an old node's value."""
        value = self.values[node]
        config = self.config.activations
        if value.raw and self._only_added(node) and self.config.residual_bits:
            config = config.model_copy(update={"bits": self.config.residual_bits})
        return self._quantised(value, config).node

    def _only_added(self, node: fx.Node) -> bool:
        return all(user.target in ops.SUMS for user in node.users)

    def _answer(self, node: fx.Node) -> fx.Node:
        value = self.values[node]
        if value.raw and value.layer is None:
            value = self._quantised(value, self.config.activations.model_copy(update={"bits": LOGIT_BITS}))
        result: fx.Node = value.node
        return result

    def _call(self, node: fx.Node, *inputs: fx.Node) -> fx.Node:
        """The same operator on new inputs, its other arguments kept."""
        replacement = dict(zip(self._computed(node), inputs, strict=True))
        new = self.graph.node_copy(node, lambda old: replacement.get(old) or self._plain(old))
        if new.target in (ops.aten.view.default, ops.aten._unsafe_view.default):
            new.target = ops.aten.reshape.default  # the copy that made the value contiguous is gone
        return new

    def _plain(self, old: fx.Node) -> fx.Node:
        """The new node of a size or another non-tensor value."""
        value = self.values[old]
        return value.node if isinstance(value, Value) else value

    def _computed(self, node: fx.Node) -> list[fx.Node]:
        """The computed tensors that a node reads, in order, without repeats."""
        return [n for n in node.all_input_nodes if isinstance(self.values.get(n), Value)]

    # -- operators ----------------------------------------------------------------------------------------------

    def _convert(self, node: fx.Node) -> Any:
        target = node.target
        if getattr(target, "__name__", "") == "getitem" and isinstance(self.values.get(node.args[0]), (Value, list)):  # type: ignore[arg-type]
            source: Any = self.values[node.args[0]]  # type: ignore[index]
            return source[int(node.args[1])] if isinstance(source, list) else source  # type: ignore[arg-type]
        if target in ops.CONVOLUTIONS or target in ops.LINEAR:
            return self._matrix(node)
        if target in ops.NORMS:
            return self._norm(node)
        computed = self._computed(node)
        if not isinstance(node.meta.get("val"), (Tensor, list, tuple)):  # sizes and arithmetic on them
            return self.graph.node_copy(node, self._plain)
        if not computed:
            raise self._unsupported(node, "of constants only")
        if target in ops.DROPOUTS:
            return self._dropout(node)
        if target in ops.IDENTITIES:
            return self.values[computed[0]]
        if target in ops.CLIPS:
            return self._clip(node)
        if target in ops.PRELU:
            return self._prelu(node)
        first = computed[0]
        if target in ops.FUNCTIONS or (
            target in (ops.SUMS.keys() | ops.PRODUCTS | ops.QUOTIENTS) and self._scalar(node)
        ):
            return Value(self._call(node, self.codes(first)), True, node.name)
        if target in ops.SUMS or target in ops.PRODUCTS or target in ops.CONCAT:
            if any(self.tensor(n) is not None for n in node.all_input_nodes):
                raise self._unsupported(node, "with a constant tensor of more than one element")
            return Value(self._call(node, *[self.codes(n) for n in computed]), True, node.name)
        if target in ops.AVERAGE_POOLS:
            self._check_pool(node)
            return Value(self._call(node, self.codes(first)), True, node.name)
        if target in ops.MAX_POOLS | ops.RESHAPES | ops.PERMUTES | ops.SLICES | ops.PADS:
            if target in ops.PADS and ops.arguments(node).get("mode", "constant") != "constant":
                raise self._unsupported(node, "with a mode other than constant")
            if self.values[first].raw and self._final_layout(node):
                value = self._quantised(
                    self.values[first], self.config.activations.model_copy(update={"bits": LOGIT_BITS})
                )
                return Value(self._call(node, value.node), False, node.name)
            return Value(self._call(node, self.codes(first)), False, node.name)
        if target in ops.SPLITS:
            return self._split(node)
        raise self._unsupported(node)

    def _unsupported(self, node: fx.Node, why: str = "") -> InputError:
        stack = node.meta.get("nn_module_stack") or {}
        where = [path for path, _ in stack.values()][-1] if stack else ""
        operator = str(node.target).removesuffix(".default")
        return InputError("operator", f"{operator} {why}".strip() + (f" in {where!r}" if where else ""), ops.WORDS)

    def _scalar(self, node: fx.Node) -> bool:
        """True if a two-operand operator has one computed tensor and one number (a one-element constant counts)."""
        if len(self._computed(node)) != 1:
            return False
        if node.args[0] is node.args[1]:
            return False
        for position, other in enumerate(node.args[:2]):
            constant = self.tensor(other)
            if constant is not None:
                if constant.numel() != 1:
                    return False
                node.update_arg(position, float(constant.detach()))
        return True

    def _final_layout(self, node: fx.Node) -> bool:
        """True if only moves lie between this node and the network's output."""
        moves = ops.RESHAPES | ops.PERMUTES | ops.IDENTITIES | ops.DROPOUTS
        while node.target in moves and len(node.users) == 1:
            node = next(iter(node.users))
        return node.op == "output"

    def _matrix(self, node: fx.Node) -> Value:
        """A convolution or linear layer, woven."""
        given = ops.arguments(node)
        weight, bias = self.tensor(given["weight"]), self.tensor(given.get("bias"))
        if weight is None or (given.get("bias") is not None and bias is None):
            raise self._unsupported(node, "whose weight is computed")
        source = self.values[given["input"]]
        name = self.tensor_name(given["weight"]).removesuffix(".weight")
        config = self.config.weights_of(name)
        if node is self.final and config.per_channel:
            config = config.model_copy(update={"per_channel": False})
        x = self.codes(given["input"])
        layer: Conv2d | Linear
        if node.target in ops.LINEAR:
            layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, weights=config)
        else:
            padding = given["padding"]
            layer = Conv2d(
                weight.shape[1] * given["groups"],
                weight.shape[0],
                tuple(weight.shape[2:]),
                stride=ops.pair(given["stride"]),
                padding=padding if isinstance(padding, str) else ops.pair(padding),
                dilation=ops.pair(given["dilation"]),
                groups=given["groups"],
                bias=bias is not None,
                weights=config,
            )
        layer.to(weight.device, weight.dtype)
        path, shared = name, _submodule(self.root, name)
        if shared is not None:  # the same weights used again: another layer around the same parameter
            path = f"{name}_again{sum(1 for n, _ in self.root.named_modules() if n.startswith(f'{name}_again')) + 1}"
            layer.weight = shared.weight  # type: ignore[assignment]
            if bias is not None:
                layer.bias = shared.bias  # type: ignore[assignment]
        else:
            with torch.no_grad():
                layer.weight.copy_(weight)
                if bias is not None:
                    layer.bias.copy_(bias)  # type: ignore[union-attr]
        assert not source.raw
        object.__setattr__(layer, "input_quantiser", _source_quantiser(self.root, x))
        _add(self.root, path, layer)
        label = path.replace(".", "_")
        new = self.graph.create_node(
            "call_module", path, (x,), name=label if node is self.final else f"{label}_product"
        )
        return Value(new, True, path, layer)

    def _norm(self, node: fx.Node) -> Value:
        """A batch norm: folded into the layer before it, or a per-channel scale of its own."""
        given = ops.arguments(node)
        mean, variance = self.tensor(given["running_mean"]), self.tensor(given["running_var"])
        if mean is None or variance is None:
            raise self._unsupported(node, "without running statistics")
        gamma, beta = self.tensor(given["weight"]), self.tensor(given["bias"])
        norm = nn.BatchNorm2d(len(mean), eps=given["eps"], affine=gamma is not None)
        norm.to(mean.device, mean.dtype)
        momentum = given["momentum"]
        norm.momentum = momentum if momentum > 0 else 0.1
        with torch.no_grad():
            norm.running_mean.copy_(mean)  # type: ignore[union-attr]
            norm.running_var.copy_(variance)  # type: ignore[union-attr]
            if gamma is not None and beta is not None:
                norm.weight.copy_(gamma)
                norm.bias.copy_(beta)
        norm.eval()
        source = given["input"]
        value: Value = self.values[source]
        if value.raw and value.layer is not None and len(source.users) == 1 and value.layer.norm is None:
            dims = 1 if isinstance(value.layer, Linear) else 2
            if dims == 1:
                norm = _as_one_dimensional(norm)
            value.layer.norm = norm
            return value
        x = self.codes(source)
        path = self.tensor_name(given["running_mean"]).removesuffix(".running_mean")
        _add(self.root, path, norm)
        return Value(self.graph.create_node("call_module", path, (x,), name=f"{node.name}_raw"), True, path)

    def _clip(self, node: fx.Node) -> Value:
        """A clip: part of what makes a raw value, or an operation on codes."""
        source = self._computed(node)[0]
        value = self.values[source]
        if value.raw and len(source.users) == 1:
            return Value(self._call(node, value.node), True, value.name)
        return Value(self._call(node, self.codes(source)), True, node.name)

    def _dropout(self, node: fx.Node) -> Value:
        source = self._computed(node)[0]
        path = f"dropouts.{node.name}"
        _add(self.root, path, nn.Dropout(float(ops.arguments(node)["p"])))
        new = self.graph.create_node("call_module", path, (self.codes(source),), name=node.name)
        return Value(new, False, node.name)

    def _prelu(self, node: fx.Node) -> Value:
        given = ops.arguments(node)
        slope = self.tensor(given["weight"])
        if slope is None or slope.numel() != 1:
            raise self._unsupported(node, "with one slope per channel")
        prelu = nn.PReLU().to(slope)
        with torch.no_grad():
            prelu.weight.copy_(slope.reshape(1))
        path = self.tensor_name(given["weight"]).removesuffix(".weight")
        _add(self.root, path, prelu)
        source = self._computed(node)[0]
        new = self.graph.create_node("call_module", path, (self.codes(source),), name=f"{node.name}_raw")
        return Value(new, True, node.name)

    def _split(self, node: fx.Node) -> list[Value]:
        """A split as slices."""
        given, source = ops.arguments(node), self._computed(node)[0]
        axis = given["dim"] % node.args[0].meta["val"].dim()  # type: ignore[union-attr]
        if axis == 0:
            raise self._unsupported(node, "along the batch")
        x = self.codes(source)
        start, parts = 0, []
        for piece in node.meta["val"]:
            stop = start + int(piece.shape[axis])
            new = self.graph.call_function(ops.aten.slice.Tensor, (x, axis, start, stop))
            parts.append(Value(new, False, node.name))
            start = stop
        return parts

    def _check_pool(self, node: fx.Node) -> None:
        if node.target is ops.aten.mean.dim:
            rank = node.args[0].meta["val"].dim()  # type: ignore[union-attr]
            axes = ops.arguments(node)["dim"] or range(rank)
            if rank != 4 or sorted(a % rank for a in axes) != [2, 3]:
                raise self._unsupported(node, "over axes other than height and width")


def _as_one_dimensional(norm: nn.BatchNorm2d) -> Any:
    """The same batch norm for the output of a linear layer."""
    flat = nn.BatchNorm1d(norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)
    flat.load_state_dict(norm.state_dict())
    return flat.to(norm.running_mean).eval()


def _submodule(root: nn.Module, path: str) -> nn.Module | None:
    try:
        found = root.get_submodule(path)
    except AttributeError:
        return None
    return found


def _add(root: nn.Module, path: str, module: nn.Module) -> None:
    parent = root
    *parents, last = path.split(".")
    for part in parents:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    existing = parent._modules.get(last)
    if existing is not None:  # a container made for a child with a longer name
        for name, child in existing.named_children():
            module.add_module(name, child)
    parent.add_module(last, module)


def _source_quantiser(root: nn.Module, node: fx.Node) -> Quantiser:
    """The quantiser whose format a value has, moves and pooling looked through."""
    while not (node.op == "call_module" and isinstance(_submodule(root, str(node.target)), Quantiser)):
        node = node.all_input_nodes[0]
    found = _submodule(root, str(node.target))
    assert isinstance(found, Quantiser)
    return found


def convert(model: nn.Module, example: Tensor, config: QuantisationConfig | None = None) -> fx.GraphModule:
    """A trainable copy of `model` with woven layers and quantisers.

    The result observes until `calibrate` is called. It is an `nn.Module` like any other: train it, move it, save
    its state dict. Layers keep their names; a batch norm becomes `<layer>.norm`. It is in evaluation mode: a loop of
    your own calls `.train()` first, or batch norms stay frozen.

    Args:
        model: a PyTorch classifier. It is not changed.
        example: an input batch, (B, C, H, W) or (B, features).
        config: bits, ranges and granularity.

    Raises:
        InputError: an operator that is not supported (named, with its module), weights that are not finite, a
            module that cannot be captured, a network without a matrix layer.
    """
    module = Converter(capture(model, example), config or QuantisationConfig()).run()
    if not woven_layers(module):
        raise InputError("model", type(model).__name__, "a network with at least one convolution or linear layer")
    return module


def quantisers(module: nn.Module) -> dict[str, Quantiser]:
    """The activation quantisers of a converted network by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, Quantiser)}


@torch.no_grad()
def calibrate(module: nn.Module, batches: Iterable[Any], limit: int | None = None) -> None:
    """Set every quantiser's step from data.

    Args:
        module: from `convert`.
        batches: input tensors, or (input, target) pairs.
        limit: at most this many batches.

    Raises:
        InputError: no data, or activations that are not finite.
    """
    was_training = module.training
    module.eval()
    found = quantisers(module)
    for quantiser in found.values():
        quantiser.observing = True
    with held_weights(module):
        for count, batch in enumerate(batches):
            if limit is not None and count >= limit:
                break
            module(batch[0] if isinstance(batch, (tuple, list)) else batch)
    for quantiser in found.values():
        quantiser.calibrate()
    module.train(was_training)
