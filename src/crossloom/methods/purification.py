"""Network purification: what others' zeros make useless is taken out, across layers, on the captured graph.

A channel of a tensor is *fed* if some filter that makes it has a weight left, and *used* if some weight that reads it
is left. A shortcut adds tensors, so its channels are one (`crossloom.methods.channels`): such a channel is unfed only
when every branch's filter is gone, and its filters are useless only when no reader anywhere is left. Taking out what is
unfed or unused never changes the network's answer, once a removed filter's bias is 0 too. Weak channels, of which few
columns are left and those small, can go besides (Ma et al., ASP-DAC 2020, arXiv 1908.10017, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, fx, nn

from crossloom.errors import InputError
from crossloom.methods.channels import shrink, ties
from crossloom.nn import Conv2d, Linear


class Flow:
    """Which layers make and read which channels.

    Attributes:
        makes: per layer, the channel of every output.
        reads: per layer, the channel of every input.
        frozen: per channel, whether it must stay: the network's inputs and answers, and what cannot be followed.

    Args:
        network: from `crossloom.convert`.

    Raises:
        InputError: not a captured network.
    """

    def __init__(self, network: nn.Module) -> None:
        found = ties(network)
        self.makes = {name: np.array(classes) for name, classes in found.outputs.items()}
        self.reads = {name: np.array(classes) for name, classes in found.inputs.items()}
        most = max((int(ids.max()) for ids in (*self.makes.values(), *self.reads.values())), default=0)
        self.frozen = np.isin(np.arange(most + 1), list(found.frozen))
        self.layers = {name: cast(Conv2d | Linear, network.get_submodule(name)) for name in self.makes}

    def live(self, weights: Mapping[str, Float[Tensor, "outputs ..."]]) -> Bool[np.ndarray, " channels"]:
        """Whether every channel is fed and used; layers that `weights` lacks count with their own."""
        fed, used = self._live(weights)
        return np.asarray(fed & used)

    def _live(self, weights: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        fed, used = self.frozen.copy(), self.frozen.copy()
        for name, layer in self.layers.items():
            kept = weights.get(name, layer.weight.detach()) != 0
            kept = kept.reshape(*kept.shape[:2], -1).any(2).cpu()
            fed[self.makes[name][kept.any(1).numpy()]] = True
            used[self.reads[name][kept.any(0).numpy()]] = True
        return fed, used

    @torch.no_grad()
    def tie(self, weights: Mapping[str, Float[Tensor, "outputs ..."]]) -> None:
        """Zero, in place, every weight that reads an unfed channel or makes an unused one, until nothing changes.

        Args:
            weights: by layer name; layers that are not there count with their own weights and are not changed.
        """
        while True:
            fed, used = self._live(weights)
            changed = False
            for name in self.layers.keys() & weights.keys():
                weight = weights[name]
                left = int(weight.count_nonzero())
                weight[torch.from_numpy(~used[self.makes[name]]).to(weight.device)] = 0
                weight[:, torch.from_numpy(~fed[self.reads[name]]).to(weight.device)] = 0
                changed |= int(weight.count_nonzero()) != left
            if not changed:
                return

    @torch.no_grad()
    def purify(self, weights: Mapping[str, Float[Tensor, "outputs ..."]], few: float, weak: float) -> int:
        """Zero, in place, the readers of channels with few and weak columns, then `tie`; how many channels went.

        Args:
            weights: by layer name.
            few: a channel goes if at most this share of its columns (filter shapes) is left in every reader …
            weak: … and its energy there is at most this share of the reader's mean over its channels.

        Raises:
            InputError: a share outside 0 … 1.
        """
        for field, share in (("few", few), ("weak", weak)):
            if not 0 <= share <= 1:
                raise InputError(f"purification.{field}", share, "a share from 0 to 1", f"{min(max(share, 0.0), 1.0)}")
        before, goes = self.live(weights), ~self.frozen
        for name, layer in self.layers.items():
            weight = weights.get(name, layer.weight.detach())
            per = weight.reshape(*weight.shape[:2], -1).double()
            names, index = np.unique(self.reads[name], return_inverse=True)
            left = np.bincount(index, (per != 0).any(0).double().mean(1).cpu().numpy()) / np.bincount(index)
            energy = np.bincount(index, per.square().sum((0, 2)).cpu().numpy())
            mean = energy[energy > 0].mean() if (energy > 0).any() else 0.0
            goes[names] &= (left <= few) & (energy <= weak * mean)
        for name in self.layers.keys() & weights.keys():
            weights[name][:, torch.from_numpy(goes[self.reads[name]]).to(weights[name].device)] = 0
        self.tie(weights)
        return int((before & ~self.live(weights)).sum())

    def still(self, weights: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(tensor, factor) pairs that keep what is left of removed filters at 0: biases, batch norms' parameters."""
        live, found = self.live(weights), []
        for name, layer in self.layers.items():
            tensors = [layer.bias]
            if layer.norm is not None:
                tensors += [layer.norm.weight, layer.norm.bias, layer.norm.running_mean]
            alive = torch.from_numpy(live[self.makes[name]])
            found += [(t, alive.to(t.device, t.dtype)) for t in tensors if t is not None]
        return found


@torch.no_grad()
def narrow(network: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    """Take the channels that are not live out of every layer, for good; the weight shapes that are left.

    The answer stays the same if removed filters emit 0. An optimiser's state and level quantisers belong to the old
    shapes: make new ones. A layer keeps one channel at least.

    Args:
        network: from `crossloom.convert`, pruned.

    Raises:
        InputError: not a captured network, or a view of pruned channels that is more than a flattening.
    """
    flow, found = Flow(network), ties(network)
    live = flow.live({})
    for ids in (*flow.makes.values(), *flow.reads.values()):
        if not live[ids].any():
            live[ids[0]] = True
    shrink(network, found, set(np.flatnonzero(~live).tolist()) - found.frozen)
    return {name: tuple(layer.weight.shape) for name, layer in Flow(network).layers.items()}
