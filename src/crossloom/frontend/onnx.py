"""ONNX files in: an ONNX classifier as a PyTorch module, which `convert` then captures like any other.

The translation is onnx2torch's (optional dependency: `pip install crossloom[onnx]`).
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import fx, nn

from crossloom.errors import InputError


def load_onnx(path: str | os.PathLike[str]) -> nn.Module:
    """Read an ONNX file of one input and one output as a PyTorch module in evaluation mode.

    Args:
        path: an `.onnx` file. It is parsed as protocol buffers; nothing in it is executed.

    Raises:
        InputError: no such file, a file that is not ONNX, an operator that onnx2torch does not know, or the
            optional packages are not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx2torch import convert as translate
    except ImportError as error:
        raise InputError(
            "model", str(path), f"the packages that read ONNX: pip install 'crossloom[onnx]' ({error})"
        ) from error
    if not Path(path).is_file():
        raise InputError("model", str(path), "an existing ONNX file")
    try:
        model = onnx.load(os.fspath(path))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError("model", str(path), f"a whole, valid ONNX file ({reason})") from error
    try:
        module: fx.GraphModule = translate(model)
    except (NotImplementedError, RuntimeError, KeyError) as error:
        raise InputError("model", str(path), f"operators that onnx2torch can translate ({error})") from error
    return module.eval()
