"""Programs on disk: one safetensors file, arrays by name and everything else as JSON in the header.

Nothing is unpickled. The format is written down in docs/reference/formats.md; `VERSION` is raised with every
change that an older reader would misread.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from crossloom.weave.formats import Format, Rescale
from crossloom.weave.layer import Convolution, OutputTransform, WovenLayer
from crossloom.weave.program import NODE_TYPES, Node, Program
from crossloom.weave.transform import Factor, InputTransform

VERSION = 1

RECORDS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (Format, Rescale, Convolution, OutputTransform, WovenLayer, InputTransform, Factor, *NODE_TYPES.values())
}


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and vanishes otherwise."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def pack(value: Any, arrays: dict[str, np.ndarray], path: str) -> Any:
    """`value` as JSON; arrays go to `arrays` under `path` and leave a reference."""
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(value)
        return {"array": path}
    if isinstance(value, sp.csr_array):
        parts = {"data": value.data, "indices": value.indices, "indptr": value.indptr}
        for part, array in parts.items():
            arrays[f"{path}.{part}"] = np.ascontiguousarray(array)
        return {"sparse": path, "shape": list(value.shape)}
    if type(value).__name__ in RECORDS and dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"record": type(value).__name__} | {k: pack(v, arrays, f"{path}.{k}") for k, v in fields.items()}
    if isinstance(value, (tuple, list)):
        return [pack(v, arrays, f"{path}.{i}") for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path}: cannot store a {type(value).__name__}")


def unpack(value: Any, array: Callable[[str], np.ndarray]) -> Any:
    """The inverse of `pack`; lists come back as tuples."""
    if isinstance(value, list):
        return tuple(unpack(v, array) for v in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return array(value["array"])
    if "sparse" in value:
        path = value["sparse"]
        parts = (array(f"{path}.data"), array(f"{path}.indices"), array(f"{path}.indptr"))
        return sp.csr_array(parts, shape=tuple(value["shape"]))
    cls = RECORDS[value["record"]]
    return cls(**{k: unpack(v, array) for k, v in value.items() if k != "record"})


def save_program(program: Program, path: str | os.PathLike[str], extra: dict[str, Any] | None = None) -> None:
    """Write a program, and `extra` plain JSON beside it, atomically.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    arrays: dict[str, np.ndarray] = {}
    nodes = [pack(node, arrays, f"{i}") for i, node in enumerate(program.nodes)]
    header = {"version": VERSION, "name": program.name, "classes": list(program.classes), "nodes": nodes}
    metadata = {"crossloom.program": json.dumps(header), "crossloom.extra": json.dumps(extra or {})}
    with atomic_path(path) as temporary:
        save_file(arrays or {"empty": np.zeros(1)}, temporary, metadata=metadata)


def load_program(path: str | os.PathLike[str]) -> tuple[Program, dict[str, Any]]:
    """Read what `save_program` wrote: the program and the extra JSON.

    Raises:
        ValueError: not such a file, truncated, damaged, or of a newer version.
        FileNotFoundError: no file there.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"program file {path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "crossloom.program" not in metadata:
                raise ValueError(f"program file {path}: not written by crossloom (no program in its header)")
            header = json.loads(metadata["crossloom.program"])
            if header["version"] != VERSION:
                raise ValueError(f"program file {path}: version {header['version']}; this release reads {VERSION}")
            nodes: tuple[Node, ...] = tuple(unpack(node, file.get_tensor) for node in header["nodes"])
            extra: dict[str, Any] = json.loads(metadata.get("crossloom.extra", "{}"))
        return Program(header["name"], nodes, tuple(header["classes"])), extra
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"program file {path}: damaged or truncated ({error})") from error
