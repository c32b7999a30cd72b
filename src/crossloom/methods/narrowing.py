"""Narrowing: channels that nothing feeds or nothing uses leave the network, and its layers get smaller weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, fx, nn

from crossloom.methods.purification import RESHAPES, Flow


@torch.no_grad()
def narrow(network: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    """Take useless channels out of every weight, in place; the answer stays the same if removed filters have bias 0.

    Layers keep at least one channel. Channels of grouped convolutions other than depthwise ones stay, and those of
    weights that are used more than once.

    Args:
        network: from `crossloom.convert`, weights pruned. Its optimiser's state and its level quantisers belong to the
            old shapes: make new ones.

    Returns:
        The new weight shapes by layer.

    Raises:
        InputError: not a captured network.
    """
    flow = Flow(network)
    fed, used = flow._live({})
    keep = fed & used
    parameters = [id(layer.module.weight) for layer in flow.layers]
    for layer, parameter in zip(flow.layers, parameters, strict=True):
        groups, width = layer.reads.shape
        if (groups > 1 and (width > 1 or len(layer.makes) != groups)) or parameters.count(parameter) > 1:
            keep[layer.reads], keep[layer.makes] = True, True
    for layer in flow.layers:
        for ids in (layer.reads, layer.makes):
            if not keep[ids].any():
                keep[ids.reshape(-1)[0]] = True
    for layer in flow.layers:
        module, out = layer.module, torch.from_numpy(np.flatnonzero(keep[layer.makes]))
        depthwise = layer.reads.shape[0] > 1 and layer.reads.shape[1] == 1
        weight = module.weight[out.to(module.weight.device)]
        if layer.reads.shape[0] == 1:
            weight = weight[:, torch.from_numpy(np.flatnonzero(keep[layer.reads[0]])).to(weight.device)]
        _replace(module, "weight", weight)
        if module.bias is not None:
            _replace(module, "bias", module.bias[out.to(module.bias.device)])
        if isinstance(module, nn.Conv2d):
            if depthwise and len(out) < module.groups:
                module.groups = len(out)
            module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
        else:
            module.out_features, module.in_features = weight.shape
        if module.norm is not None:
            norm = module.norm
            norm.num_features = len(out)
            for name in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(norm, name)
                if value is not None:
                    _replace(norm, name, value[out.to(value.device)])
    _reshape(network)
    return {layer.name: tuple(layer.module.weight.shape) for layer in flow.layers}


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    """A parameter or buffer of another shape under the same name."""
    old = getattr(module, name)
    value = value.detach().clone()
    setattr(module, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)


def _reshape(network: fx.GraphModule) -> None:
    """Let reshapes to (batch, features) take whatever number of features there is."""
    for node in network.graph.nodes:
        parts = str(node.target).split(".")
        if node.op == "call_function" and len(parts) > 1 and parts[1] in RESHAPES and len(node.args) > 1:
            sizes = node.args[1]
            if isinstance(sizes, (list, tuple)) and len(sizes) == 2:
                node.update_arg(1, [sizes[0], -1])
    network.recompile()
