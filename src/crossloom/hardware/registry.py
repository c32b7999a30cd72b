"""Where chips, devices and component families are found: our own package data, then users' entry points.

A user's package adds one with an entry point whose name is the name to be used on the command line:

    [project.entry-points."crossloom.hardware"]      # chips
    my-chip = "my_package:CHIP"
    [project.entry-points."crossloom.devices"]
    my-device = "my_package:DEVICE"
    [project.entry-points."crossloom.components"]
    my-family = "my_package:FAMILY"

Each loads to a path of a YAML file (`str`, `Path` or an `importlib.resources` file), to a mapping of the same
content, or to a function without arguments that returns one of these. A component family may also be a function
of the chip that returns a `Family` (see `crossloom.hardware.components`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from crossloom.errors import InputError
from crossloom.hardware.files import parse

Kind = Literal["chips", "devices", "components"]
GROUPS: dict[Kind, str] = {
    "chips": "crossloom.hardware",
    "devices": "crossloom.devices",
    "components": "crossloom.components",
}
FIELD: dict[Kind, str] = {"chips": "hardware", "devices": "device", "components": "components.family"}


@cache
def _own(kind: Kind) -> dict[str, Any]:
    """Our own files by name: package data, which does not change while we run."""
    folder = resources.files("crossloom.hardware") / kind
    return {item.name.removesuffix(".yaml"): item for item in folder.iterdir() if item.name.endswith(".yaml")}


def _plugins(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUPS[kind])}


def known(kind: Kind) -> list[str]:
    """All names of a kind, ours and those of installed packages, sorted."""
    return sorted({*_own(kind), *_plugins(kind)})


def is_known(kind: Kind, name: str) -> bool:
    """Whether `find` has that name; asks for entry points only if it is not one of ours."""
    return is_own(kind, name) or name in _plugins(kind)


def is_own(kind: Kind, name: str) -> bool:
    """Whether a name is that of a file of ours."""
    return name in _own(kind)


def find(kind: Kind, name: str) -> dict[str, Any] | Callable[..., Any]:
    """The content behind a name: a mapping, or the function of an entry point that builds a component family.

    Raises:
        InputError: no such name, or an entry point that does not load.
    """
    own = _own(kind)
    if name in own:
        return parse(own[name].read_text(encoding="utf-8"), name)
    plugins = _plugins(kind)
    if name not in plugins:
        raise InputError.choice(FIELD[kind], name, [*own, *plugins])
    point = plugins[name]
    try:
        target = point.load()
        if callable(target) and not isinstance(target, Mapping | Path):
            if inspect.signature(target).parameters:
                return _callable(target)
            target = target()
    except Exception as error:  # whatever a user's package raises, the user learns which entry point it was
        raise InputError(
            f"entry point {point.group}:{name}", f"{type(error).__name__}: {error}", point.value
        ) from error
    if isinstance(target, Mapping):
        return dict(target)
    if isinstance(target, str):
        target = Path(target)
    if not hasattr(target, "read_text"):
        raise InputError(f"entry point {point.group}:{name}", target, "a YAML file's path, a mapping or a function")
    return read_file(target, name)


def _callable(target: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = target
    return function


def read_file(path: Any, where: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file cannot be read, is no UTF-8 text or no YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(where, str(path), f"a readable file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(where, str(path), "a text file in UTF-8") from error
    return parse(text, str(path))
