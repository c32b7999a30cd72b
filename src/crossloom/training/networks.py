"""Networks by name: the reference ones, a user's own, and every classifier of torchvision and timm.

A package adds a network by an entry point in the group `crossloom.networks` whose object is called with
(classes, image_shape) and returns a module. `torchvision:<name>` and `timm:<name>` build an untrained network of those
libraries.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

import torch
from torch import nn

from crossloom.errors import InputError
from crossloom.training.architectures import plain, residual, small
from crossloom.training.architectures.common import ImageShape
from crossloom.training.seeds import derive

GROUP = "crossloom.networks"
"""Entry point group of networks."""

Builder = Callable[[int, ImageShape], nn.Module]
"""(classes, (C, H, W)) → network from images [B, C, H, W] to logits [B, classes]."""

NETWORKS: dict[str, Builder] = {
    "lenet5": small.lenet5,
    "lenet5-caffe": small.lenet5_caffe,
    "lenet5-webmnist": small.lenet5_webmnist,
    "mlp": small.mlp,
    "vgg8": plain.vgg8,
    "vgg16": plain.vgg16,
    "alexnet": plain.alexnet,
    "resnet18": residual.resnet18,
    "resnet18-cifar": residual.resnet18_cifar,
    "resnet20": residual.resnet20,
    "resnet56": residual.resnet56,
}
"""The reference networks."""


@dataclass(frozen=True)
class NetworkInfo:
    """One line of `crossloom networks`.

    Attributes:
        name: as users write it.
        summary: first line of the builder's docstring.
        origin: "crossloom", or the package whose entry point it is.
    """

    name: str
    summary: str
    origin: str


def network_names() -> list[str]:
    """Reference networks and those of installed packages; `torchvision:<name>` and `timm:<name>` come besides."""
    return [*NETWORKS, *(entry.name for entry in entry_points(group=GROUP) if entry.name not in NETWORKS)]


def describe_networks() -> list[NetworkInfo]:
    """What there is to say about each of `network_names()`, without importing other packages' networks."""
    own = [
        NetworkInfo(name, (inspect.getdoc(build) or "").split("\n")[0], "crossloom") for name, build in NETWORKS.items()
    ]
    others = [entry for entry in entry_points(group=GROUP) if entry.name not in NETWORKS]
    return own + [NetworkInfo(e.name, e.value, e.dist.name if e.dist else "unknown package") for e in others]


def build_network(name: str, classes: int, image_shape: ImageShape, seed: int = 0) -> nn.Module:
    """An untrained network in training mode; its initial weights depend on `name` and `seed` alone.

    Args:
        name: one of `network_names()`, or `torchvision:<name>`, or `timm:<name>`.
        classes: number of logits.
        image_shape: (C, H, W) of one image.
        seed: of the initial weights; the caller's random state stays as it was.

    Raises:
        InputError: unknown name, a library that is not installed, or images or classes the network cannot take.
    """
    if classes < 1:
        raise InputError("classes", classes, "at least 1")
    builder = find(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights", name))
        network = builder(classes, image_shape)
    if name not in NETWORKS:
        check(name, network, classes, image_shape)
    return network.train()


def find(name: str) -> Builder:
    """The builder of a name.

    Raises:
        InputError: there is none.
    """
    library, colon, model = name.partition(":")
    if colon and library == "torchvision":
        return torchvision_builder(model)
    if colon and library == "timm":
        return timm_builder(model)
    if name in NETWORKS:
        return NETWORKS[name]
    for entry in entry_points(group=GROUP, name=name):
        builder: Builder = entry.load()
        return builder
    raise InputError.choice("network", name, [*network_names(), "torchvision:<name>", "timm:<name>"])


def unknown_model(library: str, model: str, known: list[str]) -> InputError:
    """The error for a model that a library with hundreds of them does not have: it suggests the closest one."""
    close = difflib.get_close_matches(model, known, n=1)
    nearest = f"{library}:{close[0]}" if close else None
    return InputError("network", f"{library}:{model}", f"one of {library}'s {len(known)} classifiers", nearest)


def torchvision_builder(model: str) -> Builder:
    """A classifier of torchvision, untrained. Networks with auxiliary classifiers are built without them."""
    from torchvision import models

    if model not in (known := models.list_models(module=models)):
        raise unknown_model("torchvision", model, known)

    def build(classes: int, image_shape: ImageShape) -> nn.Module:
        """See `Builder`."""
        if image_shape[0] != 3:
            raise InputError("image_shape", image_shape, f"3 channels for torchvision:{model}")
        auxiliary = {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}
        network: nn.Module = models.get_model(model, weights=None, num_classes=classes, **auxiliary)
        return network

    return build


def timm_builder(model: str) -> Builder:
    """A classifier of timm, untrained.

    Raises:
        InputError: timm is not installed, or has no such model.
    """
    try:
        import timm
    except ImportError as error:
        expected = "the package timm to be installed (pip install 'crossloom[timm]')"
        raise InputError("network", f"timm:{model}", expected) from error
    if model not in (known := timm.list_models()):
        raise unknown_model("timm", model, known)

    def build(classes: int, image_shape: ImageShape) -> nn.Module:
        """See `Builder`."""
        network: nn.Module = timm.create_model(model, num_classes=classes, in_chans=image_shape[0])
        return network

    return build


def check(name: str, network: nn.Module, classes: int, image_shape: ImageShape) -> None:
    """Run one black image through a network from outside.

    Raises:
        InputError: it cannot take such images, or gives anything but [1, classes].
    """
    if not isinstance(network, nn.Module):
        raise InputError("network", name, f"a torch module, not a {type(network).__name__}")
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, *image_shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError("image_shape", image_shape, f"images that {name} can take ({error})") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, classes):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError("network", name, f"one tensor of logits [1, {classes}], not {got}")
