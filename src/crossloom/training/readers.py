"""Image data sets from disk as uint8 tensors: idx files (MNIST), CIFAR's binary and python versions, digits.

A reader looks in one folder, accepts the layouts that the data sets are published in, and otherwise raises one
`InputError` that names the folder and the layout. The only pickles opened are CIFAR's official python version,
by torchvision, after their MD5 sums have been found equal to the published ones.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from crossloom.errors import InputError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
"""How long a download waits for a silent server."""

DIGITS_SIZE = 32
"""Side in pixels that the 8×8 digits are enlarged to: a whole factor of 4, and LeNet-5's own input size."""

DIGITS_TEST = 360
"""Number of digits held out for test, one fifth of 1797."""


@dataclass(frozen=True)
class Split:
    """Images and labels of one half of a data set.

    Attributes:
        images: uint8 [N, C, H, W], 0 to 255.
        labels: int64 [N], class numbers from 0.
    """

    images: UInt8[Tensor, "N C H W"]
    labels: Int64[Tensor, " N"]


Reader = Callable[[Path, bool], tuple[Split, Split, tuple[str, ...]]]
"""(data folder, may download) → training half, test half, remarks on what was found."""


def read_digits(folder: Path, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    """scikit-learn's handwritten digits: 1797 real scans, 8×8, 17 grey levels; nothing to download.

    Grey levels 0…16 become 0…255, images are enlarged to 32×32 (bilinear, pixel centres aligned) so that
    LeNet-5 fits. The split is fixed: 1437 to train, 360 to test, stratified by class, drawn with seed 0.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test half).
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw, classes = load_digits(return_X_y=True)
    small = torch.from_numpy(raw.astype(np.float32)).reshape(-1, 1, 8, 8) * (255.0 / 16.0)
    large = F.interpolate(small, size=(DIGITS_SIZE, DIGITS_SIZE), mode="bilinear", align_corners=False)
    images = (large + 0.5).floor().clamp(0, 255).to(torch.uint8)
    labels = torch.from_numpy(classes.astype(np.int64))
    train, test = train_test_split(np.arange(len(classes)), test_size=DIGITS_TEST, stratify=classes, random_state=0)
    halves = [Split(images[np.sort(rows)], labels[np.sort(rows)]) for rows in (train, test)]
    return halves[0], halves[1], ()


def read_idx(path: Path) -> np.ndarray:
    """One idx file of unsigned bytes, plain or gzipped: an array of the shape in its header.

    Format: two zero bytes, 0x08, the number of dimensions, each dimension as big-endian uint32, the bytes
    (Y. LeCun, C. Cortes, C. Burges, "The MNIST database").

    Raises:
        InputError: the file is not such a file, or holds more or fewer bytes than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("data_dir", str(path), f"a readable idx file ({error})") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise InputError("data_dir", str(path), "an idx file of unsigned bytes (first bytes 00 00 08)")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    if len(content) != start + math.prod(shape):
        raise InputError(
            "data_dir", str(path), f"{start + math.prod(shape)} bytes as its header says, not {len(content)}: truncated"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def read_mnist_family(folder: Path, download: bool, name: str, torchvision_class: str) -> tuple[Split, Split]:
    """The four idx files of MNIST or a set of its kind from `folder/<torchvision_class>/raw`, plain or `.gz`."""
    raw = folder / torchvision_class / "raw"
    stems = [f"{half}-{kind}-ubyte" for half in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]

    def found() -> list[Path | None]:
        """Each of the four files, or None."""
        candidates = [(raw / stem, raw / f"{stem}.gz") for stem in stems]
        return [next((path for path in pair if path.is_file()), None) for pair in candidates]

    if None in found():
        fetch(folder, download, name, torchvision_class, f"{raw} with {', '.join(stems)} (plain or .gz)")
    arrays = [read_idx(path) for path in found() if path is not None]
    halves = []
    for images, labels in ((arrays[0], arrays[1]), (arrays[2], arrays[3])):
        if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise InputError(
                "data_dir", str(raw), f"28×28 images with as many labels, not {images.shape} with {labels.shape}"
            )
        halves.append(Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()))
    return halves[0], halves[1]


def read_mnist(folder: Path, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    """MNIST, 60 000 + 10 000 handwritten digits, 28×28 grey. Source: LeCun et al., Proc. IEEE 86(11), 1998."""
    return *read_mnist_family(folder, download, "mnist", "MNIST"), ()


def read_fashion_mnist(folder: Path, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    """Fashion-MNIST, 60 000 + 10 000 articles, 28×28 grey. Source: Xiao et al., arXiv 1708.07747."""
    return *read_mnist_family(folder, download, "fashion-mnist", "FashionMNIST"), ()


def read_records(path: Path, label_bytes: int, official: int) -> tuple[Split, tuple[str, ...]]:
    """One file of CIFAR's binary version: records of `label_bytes` labels (the last one is the class), R, G, B planes.

    Any whole number of records is accepted; fewer or more than `official` leave a remark.

    Raises:
        InputError: the file is empty, or its length is no whole number of records.
    """
    size = label_bytes + 3072
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % size:
        raise InputError(
            "data_dir", str(path), f"a whole number of {size}-byte records, not {len(content)} bytes: truncated"
        )
    records = content.reshape(-1, size)
    remarks = (f"{path.name} holds {len(records)} records of the official {official}",)
    images = torch.from_numpy(records[:, label_bytes:].copy()).reshape(-1, 3, 32, 32)
    labels = torch.from_numpy(records[:, label_bytes - 1].astype(np.int64))
    return Split(images, labels), remarks if len(records) != official else ()


def read_cifar(
    folder: Path, download: bool, name: str, binary: dict[str, list[tuple[str, int]]], label_bytes: int, kind: str
) -> tuple[Split, Split, tuple[str, ...]]:
    """CIFAR from its binary version if that is there, else torchvision's python version, else by download.

    Args:
        folder: where to look.
        download: may the python version be fetched.
        name: the data set's name, for messages.
        binary: half → (path under `folder`, official number of records) of each file.
        label_bytes: labels in each record.
        kind: torchvision's class.
    """
    files = [path for half in binary.values() for path, _ in half]
    present = [path for path in files if (folder / path).is_file()]
    if present:
        if missing := sorted(set(files) - set(present)):
            raise InputError("data_dir", str(folder), f"all files of {name}'s binary version; {missing[0]} is missing")
        halves, remarks = {}, list[str]()
        for half, parts in binary.items():
            read = [read_records(folder / path, label_bytes, official) for path, official in parts]
            remarks += [f"{name}: {remark}" for _, found in read for remark in found]
            halves[half] = Split(torch.cat([s.images for s, _ in read]), torch.cat([s.labels for s, _ in read]))
        return halves["train"], halves["test"], tuple(remarks)

    from torchvision import datasets

    cls: Any = getattr(datasets, kind)
    layout = (
        f"{folder / Path(files[0]).parent} with {', '.join(Path(f).name for f in files)}, or {folder / cls.base_folder}"
    )
    if not (folder / cls.base_folder).is_dir():
        fetch(folder, download, name, kind, layout)
    python = []
    for train in (True, False):
        try:
            read_half = cls(folder, train=train)
        except (RuntimeError, OSError) as error:
            expected = f"the official files of {name}'s python version (MD5 sums differ or files are missing)"
            raise InputError("data_dir", str(folder / cls.base_folder), expected) from error
        images = torch.from_numpy(read_half.data).permute(0, 3, 1, 2).contiguous()
        python.append(Split(images, torch.tensor(read_half.targets, dtype=torch.int64)))
    return python[0], python[1], ()


def read_cifar10(folder: Path, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    """CIFAR-10, 50 000 + 10 000 colour images, 32×32. Source: A. Krizhevsky, technical report, Toronto, 2009."""
    train = [(f"cifar-10-batches-bin/data_batch_{i}.bin", 10000) for i in range(1, 6)]
    test = [("cifar-10-batches-bin/test_batch.bin", 10000)]
    return read_cifar(folder, download, "cifar10", {"train": train, "test": test}, 1, "CIFAR10")


def read_cifar100(folder: Path, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    """CIFAR-100 with its 100 fine classes, 50 000 + 10 000 colour images, 32×32. Source: as CIFAR-10."""
    halves = {"train": [("cifar-100-binary/train.bin", 50000)], "test": [("cifar-100-binary/test.bin", 10000)]}
    return read_cifar(folder, download, "cifar100", halves, 2, "CIFAR100")


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Connections opened inside give up after `seconds` of silence (torchvision sets no limit of its own)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def fetch(folder: Path, download: bool, name: str, torchvision_class: str, layout: str) -> None:
    """Download a data set with torchvision into a temporary folder and move it into `folder` once it is whole.

    Raises:
        InputError: downloading is not allowed or does not work; names the folder and the layout expected there.
    """
    where = str(folder)
    advice = f"{layout}; name the folder with --data-dir or CROSSLOOM_DATA"
    if not download:
        raise InputError("data_dir", where, f"the data set {name}: {advice} (downloading is switched off)")

    from torchvision import datasets

    log.info("downloading %s to %s", name, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with socket_timeout(CONNECT_SECONDS), tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as part:
            cls: Any = getattr(datasets, torchvision_class)
            for train in (True, False):
                cls(part, train=train, download=True)
            for source in sorted(Path(part).rglob("*")):
                target = folder / source.relative_to(part)
                if source.is_file() and source.suffix != ".gz":
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(source, target)
    except (RuntimeError, OSError, EOFError, shutil.ReadError, URLError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError("data_dir", where, f"the data set {name}: {advice} (downloading failed: {reason})") from error
