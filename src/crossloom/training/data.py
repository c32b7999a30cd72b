"""Data sets by name, held whole in memory as uint8 and served in batches.

A pipeline that handles one image at a time costs more than training a small network does. Here a batch is cut from
the whole set by index, augmented and normalised at once, on the device where the set lives.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from crossloom.errors import InputError
from crossloom.training.augment import Augment, augmented
from crossloom.training.labels import CIFAR10, CIFAR100, FASHION_MNIST
from crossloom.training.readers import (
    Reader,
    Split,
    read_cifar10,
    read_cifar100,
    read_digits,
    read_fashion_mnist,
    read_mnist,
)
from crossloom.training.seeds import generator

log = logging.getLogger(__name__)

DATA_VARIABLE = "CROSSLOOM_DATA"
"""Environment variable that names the data folder where `data_dir` is not given."""


@dataclass(frozen=True)
class Normalisation:
    """Per-channel (p/255 − mean)/std that turns raw bytes p into a network's float input.

    The network receives the normalised values; the frontend gives them their integer format.

    Attributes:
        mean: one value per channel, or one for all, on the scale where 255 is 1.
        std: the same, positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """float32 images, bit for bit as torchvision's ToTensor and Normalize make them."""
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.std, device=images.device)[:, None, None]
        return images.float().div_(255).sub_(mean).div_(std)


NORMALISATIONS: dict[str, Normalisation] = {
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": Normalisation((0.0,), (1.0,)),
    "caffe": Normalisation((0.0,), (256 / 255,)),
}
"""Normalisations that published networks were trained with: torchvision's ImageNet statistics (also the pretrained
CIFAR ResNets of akamaster), p/255, and p/256 (Caffe's `scale: 0.00390625`). Each data set has its own besides."""


class Loader:
    """Batches of normalised float images and labels, again and again.

    Every pass over a shuffled loader has an order of its own, fixed by (seed, epoch); a pass advances the epoch. An
    unshuffled loader gives the same batches on every pass.
    """

    def __init__(
        self,
        split: Split,
        normalisation: Normalisation,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Serve `split`, which stays where it is (batches are made on its device).

        Args:
            split: images and labels.
            normalisation: applied last.
            batch_size: images per batch; the last batch may be smaller.
            shuffle: a new random order every pass.
            augment: random changes of each image, or None.
            seed: of order and augmentation.
            epoch: number of the next pass.
            rank: which of `world_size` equal parts of each pass this process gets. A shuffled pass drops the
                remainder so that all parts are equally long; an unshuffled one keeps every image exactly once.
            world_size: number of processes.

        Raises:
            InputError: `batch_size` below 1.
        """
        if batch_size < 1:
            raise InputError("batch_size", batch_size, "at least 1")
        self.split, self.normalisation, self.batch_size = split, normalisation, batch_size
        self.shuffle, self.augment, self.seed, self.epoch = shuffle, augment, seed, epoch
        self.rank, self.world_size = rank, world_size

    @property
    def images(self) -> int:
        """Images in one pass of this process."""
        count = len(self.split.labels)
        return count // self.world_size if self.shuffle else len(range(self.rank, count, self.world_size))

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-self.images // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "B C H W"], Int64[Tensor, " B"]]]:
        """One pass."""
        count, epoch = len(self.split.labels), self.epoch
        order = torch.randperm(count, generator=generator(self.seed, "order", epoch)) if self.shuffle else None
        rows = (torch.arange(count) if order is None else order)[self.rank :: self.world_size][: self.images]
        rows = rows.to(self.split.images.device)
        randomness = generator(self.seed, "augment", epoch, self.rank)
        self.epoch += int(self.shuffle)
        for batch in torch.split(rows, self.batch_size):
            images = self.split.images[batch]
            if self.augment is not None:
                images = augmented(images, self.augment, randomness)
            yield self.normalisation(images), self.split.labels[batch]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Labelled images to train and test on. Build one directly to use images of your own.

    Attributes:
        name: as users write it.
        classes: class names in label order.
        train: the half to train and calibrate on.
        test: the half to test on; never looked at in training.
        normalisation: bytes → network input.
        augment: what training does to images unless told otherwise, or None.
        notes: remarks on what was found on disk, for the report.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    normalisation: Normalisation
    augment: Augment | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
            InputError: wrong dtypes or shapes, labels outside the classes, a normalisation for other channels.
        """
        for half, split in (("train", self.train), ("test", self.test)):
            images, labels = split.images, split.labels
            if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
                given = f"{images.dtype} {tuple(images.shape)}"
                raise InputError(f"{self.name}.{half}.images", given, "at least one image, uint8 [N, C, H, W]")
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
                given = f"{labels.dtype} {tuple(labels.shape)}"
                raise InputError(f"{self.name}.{half}.labels", given, f"int64 [{len(images)}]")
            if labels.min() < 0 or labels.max() >= len(self.classes):
                given = f"{int(labels.min())} to {int(labels.max())}"
                raise InputError(f"{self.name}.{half}.labels", given, f"0 to {len(self.classes) - 1}")
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise InputError(f"{self.name}.test.images", tuple(self.test.images.shape[1:]), f"{self.image_shape}")
        for name, values in (("mean", self.normalisation.mean), ("std", self.normalisation.std)):
            if len(values) not in (1, self.image_shape[0]):
                raise InputError(f"{self.name}.normalisation.{name}", values, f"1 or {self.image_shape[0]} values")
        if min(self.normalisation.std) <= 0:
            raise InputError(f"{self.name}.normalisation.std", self.normalisation.std, "positive numbers")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def train_loader(self, batch_size: int = 128, *, seed: int = 0, augment: bool = True) -> Loader:
        """Shuffled training batches, augmented as the set says unless `augment` is false."""
        random = self.augment if augment else None
        return Loader(self.train, self.normalisation, batch_size, shuffle=True, augment=random, seed=seed)

    def test_loader(self, batch_size: int = 500) -> Loader:
        """The test images in their own order."""
        return Loader(self.test, self.normalisation, batch_size)

    def calibration_loader(self, images: int = 512, *, seed: int = 0, batch_size: int = 128) -> Loader:
        """A fixed random choice of training images, unaugmented: for ranges of activations and converters."""
        return Loader(self.subset(images, seed).train, self.normalisation, batch_size)

    def subset(self, train: int | None = None, seed: int = 0, *, test: int | None = None) -> DataSet:
        """The same set with `train` training and `test` test images drawn without replacement (None: all of them).

        The drawn images keep their order, and a larger draw with the same seed contains a smaller one.

        Raises:
            InputError: a number below 1 or above what there is.
        """
        halves = {}
        for name, split, wanted in (("train", self.train, train), ("test", self.test, test)):
            count = len(split.labels)
            if wanted is not None and not 1 <= wanted <= count:
                raise InputError(f"{self.name}.subset.{name}", wanted, f"1 to {count}")
            if wanted is not None:
                order = torch.randperm(count, generator=generator(seed, "subset", self.name, name))
                rows = order[:wanted].sort().values
                split = Split(split.images[rows], split.labels[rows])
            halves[name] = split
        return replace(self, train=halves["train"], test=halves["test"])

    def normalised(self, normalisation: str | Normalisation) -> DataSet:
        """The same images with another normalisation: one of `NORMALISATIONS` by name, or your own.

        Raises:
            InputError: no normalisation of that name.
        """
        if isinstance(normalisation, str):
            if normalisation not in NORMALISATIONS:
                raise InputError.choice("normalisation", normalisation, NORMALISATIONS)
            normalisation = NORMALISATIONS[normalisation]
        return replace(self, normalisation=normalisation)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell whether two runs used the same images, labels and normalisation."""
        digest = hashlib.sha256(repr((self.name, self.image_shape, self.normalisation)).encode())
        for split in (self.train, self.test):
            for part in (split.images, split.labels):
                digest.update(part.cpu().contiguous().numpy())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """Where a named data set comes from and what is known about it.

    Attributes:
        title: one line for people.
        read: finds the files.
        classes: class names in label order.
        normalisation: mean and standard deviation of the official training half, per channel.
        augment: default augmentation.
        shape: (C, H, W), known without reading the files.
    """

    title: str
    read: Reader
    classes: tuple[str, ...]
    normalisation: Normalisation
    augment: Augment | None
    shape: tuple[int, int, int]


DIGIT_CLASSES = tuple("0123456789")
SHIFTED = Augment(padding=2)
PHOTOGRAPH = Augment(padding=4, flip=True)

SOURCES: dict[str, Source] = {
    "digits": Source(
        "scikit-learn's handwritten digits, real 8×8 scans enlarged to 32×32; ships with scikit-learn",
        read_digits, DIGIT_CLASSES, Normalisation((0.3054,), (0.3237,)), SHIFTED, (1, 32, 32),
    ),
    "mnist": Source(
        "MNIST handwritten digits, 28×28",
        read_mnist, DIGIT_CLASSES, Normalisation((0.1307,), (0.3081,)), SHIFTED, (1, 28, 28),
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST articles, 28×28",
        read_fashion_mnist, FASHION_MNIST, Normalisation((0.2860,), (0.3530,)),
        Augment(padding=2, flip=True), (1, 28, 28),
    ),
    "cifar10": Source(
        "CIFAR-10 photographs, 32×32 colour",
        read_cifar10, CIFAR10, Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        PHOTOGRAPH, (3, 32, 32),
    ),
    "cifar100": Source(
        "CIFAR-100 photographs, 32×32 colour, 100 fine classes",
        read_cifar100, CIFAR100, Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        PHOTOGRAPH, (3, 32, 32),
    ),
}  # fmt: skip
"""Every data set by name."""


def dataset_names() -> list[str]:
    """Names that `load_dataset` takes."""
    return list(SOURCES)


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds data sets: `data_dir`, else the environment's CROSSLOOM_DATA, else `./data`."""
    return Path(data_dir or os.environ.get(DATA_VARIABLE) or "data").expanduser()


def load_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    normalisation: str | Normalisation | None = None,
) -> DataSet:
    """A data set by name, read from disk, or downloaded there first if it is missing and that is allowed.

    Args:
        name: one of `dataset_names()`.
        data_dir: folder that holds torchvision's layout (`MNIST/raw`, `FashionMNIST/raw`, `cifar-10-batches-py`,
            `cifar-100-python`) or CIFAR's binary version (`cifar-10-batches-bin`, `cifar-100-binary`); default
            CROSSLOOM_DATA, else `./data`.
        download: whether missing files may be fetched.
        normalisation: in place of the set's own, see `DataSet.normalised`.

    Raises:
        InputError: unknown name; files missing, truncated or not what they should be.
    """
    if name not in SOURCES:
        raise InputError.choice("data", name, SOURCES)
    source = SOURCES[name]
    train, test, notes = source.read(data_folder(data_dir), download)
    for note in notes:
        log.warning(note)
    data = DataSet(name, source.classes, train, test, source.normalisation, source.augment, notes)
    return data if normalisation is None else data.normalised(normalisation)
