"""Any PyTorch module → a functional graph of ATen operators, through `torch.export`.

Nothing here looks at the class of a module. Dropout alone is treated before the export, since an exported
evaluation graph forgets it: while the graph is taken, `torch.nn.functional.dropout` is an operator of ours that
survives.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from crossloom.errors import InputError


@torch.library.custom_op("crossloom::dropout", mutates_args=())
def dropout_marker(x: Tensor, p: float) -> Tensor:
    """A dropout that an exported graph remembers; the identity when run."""
    return x.clone()


@dropout_marker.register_fake
def _(x: Tensor, p: float) -> Tensor:
    return torch.empty_like(x)


@contextmanager
def _dropout_kept() -> Iterator[None]:
    names = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
    originals = {name: getattr(F, name) for name in names}

    def marked(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return dropout_marker(x, p) if p > 0 else x

    try:
        for name in names:
            setattr(F, name, marked)
        yield
    finally:
        for name, original in originals.items():
            setattr(F, name, original)


@dataclass
class Captured:
    """A captured network.

    Attributes:
        graph: functional ATen operators; parameters and buffers are placeholders.
        tensors: placeholder name → (name in the model, tensor).
        input: name of the placeholder of the network's input.
        example: the input shape used, batch first.
    """

    graph: fx.Graph
    tensors: dict[str, tuple[str, Tensor]]
    input: str
    example: tuple[int, ...]


def capture(model: nn.Module, example: Tensor) -> Captured:
    """Capture the evaluation-mode forward pass of `model`.

    Args:
        model: any module of one tensor in, one tensor out. It is not changed.
        example: an input, batch first; the batch size stays free.

    Raises:
        InputError: weights that are not finite, a module that cannot be exported, several inputs or outputs.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"weights.{name}", "NaN or infinity", "finite numbers")
    model = copy.deepcopy(model).eval().to(example.device)
    if example.shape[0] < 2:
        example = torch.cat([example, example])
    with _dropout_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            batch = {0: torch.export.Dim.AUTO}
            exported = torch.export.export(model, (example,), dynamic_shapes=(batch,)).run_decompositions({})
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                "model", type(model).__name__, f"a module that torch.export can capture: {reason}"
            ) from error
    signature = exported.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        counts = f"{len(signature.user_inputs)} inputs, {len(signature.user_outputs)} outputs"
        raise InputError("model", counts, "one input tensor and one output tensor")
    sources: dict[str, Any] = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {
        p: (n, exported.state_dict[n] if n in exported.state_dict else exported.constants[n])
        for p, n in sources.items()
    }
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        tensors[placeholder] = (name, exported.constants[name])
    return Captured(exported.graph, tensors, str(signature.user_inputs[0]), tuple(example.shape))
