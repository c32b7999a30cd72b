"""Crossloom weaves neural networks onto compute-in-memory crossbars: one configuration, one chip, every number from it.

The names below are loaded when first used, so that `import crossloom` and the command line's help are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossloom.compiled import Accuracy, CompiledChip, compile, quantisation_for
    from crossloom.errors import InputError
    from crossloom.frontend import QuantisationConfig, calibrate, convert, load_onnx, lower
    from crossloom.hardware import Chip, load
    from crossloom.mapping import balanced_duplication, map_program
    from crossloom.nn import QuantiserConfig

_HOMES = {
    "Accuracy": "compiled", "CompiledChip": "compiled", "compile": "compiled", "quantisation_for": "compiled",
    "InputError": "errors", "QuantisationConfig": "frontend", "calibrate": "frontend", "convert": "frontend",
    "load_onnx": "frontend", "lower": "frontend", "Chip": "hardware", "load": "hardware",
    "balanced_duplication": "mapping", "map_program": "mapping", "QuantiserConfig": "nn",
}  # fmt: skip

__version__ = "0.1.0"
__all__ = [
    "Accuracy", "Chip", "CompiledChip", "InputError", "QuantisationConfig", "QuantiserConfig", "balanced_duplication",
    "calibrate", "compile", "convert", "load", "load_onnx", "lower", "map_program", "quantisation_for",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"crossloom.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'crossloom' has no attribute {name!r}")
