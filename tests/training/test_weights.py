"""Weights files: whole ones load, everything else is one clear error and leaves the network as it was."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from crossloom.errors import InputError
from crossloom.training import PRETRAINED, build_network, evaluate, load_dataset, load_weights, read_state, save_weights

SHAPE = (1, 28, 28)


def network(seed=0):
    return build_network("lenet5-webmnist", 10, SHAPE, seed=seed)


def states_equal(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def write(path, state):
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    else:
        torch.save(state, path)


SUFFIXES = [".safetensors", ".npz", ".pth", ".th", ".pt", ".ckpt", ".bin"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_gives_the_same_bits(tmp_path, suffix):
    source, target = network(1), network(2)
    write(tmp_path / f"w{suffix}", source.state_dict())
    load_weights(target, tmp_path / f"w{suffix}")
    assert states_equal(source, target)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}, "best_prec1": 91.7},
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": {f"model.module.{name}": value for name, value in state.items()}},
    ],
)
def test_wrappers_are_taken_off(tmp_path, wrap):
    source, target = network(1), network(2)
    torch.save(wrap(source.state_dict()), tmp_path / "w.th")
    load_weights(target, tmp_path / "w.th")
    assert states_equal(source, target)


def test_batch_norm_counters_may_be_absent(tmp_path):
    source, target = (build_network("resnet20", 10, (3, 32, 32), seed=seed) for seed in (1, 2))
    state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert states_equal(source, target)


def test_save_and_load_with_shared_modules_and_other_memory_orders(tmp_path):
    shared = nn.Linear(4, 4)
    source = nn.Sequential(shared, nn.ReLU(), shared, nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 3, 1), nn.Flatten())
    save_weights(source.to(memory_format=torch.channels_last), tmp_path / "deep" / "w.safetensors")
    assert set(load_file(tmp_path / "deep" / "w.safetensors")) == set(source.state_dict())
    before = {name: value.clone() for name, value in source.state_dict().items()}
    for parameter in source.parameters():
        nn.init.zeros_(parameter)
    load_weights(source, tmp_path / "deep" / "w.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0, 7, 0.3, 0.95])
def test_truncated_files(tmp_path, suffix, keep):
    path = tmp_path / f"w{suffix}"
    write(path, network(1).state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    target = network(2)
    with pytest.raises(InputError, match=r"damaged") as caught:
        load_weights(target, path)
    assert caught.value.value == str(path)
    assert states_equal(target, network(2))


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin"])
def test_a_checkpoint_that_runs_code_is_refused_before_it_runs(tmp_path, suffix, legacy):
    trace = tmp_path / "trace"
    state = network(1).state_dict() | {"extra": Bomb(str(trace))}
    torch.save(state, tmp_path / f"w{suffix}", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="run code"):
        load_weights(network(), tmp_path / f"w{suffix}")
    assert not trace.exists()


def test_an_npz_with_objects_is_refused_before_they_are_unpickled(tmp_path):
    trace = tmp_path / "trace"
    np.savez(tmp_path / "w.npz", a=np.array([Bomb(str(trace))], dtype=object))
    with pytest.raises(InputError, match=r"\.npz"):
        read_state(tmp_path / "w.npz")
    assert not trace.exists()


def test_a_bare_pickle_is_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": Bomb(str(tmp_path / "trace"))}, protocol=2))
    with pytest.raises(InputError):
        read_state(tmp_path / "w.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("convolutions.0.bias"), "missing convolutions.0.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda s: s.update({"classifier.4.bias": torch.zeros(7)}), r"classifier.4.bias \(7,\) for \(10,\)"),
        (lambda s: s["classifier.0.weight"][3].fill_(torch.nan), "classifier.0.weight holds NaN"),
        (lambda s: s["classifier.0.bias"][0].fill_(torch.inf), "classifier.0.bias holds NaN or infinity"),
        (lambda s: s.update(note="hello"), "'note' is none"),
        (lambda s: s.clear(), "without any"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path, change, says):
    state = {name: value.clone() for name, value in network(1).state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "w.pth")
    target = network(2)
    with pytest.raises(InputError, match=says):
        load_weights(target, tmp_path / "w.pth")
    assert states_equal(target, network(2))


def test_another_networks_weights_give_a_short_message(tmp_path):
    save_weights(build_network("resnet56", 10, (3, 32, 32)), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"missing .* and \d+ more; unexpected .* and \d+ more") as caught:
        load_weights(network(), tmp_path / "w.safetensors")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(("name", "says"), [("absent.pth", "an existing file"), ("w.pkl", r"\.safetensors")])
def test_files_of_no_known_kind(tmp_path, name, says):
    (tmp_path / "w.pkl").write_bytes(b"x")
    with pytest.raises(InputError, match=says):
        read_state(tmp_path / name)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    save_weights(network(1), tmp_path / "w.safetensors")

    def full(state, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(network(2), tmp_path / "w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    monkeypatch.undo()
    target = network(3)
    load_weights(target, tmp_path / "w.safetensors")
    assert states_equal(target, network(1))


def accuracy(record, real_data, real_weights, images=None):
    data = load_dataset(record.data, real_data, download=False, normalisation=record.normalisation)
    data = data if images is None else data.subset(test=images)
    trained = build_network(record.network, len(data.classes), data.image_shape)
    load_weights(trained, real_weights / record.file)
    return evaluate(trained, data.test_loader())


@pytest.mark.parametrize("record", PRETRAINED, ids=lambda record: record.file)
def test_published_weights_on_a_subset(record, real_data, real_weights):
    images = 1000
    spread = (record.accuracy * (1 - record.accuracy) / images) ** 0.5
    assert abs(accuracy(record, real_data, real_weights, images) - record.accuracy) < 3 * spread


@pytest.mark.slow
@pytest.mark.parametrize("record", PRETRAINED, ids=lambda record: record.file)
def test_published_weights_on_the_whole_test_set(record, real_data, real_weights):
    """Within one image of the published number (kernels of another machine may round a close call differently)."""
    assert abs(accuracy(record, real_data, real_weights) - record.accuracy) < 1.5e-4
