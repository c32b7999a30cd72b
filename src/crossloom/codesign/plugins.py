"""Data sets of installed packages, and what each reference network is usually run on.

A package adds a data set by an entry point in the group `crossloom.data` whose object is called with
(data folder, may download) and returns a `crossloom.training.DataSet`. Networks, chips, devices, component families
and engines have groups of their own in their rooms: `crossloom.networks`, `crossloom.hardware`, `crossloom.devices`,
`crossloom.components`, `crossloom.engines`.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from crossloom.errors import InputError
from crossloom.training import DataSet, data_folder, dataset_names, load_dataset

GROUP = "crossloom.data"
"""Entry point group of data sets."""

ImageShape = tuple[int, int, int]

USUAL_DATA = {
    "lenet5": "digits",
    "lenet5-caffe": "mnist",
    "lenet5-webmnist": "mnist",
    "mlp": "mnist",
    "vgg8": "cifar10",
    "vgg16": "cifar10",
    "alexnet": "cifar100",
    "resnet18-cifar": "cifar10",
    "resnet20": "cifar10",
    "resnet56": "cifar10",
}
"""What each reference network is run on where no data set is named."""

IMAGENET: tuple[int, ImageShape] = (1000, (3, 224, 224))
"""Classes and image shape for networks without a usual data set: those of ImageNet."""


def data_names() -> list[str]:
    """Data sets by name, ours and those of installed packages."""
    own = dataset_names()
    return [*own, *(point.name for point in entry_points(group=GROUP) if point.name not in own)]


def default_data(network: str) -> str:
    """The usual data set of a network.

    Raises:
        InputError: it has none; one must be named.
    """
    if network not in USUAL_DATA:
        raise InputError("data", None, f"a data set for {network}: one of {', '.join(data_names())}")
    return USUAL_DATA[network]


def open_data(name: str, data_dir: str | None = None, download: bool = True) -> DataSet:
    """A data set by name, ours or a package's.

    Raises:
        InputError: no such name, or files that are missing or damaged.
    """
    if name not in dataset_names():
        for point in entry_points(group=GROUP, name=name):
            made = point.load()(data_folder(data_dir), download)
            if not isinstance(made, DataSet):
                raise InputError(f"entry point {GROUP}:{name}", type(made).__name__, "a crossloom.training.DataSet")
            return made
        raise InputError.choice("data", name, data_names())
    return load_dataset(name, data_dir, download=download)
