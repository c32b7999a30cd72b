"""Network purification: what others' zeros make useless is taken out, across layers, on the captured graph.

A channel of a tensor is *fed* if some filter that makes it has a weight left, and *used* if some weight that reads it
is left. A shortcut adds tensors, so its channels are one: such a channel is unfed only when every branch's filter is
gone, and its filters are useless only when no reader anywhere is left. Removing what is unfed or unused never changes
the network's answer, once a removed filter's bias is 0 too. Weak channels, of which few columns are left and those
small, can be removed besides (Ma et al., ASP-DAC 2020, arXiv 1908.10017, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from crossloom.errors import InputError
from crossloom.nn import Conv2d, Linear, Quantiser

ZERO_KEEPING = (
    "relu", "relu6", "hardtanh", "leaky_relu", "hardswish", "silu", "tanh", "gelu", "elu", "mish", "abs", "neg",
    "square", "erf", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "clone", "contiguous", "alias", "detach",
)  # fmt: skip
"""Operators, channel by channel, that make zeros of zeros."""

RESHAPES = ("reshape", "view", "_unsafe_view", "flatten", "squeeze", "unsqueeze")


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer in the flow.

    Attributes:
        name: of the layer.
        module: the layer.
        reads: channel number of every input of one filter, (groups, C/groups).
        makes: channel number of every output.
    """

    name: str
    module: Conv2d | Linear
    reads: Int[np.ndarray, "groups channels"]
    makes: Int[np.ndarray, " outputs"]


class Flow:
    """Which layers make and read which channels.

    Args:
        network: from `crossloom.convert`.

    Raises:
        InputError: not a captured network.
    """

    def __init__(self, network: nn.Module) -> None:
        if not isinstance(network, fx.GraphModule) or "example_shape" not in network.meta:
            raise InputError("purification.network", type(network).__name__, "a network from crossloom.convert")
        self._parent: list[int] = []
        self._pinned: set[int] = set()
        layers: list[Reader] = []
        values: dict[fx.Node, np.ndarray] = {}
        weight = next(iter(network.parameters()))
        example = torch.zeros(network.meta["example_shape"], device=weight.device, dtype=weight.dtype)
        training = network.training
        with torch.no_grad():
            ShapeProp(network.eval()).propagate(example)
        network.train(training)
        for node in network.graph.nodes:
            if node.op == "output":
                for source in node.all_input_nodes:
                    self._pin(values[source])
            elif "tensor_meta" in node.meta:
                values[node] = self._through(network, node, values, layers)
        root = np.array([self._root(i) for i in range(len(self._parent))])
        self.pinned = np.isin(root, root[sorted(self._pinned)])
        self.layers = [Reader(r.name, r.module, root[r.reads], root[r.makes]) for r in layers]

    # -- building ---------------------------------------------------------------------------------------------------

    def _fresh(self, count: int, pinned: bool = False) -> np.ndarray:
        ids = np.arange(len(self._parent), len(self._parent) + count)
        self._parent += ids.tolist()
        if pinned:
            self._pin(ids)
        return ids

    def _pin(self, ids: np.ndarray) -> None:
        self._pinned.update(int(i) for i in np.unique(ids))

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def _through(
        self, network: fx.GraphModule, node: fx.Node, values: dict[fx.Node, np.ndarray], layers: list[Reader]
    ) -> np.ndarray:
        """The channels of a node's value."""
        shape = tuple(node.meta["tensor_meta"].shape)
        channels = shape[1] if len(shape) > 1 else 1
        if node.op == "placeholder":
            return self._fresh(channels, pinned=True)
        sources = [values[n] for n in node.all_input_nodes if n in values]
        first = sources[0]
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            if isinstance(module, (Conv2d, Linear)) and (isinstance(module, Conv2d) or len(shape) == 2):
                groups = module.groups if isinstance(module, Conv2d) else 1
                made = self._fresh(channels)
                layers.append(Reader(str(node.target), module, first.reshape(groups, -1), made))
                return made
            if isinstance(module, (Quantiser, nn.Dropout, nn.PReLU, nn.Identity)):
                return first
        name = str(node.target).split(".")[1] if str(node.target).startswith("aten.") else str(node.target)
        before = tuple(node.all_input_nodes[0].meta["tensor_meta"].shape)
        if name in ZERO_KEEPING or (name == "mean" and len(before) == 4):
            return first
        if name in RESHAPES and before[0] == shape[0]:
            if len(first) == before[1] and channels == before[1]:
                return first
            if len(shape) == 2 and channels == math.prod(before[1:]):
                return np.repeat(first, channels // before[1])
        if name in ("add", "sub") and len(sources) == 2 and len(sources[0]) == len(sources[1]):
            for a, b in zip(sources[0].tolist(), sources[1].tolist(), strict=True):
                self._parent[self._root(a)] = self._root(b)
            return first
        if name == "cat" and node.args[1:] in ((1,), (1 - len(shape),)):
            return np.concatenate([values[n] for n in node.args[0]])  # type: ignore[union-attr,index]
        for source in sources:  # whatever else: nothing before it may go, nothing behind it counts as unfed
            self._pin(source)
        return self._fresh(channels, pinned=True)

    # -- what is useless --------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """The layers' own weights, by name."""
        return {layer.name: layer.module.weight.data for layer in self.layers}

    def _live(self, weights: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """(fed, used) of every channel."""
        fed, used = self.pinned.copy(), self.pinned.copy()
        for layer, weight in self._with(weights):
            kept = weight != 0
            fed[layer.makes[kept.flatten(1).any(1).cpu().numpy()]] = True
            used[layer.reads[_read(layer, kept).cpu().numpy()]] = True
        return fed, used

    def _with(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[Reader, Tensor]]:
        for layer in self.layers:
            yield layer, weights.get(layer.name, layer.module.weight.detach())

    @torch.no_grad()
    def tie(self, weights: Mapping[str, Float[Tensor, "outputs ..."]]) -> None:
        """Zero, in place, every weight that reads an unfed channel or makes an unused one, until nothing changes.

        Args:
            weights: by layer name; layers that are not there count with their own weights and are not changed.
        """
        while True:
            fed, used = self._live(weights)
            changed = False
            for layer in self.layers:
                weight = weights.get(layer.name)
                if weight is None:
                    continue
                left = int(weight.count_nonzero())
                weight[torch.from_numpy(~used[layer.makes]).to(weight.device)] = 0
                dead = torch.from_numpy(~fed[layer.reads]).to(weight.device)
                grouped = weight.view(len(dead), -1, *weight.shape[1:])
                for g in range(len(dead)):
                    grouped[g][:, dead[g]] = 0
                changed |= int(weight.count_nonzero()) != left
            if not changed:
                return

    @torch.no_grad()
    def purify(self, weights: Mapping[str, Float[Tensor, "outputs ..."]], few: float, weak: float) -> int:
        """Zero, in place, the readers of channels with few and weak columns, then `tie`; how many channels went.

        Args:
            weights: by layer name.
            few: a channel goes if at most this share of its columns (filter shapes) is left in every reader …
            weak: … and its energy a reader is at most this share of the reader's mean over channels.

        Raises:
            InputError: a share outside 0 … 1.
        """
        for name, share in (("few", few), ("weak", weak)):
            if not 0 <= share <= 1:
                raise InputError(f"purification.{name}", share, "a share from 0 to 1", str(min(max(share, 0.0), 1.0)))
        goes = ~self.pinned
        read = np.zeros(len(goes), bool)
        for layer, weight in self._with(weights):
            if layer.reads.shape[0] > 1:
                goes[np.unique(layer.reads)] = False
                continue
            per = weight.flatten(2) if weight.dim() > 2 else weight[:, :, None]
            columns = (per != 0).any(0).double().cpu().numpy()
            energy = per.double().square().sum((0, 2)).cpu().numpy()
            names, index = np.unique(layer.reads[0], return_inverse=True)
            counts = np.bincount(index, columns.mean(1)) / np.bincount(index)
            energies = np.bincount(index, energy)
            alive = energies[energies > 0]
            goes[names] &= (counts <= few) & (energies <= weak * (alive.mean() if len(alive) else 0.0))
            read[names[energies > 0]] = True
        goes &= read
        for layer in self.layers:
            if layer.name in weights and layer.reads.shape[0] == 1:
                weights[layer.name][:, torch.from_numpy(goes[layer.reads[0]])] = 0
        self.tie(weights)
        return int(goes.sum())

    @torch.no_grad()
    def silent(self, weights: Mapping[str, Tensor]) -> dict[str, Bool[Tensor, " outputs"]]:
        """The outputs, by layer, of channels that no weight feeds: their biases must be 0 for them to be gone."""
        fed, used = self._live(weights)
        return {layer.name: torch.from_numpy(~(fed & used)[layer.makes]) for layer in self.layers}


def _read(layer: Reader, kept: Bool[Tensor, "outputs ..."]) -> Bool[Tensor, "groups channels"]:
    """Which inputs of every group have a weight left."""
    groups, channels = layer.reads.shape
    return kept.reshape(groups, -1, channels, math.prod(kept.shape[2:])).any(3).any(1)


def silence(layer: Conv2d | Linear, silent: Bool[Tensor, " outputs"]) -> list[tuple[Tensor, Tensor]]:
    """(tensor, factor) pairs that keep a layer's dead outputs at 0: its bias, and its batch norm's parameters."""
    tensors = [layer.bias]
    if layer.norm is not None:
        tensors += [layer.norm.weight, layer.norm.bias, layer.norm.running_mean]
    return [(t, (~silent).to(t.device, t.dtype)) for t in tensors if t is not None]
