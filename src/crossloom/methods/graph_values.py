"""What the values of a converted network's graph are for: which module answers, and which values additions read."""

from __future__ import annotations

import torch
from torch import fx, nn

from crossloom.nn import Quantiser, woven_layers

aten = torch.ops.aten
SUMS = {aten.add.Tensor, aten.sub.Tensor}


def answer(network: nn.Module) -> nn.Module:
    """The module that makes the network's answer, moves looked through: a woven layer, or the quantiser of what is no
    layer's result. Of a network without a graph the last woven layer.
    """
    if not isinstance(network, fx.GraphModule):
        return list(woven_layers(network).values())[-1]
    (node,) = next(n for n in network.graph.nodes if n.op == "output").all_input_nodes
    while node.op != "call_module":
        node = node.all_input_nodes[0]
    return network.get_submodule(str(node.target))


def readers(node: fx.Node) -> list[fx.Node]:
    """The nodes that compute with a value: those behind it, moves and other functions of one value looked through."""
    found: list[fx.Node] = []
    for user in node.users:
        moves = user.op == "call_function" and len(user.all_input_nodes) == 1 and user.target not in SUMS
        found += readers(user) if moves else [user]
    return found


def added(network: nn.Module) -> dict[str, bool]:
    """The quantisers, by path, whose value an addition of two values reads, and whether nothing else does."""
    if not isinstance(network, fx.GraphModule):
        return {}
    found = {}
    for node in network.graph.nodes:
        if node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), Quantiser):
            sums = [reader.target in SUMS and len(reader.all_input_nodes) > 1 for reader in readers(node)]
            if any(sums):
                found[str(node.target)] = all(sums)
    return found
