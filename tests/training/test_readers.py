"""Files as they are published, files that are missing, and files that are broken."""

import gzip
import hashlib
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from crossloom.errors import InputError
from crossloom.training import SOURCES, load_dataset

MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write_mnist(root, counts=(7, 5), compress=False):
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    arrays = []
    for count in counts:
        arrays += [rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)]
    for name, array in zip(MNIST_FILES, arrays, strict=True):
        content = idx(array)
        (root / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)
    return arrays


def write_cifar(folder, files, labels):
    """Files of the binary version: {name: records}; returns what was written."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    written = {}
    for name, count in files.items():
        label = rng.integers(0, 10, (count, labels), dtype=np.uint8)
        image = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        with open(folder / name, "wb") as file:
            for n in range(count):
                file.write(bytes(label[n].tolist()) + image[n].tobytes())
        written[name] = (image, label)
    return written


CIFAR10_FILES = {f"data_batch_{i}.bin": i + 1 for i in range(1, 6)} | {"test_batch.bin": 4}


def test_digits_are_the_published_scans_split_once_and_for_all():
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert data.image_shape == (1, 32, 32)
    assert (len(data.train.labels), len(data.test.labels)) == (1437, 360)
    assert data.test.labels.bincount().tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    # Bilinear enlargement written out: output pixel i lies at (i + ½)/4 − ½ between the scan's pixel centres.
    place = (np.arange(32) + 0.5) / 4 - 0.5
    matrix = np.clip(1 - np.abs(np.clip(place, 0, 7)[:, None] - np.arange(8)), 0, None)
    expected = torch.from_numpy(matrix @ (load_digits().images * 255 / 16) @ matrix.T).flatten(1)
    images = torch.cat([data.train.images, data.test.images]).flatten(1).double()
    nearest = torch.cdist(images, expected).argmin(1)
    assert sorted(nearest.tolist()) == list(range(1797)), "every scan once"
    assert (images - expected[nearest]).abs().max() < 0.501
    labels = torch.cat([data.train.labels, data.test.labels])
    assert torch.equal(labels, torch.from_numpy(load_digits().target)[nearest].long())
    assert data.fingerprint() == load_dataset("digits").fingerprint()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_plain_and_gzipped(tmp_path, name, folder, compress):
    arrays = write_mnist(tmp_path / folder / "raw", compress=compress)
    data = load_dataset(name, tmp_path, download=False)
    for split, images, labels in ((data.train, *arrays[:2]), (data.test, *arrays[2:])):
        assert np.array_equal(split.images[:, 0].numpy(), images)
        assert split.labels.tolist() == labels.tolist()


def test_idx_agrees_with_torchvisions_reader(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    ours = load_dataset("mnist", tmp_path, download=False)
    for train, split in ((True, ours.train), (False, ours.test)):
        theirs = datasets.MNIST(tmp_path, train=train)
        assert torch.equal(split.images[:, 0], theirs.data)
        assert torch.equal(split.labels, theirs.targets)


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    write_mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("CROSSLOOM_DATA", str(tmp_path))
    assert len(load_dataset("mnist", download=False).train.labels) == 7


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
        (lambda path: path.write_bytes(b""), "idx file"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "idx file"),
        (lambda path: path.write_bytes(idx(np.zeros((7, 20, 20), np.uint8))), "28×28"),
        (lambda path: path.write_bytes(idx(np.zeros((6, 28, 28), np.uint8))), "as many labels"),
    ],
)
def test_broken_idx_files_are_named(tmp_path, damage, reason):
    write_mnist(tmp_path / "MNIST" / "raw")
    damage(tmp_path / "MNIST" / "raw" / MNIST_FILES[0])
    with pytest.raises(InputError, match=reason) as caught:
        load_dataset("mnist", tmp_path, download=False)
    assert caught.value.field == "data_dir"
    assert str(tmp_path) in str(caught.value)


def test_a_truncated_gzip_file_is_named(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", compress=True)
    path = tmp_path / "MNIST" / "raw" / f"{MNIST_FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz"):
        load_dataset("mnist", tmp_path, download=False)


def test_cifar10_binary_version_record_by_record(tmp_path):
    written = write_cifar(tmp_path / "cifar-10-batches-bin", CIFAR10_FILES, 1)
    data = load_dataset("cifar10", tmp_path, download=False)
    train = [written[f"data_batch_{i}.bin"] for i in range(1, 6)]
    assert np.array_equal(data.train.images.numpy(), np.concatenate([image for image, _ in train]))
    assert data.train.labels.tolist() == np.concatenate([label[:, 0] for _, label in train]).tolist()
    assert np.array_equal(data.test.images.numpy(), written["test_batch.bin"][0])


def test_cifar100_takes_the_fine_label_and_says_how_much_it_found(tmp_path, caplog):
    written = write_cifar(tmp_path / "cifar-100-binary", {"train.bin": 6, "test.bin": 3}, 2)
    with caplog.at_level("WARNING"):  # whatever the command line left the level at
        data = load_dataset("cifar100", tmp_path, download=False)
    assert data.train.labels.tolist() == written["train.bin"][1][:, 1].tolist()
    assert data.notes[0] == "cifar100: train.bin holds 6 records of the official 50000"
    assert data.notes[0] in caplog.text


def test_truncated_and_missing_binary_files(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar(folder, CIFAR10_FILES, 1)
    path = folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"data_batch_3\.bin.*3073-byte records.*truncated"):
        load_dataset("cifar10", tmp_path, download=False)
    path.unlink()
    with pytest.raises(InputError, match=r"data_batch_3\.bin is missing"):
        load_dataset("cifar10", tmp_path, download=False)


def write_python_cifar(folder, monkeypatch):
    """A small python version whose MD5 sums torchvision is told to expect."""
    folder.mkdir()
    rng = np.random.default_rng(2)
    lists, images, labels = [], [], []
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        image, label = rng.integers(0, 256, (3, 3072), dtype=np.uint8), rng.integers(0, 10, 3).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": image, "labels": label}))
        lists.append([name, hashlib.md5((folder / name).read_bytes()).hexdigest()])
        images.append(image.reshape(-1, 3, 32, 32))
        labels.append(label)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"] * 10}))
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "train_list", lists[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", lists[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return images, labels


def test_cifar10_python_version_through_torchvision(tmp_path, monkeypatch):
    images, labels = write_python_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    data = load_dataset("cifar10", tmp_path, download=False)
    assert np.array_equal(data.train.images.numpy(), np.concatenate(images[:5]))
    assert data.train.labels.tolist() == np.concatenate(labels[:5]).tolist()
    assert np.array_equal(data.test.images.numpy(), images[5])


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_that_is_not_the_official_one_is_never_opened(tmp_path, monkeypatch):
    write_python_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    trace = tmp_path / "trace"
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(Bomb(str(trace))))
    with pytest.raises(InputError, match="MD5"):
        load_dataset("cifar10", tmp_path, download=False)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-bin"),
        ("cifar100", "cifar-100-binary"),
    ],
)
def test_absent_data_is_one_clear_error(tmp_path, name, layout):
    folder = tmp_path / "nowhere"
    with pytest.raises(InputError) as caught:
        load_dataset(name, folder, download=False)
    text = str(caught.value)
    assert caught.value.field == "data_dir"
    for part in (name, str(folder), layout, "--data-dir", "CROSSLOOM_DATA"):
        assert part in text
    assert not folder.exists()


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_download_that_fails_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch, name):
    def unreachable(self):
        (tmp_path / "started").touch()
        raise URLError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "download", unreachable)
    monkeypatch.setattr(datasets.CIFAR10, "download", unreachable)
    folder = tmp_path / "data"
    with pytest.raises(InputError, match="no route to host") as caught:
        load_dataset(name, folder)
    assert "--data-dir" in str(caught.value)
    assert (tmp_path / "started").exists()
    assert list(folder.iterdir()) == []


def test_a_download_arrives_whole_and_is_not_repeated(tmp_path, monkeypatch):
    downloads = []

    def server(self):
        if not self._check_exists():
            downloads.append(self.root)
            write_mnist(self_raw := tmp_path / "server" / str(len(downloads)))
            from pathlib import Path

            Path(self.raw_folder).mkdir(parents=True)
            for file in self_raw.iterdir():
                (Path(self.raw_folder) / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(datasets.MNIST, "download", server)
    folder = tmp_path / "data"
    assert len(load_dataset("mnist", folder).train.labels) == 7
    assert len(load_dataset("mnist", folder).train.labels) == 7
    assert len(downloads) == 1
    assert [path.name for path in folder.iterdir()] == ["MNIST"]


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("mnist", 60000, 10000), ("cifar10", 50000, 10000), ("cifar100", 30000, 10000), ("digits", 1437, 360)],
)
def test_real_sets_have_the_published_sizes_and_statistics(request, name, train, test):
    folder = None if name == "digits" else request.getfixturevalue("real_data")
    data = load_dataset(name, folder, download=False)
    assert len(data.train.labels) >= train
    assert len(data.test.labels) == test
    assert data.test.labels.unique().numel() == len(data.classes)
    # One channel at a time in float64, and a tolerance for CIFAR-100 where only the first 30 000 images may be there.
    tolerance = 6e-5 if len(data.train.labels) != 30000 else 1e-3
    for channel, (mean, std) in enumerate(zip(data.normalisation.mean, data.normalisation.std, strict=True)):
        values = np.bincount(data.train.images[:, channel].numpy().ravel(), minlength=256).astype(np.float64)
        levels = np.arange(256) / 255
        centre = (values * levels).sum() / values.sum()
        assert centre == pytest.approx(mean, abs=tolerance)
        assert np.sqrt((values * (levels - centre) ** 2).sum() / values.sum()) == pytest.approx(std, abs=tolerance)


def test_every_source_states_what_its_files_hold(request):
    assert load_dataset("digits").image_shape == SOURCES["digits"].shape
    assert {name: len(source.classes) for name, source in SOURCES.items()} == {
        "digits": 10, "mnist": 10, "fashion-mnist": 10, "cifar10": 10, "cifar100": 100,
    }  # fmt: skip
    for source in SOURCES.values():
        assert len(set(source.classes)) == len(source.classes)
        assert len(source.normalisation.mean) == source.shape[0]
