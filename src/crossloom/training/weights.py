"""Trained weights from files and to files. Nothing is unpickled beyond plain tensors and containers.

Read: safetensors, PyTorch checkpoints (`torch.load(weights_only=True)`) and npz. Wrappers are taken off: a
`state_dict`, `model` or `network` entry, the `module.` of DataParallel, the `model.` of a Lightning checkpoint.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.weave.store import atomic_path

WRAPPERS = ("state_dict", "model", "network", "model_state_dict")
"""Entries that hold the weights in checkpoints that hold more."""

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DataParallel, Lightning and torch.compile put before every name."""

NAMED_AT_MOST = 4
"""Names listed of each kind of mismatch."""


@dataclass(frozen=True)
class Pretrained:
    """Published weights that load into a reference network.

    Attributes:
        file: file name as published here.
        network: name of the reference network.
        data: name of the data set it was trained on.
        normalisation: name in `NORMALISATIONS` of the input it expects.
        accuracy: fraction of the whole official test set.
        source: where it comes from, and its licence.
    """

    file: str
    network: str
    data: str
    normalisation: str
    accuracy: float
    source: str


PRETRAINED: tuple[Pretrained, ...] = (
    Pretrained(
        "akamaster_resnet20-12fca82f.th", "resnet20", "cifar10", "imagenet", 0.9173,
        "github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-like)",
    ),
    Pretrained(
        "akamaster_resnet56-4bfd9763.th", "resnet56", "cifar10", "imagenet", 0.9339,
        "github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-like)",
    ),
    Pretrained(
        "caffe_lenet_mnist.npz", "lenet5-caffe", "mnist", "caffe", 0.9914,
        "github.com/ethereon/caffe-tensorflow, examples/mnist (Caffe model, BSD-2)",
    ),
    Pretrained(
        "webmnist_lenet5_mnist.pth", "lenet5-webmnist", "mnist", "unit", 0.9822,
        "github.com/Adem-rahal/WebMnist (MIT)",
    ),
)  # fmt: skip
"""Published weights whose accuracy the tests check; the files themselves are not part of this package."""


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The named tensors of a weights file, wrappers taken off.

    Raises:
        InputError: no such file, an unknown suffix, truncated or damaged, anything in it but tensors and plain
            containers (a pickle that would run code is refused before it runs), or no tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError("weights", str(path), "an existing file")
    suffix = file.suffix.lower()
    try:
        if suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        elif suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                content = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        elif suffix in (".pt", ".pth", ".th", ".ckpt", ".bin"):
            content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            raise InputError("weights", str(path), "a file .safetensors, .npz, .pt, .pth, .th, .bin or .ckpt")
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        expected = (
            f"a checkpoint of plain tensors, neither damaged nor with objects that run code on loading ({reason})"
        )
        raise InputError("weights", str(path), expected) from error
    except InputError:
        raise
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise InputError("weights", str(path), f"a whole {suffix} file: damaged or truncated ({reason})") from e
    return unwrapped(content, str(path))


def unwrapped(content: Any, path: str) -> dict[str, Tensor]:
    """The tensors in a checkpoint without the containers and prefixes around them."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        raise InputError("weights", path, f"named tensors, not a {type(content).__name__} without any")
    if strange := [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]:
        raise InputError("weights", path, f"named tensors only; {strange[0]!r} is none")
    state: dict[str, Tensor] = dict(content)
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill a network from a file; every parameter and buffer must be there, in its shape, with finite values.

    Batch norms' `num_batches_tracked`, which older files lack, may be absent.

    Raises:
        InputError: as `read_state`; or names that are missing, unexpected or of another shape (the network is
            unchanged then); or values that are not finite.
    """
    state, own = read_state(path), network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{kind} {', '.join(keys[:NAMED_AT_MOST])}"
        + (f" and {len(keys) - NAMED_AT_MOST} more" * (len(keys) > NAMED_AT_MOST))
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("other shapes:", shapes))
        if keys
    ]
    if problems:
        raise InputError("weights", str(path), f"weights of this network ({'; '.join(problems)})")
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise InputError("weights", str(path), f"finite numbers; {key} holds NaN or infinity")
    network.load_state_dict({key: state.get(key, own[key]) for key in own})


def save_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write every parameter and buffer to a safetensors file, atomically.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    from safetensors.torch import save_file

    state = {key: value.detach().cpu().clone().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)
