"""Programs: a network as a list of integer-only nodes.

A program is the whole network after lowering. Matrix layers are `Woven` nodes; the rest are digital nodes with
exact integer meanings, stated in their docstrings and nowhere else. Every edge carries integer codes in the
`Format` of the node that makes them. Nodes stand in an order in which inputs come before users.

Axis 0 of every tensor is the batch and is not part of `shape`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from crossloom.weave.formats import Format, Rescale
from crossloom.weave.layer import WovenLayer


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """What all nodes have.

    Attributes:
        name: unique in the program.
        inputs: names of the nodes that are read, in order.
        format: of the codes made.
        shape: of the codes made, without the batch.
    """

    name: str
    inputs: tuple[str, ...]
    format: Format
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Node):
    """The network's input: code = clip(⌊x/scale + ½⌋ + zero_point, low, high) for a real x."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Woven(Node):
    """A matrix layer on crossbars: y = Q(Cᵀ(P x)) for every position of the input (DESIGN §1)."""

    layer: WovenLayer


@dataclass(frozen=True, eq=False, kw_only=True)
class Elementwise(Node):
    """A node that ends in a clip to [low, high] in output codes (a fused ReLU has low = zero point)."""

    low: int
    high: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Elementwise):
    """y = clip(round_shift(Σ_i (x_i − z_i)·m_i, shift) + zero_point): the terms share one shift.

    Attributes:
        multipliers: one integer per input.
        shift: right shift of the sum.
    """

    multipliers: tuple[int, ...]
    shift: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Multiply(Elementwise):
    """y = clip(rescale((a − z_a)·(b − z_b)) + zero_point), broadcasting as torch does."""

    rescale: Rescale


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Elementwise):
    """Per-channel affine map, y = clip(((x − z)·m_c + offset_c + ½·2^{s_c}) >> s_c + zero_point).

    A batch norm that no layer could take in.

    Attributes:
        multiplier: int64 (C,) along axis 1, of either sign, or 0 for a channel that only has its offset.
        offset: int64 (C,), in 2^−s_c output steps.
        shift: int64 (C,), non-negative.
    """

    multiplier: np.ndarray
    offset: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Elementwise):
    """y = inputs one after another along `axis` (of the whole tensor), each clip(rescale_i(x − z_i) + zero_point)."""

    axis: int
    rescales: tuple[Rescale, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Requantise(Elementwise):
    """y = clip(rescale(x − z) + zero_point): a change of format, or a clip that could not be fused."""

    rescale: Rescale


@dataclass(frozen=True, eq=False, kw_only=True)
class Lookup(Node):
    """y = table[x − low of the input's format]: any function of one value.

    Attributes:
        table: int32, 2^bits entries, output codes.
        function: its name, for people.
    """

    table: np.ndarray
    function: str


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Node):
    """Largest code of each window. Padding never wins. Keeps the input's format."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Elementwise):
    """y = clip(rescale_{i,j}(Σ_window (x − z)) + zero_point).

    Window (i, j) is the rows `rows[i]` and columns `columns[j]` as (start, stop), already cut at the borders, so
    that strided, padded, global and adaptive pooling are one thing.

    Attributes:
        rows, columns: int64 (H_out, 2) and (W_out, 2).
        rescale: one factor, or H_out·W_out in row-major order: input scale / (output scale · divisor).
    """

    rows: np.ndarray
    columns: np.ndarray
    rescale: Rescale


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Node):
    """The same codes in another shape (flatten, view)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Permute(Node):
    """Axes reordered: output axis i is input axis axes[i]; axes[0] = 0, the batch."""

    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Node):
    """x[start:stop:step] along `axis` (of the whole tensor)."""

    axis: int
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(Node):
    """The constant `code` around the two last axes, and around the channels.

    Attributes:
        padding: (top, bottom, left, right).
        code: what is filled in, a code of the input's format.
        channels: (before, after), added along axis 1.
    """

    padding: tuple[int, int, int, int]
    code: int
    channels: tuple[int, int] = (0, 0)


NODE_TYPES: dict[str, type[Node]] = {
    cls.__name__: cls
    for cls in (
        Input, Woven, Add, Multiply, Scale, Concat, Requantise, Lookup,
        MaxPool, AveragePool, Reshape, Permute, Slice, Pad,
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Program:
    """A lowered network.

    Attributes:
        name: of the network.
        nodes: in an order in which inputs come first; the first is the `Input`, the last makes the output.
        classes: names of the outputs, or empty.
    """

    name: str
    nodes: tuple[Node, ...]
    classes: tuple[str, ...] = ()
    by_name: dict[str, Node] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        seen: dict[str, Node] = {}
        for node in self.nodes:
            if node.name in seen:
                raise ValueError(f"program: two nodes are called {node.name!r}")
            for source in node.inputs:
                if source not in seen:
                    raise ValueError(f"program: node {node.name!r} reads {source!r}, which does not come before it")
            seen[node.name] = node
        if not self.nodes or not isinstance(self.nodes[0], Input):
            raise ValueError("program: the first node must be the Input")
        object.__setattr__(self, "by_name", seen)

    @property
    def input(self) -> Input:
        """The input node."""
        first = self.nodes[0]
        assert isinstance(first, Input)
        return first

    @property
    def output(self) -> Node:
        """The node whose codes are the network's answer."""
        return self.nodes[-1]

    @property
    def layers(self) -> tuple[WovenLayer, ...]:
        """The woven layers, in program order."""
        return tuple(node.layer for node in self.woven())

    def woven(self) -> Iterator[Woven]:
        """The woven nodes, in program order."""
        return (node for node in self.nodes if isinstance(node, Woven))

    def sources(self, node: Node) -> tuple[Node, ...]:
        """The nodes that `node` reads."""
        return tuple(self.by_name[name] for name in node.inputs)

    def last_use(self) -> dict[str, int]:
        """For every node, the index of the last node that reads it (its own index if none)."""
        last = {node.name: i for i, node in enumerate(self.nodes)}
        for i, node in enumerate(self.nodes):
            last.update(dict.fromkeys(node.inputs, i))
        last[self.nodes[-1].name] = len(self.nodes)
        return last

    def replace_layers(self, layers: dict[str, WovenLayer]) -> Program:
        """The program with some woven layers exchanged, by layer name (rename, reorder)."""

        def swap(node: Node) -> Node:
            if isinstance(node, Woven) and node.layer.name in layers:
                return replace(node, layer=layers[node.layer.name])
            return node

        return Program(self.name, tuple(swap(n) for n in self.nodes), self.classes)

    def positions(self, node: Woven) -> int:
        """How many input vectors one image sends through a woven node."""
        if node.layer.convolution is None:
            return int(np.prod(node.shape[:-1], dtype=np.int64))
        return int(np.prod(node.shape[1:], dtype=np.int64))

    def macs(self) -> int:
        """Multiply-accumulates of the dense network this computes, for one image: Σ positions·K·N/G."""
        return sum(self.positions(n) * n.layer.inputs * n.layer.outputs // n.layer.groups for n in self.woven())


def describe(program: Program) -> list[dict[str, Any]]:
    """One plain row per node: name, kind, inputs, shape and format."""
    return [
        {
            "name": node.name,
            "kind": type(node).__name__,
            "inputs": list(node.inputs),
            "shape": list(node.shape),
            "bits": node.format.bits,
            "signed": node.format.signed,
            "scale": node.format.scale,
            "zero_point": node.format.zero_point,
        }
        for node in program.nodes
    ]
