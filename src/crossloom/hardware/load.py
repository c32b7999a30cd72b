"""Loading a chip: preset or file, what it extends, the device and components it names, overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from crossloom.errors import InputError
from crossloom.hardware import registry
from crossloom.hardware.components import digest
from crossloom.hardware.files import Tree, parse, read, unit_of, validate
from crossloom.hardware.schema import VERSION, Chip, Device, Record


def names() -> list[str]:
    """Names of all chips that `load` knows: our presets and those of installed packages."""
    return registry.known("chips")


def load(name_or_path: str | os.PathLike[str], overrides: Mapping[str, Any] | Iterable[str] = ()) -> Chip:
    """The chip behind a preset's name or a hardware file's path.

    Args:
        name_or_path: a name from `names()`, or the path of a YAML file.
        overrides: fields to change, as a mapping from dotted path to value or as texts `path=value`. A value may
            carry its unit (`device.r_on=6 kohm`); `device=sot-mram` swaps the whole device.

    Raises:
        InputError: an unknown name, an unreadable or malformed file, an unknown field, a wrong unit, or figures
            that do not fit together.
    """
    return _chip(_apply(_tree(name_or_path, ()), overrides))


def override(chip: Chip, overrides: Mapping[str, Any] | Iterable[str]) -> Chip:
    """`chip` with some fields changed (see `load`)."""
    return _chip(_apply(Tree(chip.model_dump(mode="json"), dict(chip.sources)), overrides))


def loads(text: str, where: str = "text") -> Chip:
    """The chip that a hardware file's text describes."""
    return _chip(_assemble(parse(text, where), where, Path(), ()))


def dump(chip: Chip) -> str:
    """A hardware file with every figure, its unit and its source; `load` of it gives an equal chip."""
    sources = chip.sources

    def written(record: Record, path: str) -> dict[str, Any]:
        plain = record.model_dump(mode="json")
        return {name: leaf(record, name, plain[name], f"{path}.{name}" if path else name) for name in plain}

    def leaf(record: Record, name: str, value: Any, path: str) -> Any:
        held = getattr(record, name)
        if isinstance(held, Record):
            return written(held, path)
        unit = unit_of(type(record).model_fields[name])
        full = {"value": value}
        full |= {"unit": unit} if unit != "1" and value is not None else {}
        full |= {"source": sources[path]} if path in sources else {}
        return full if len(full) > 1 else value

    return yaml.safe_dump({"version": VERSION} | written(chip, ""), sort_keys=False, allow_unicode=True, width=120)


def _chip(tree: Tree) -> Chip:
    chip = validate(Chip, tree.values)
    chip._sources = _complete(chip, tree.sources)
    chip._component_digest = digest(chip.components)
    return chip


def _complete(chip: Chip, sources: Mapping[str, str]) -> dict[str, str]:
    """A source for every leaf: what the file says, or else the schema's reason for its default."""
    found: dict[str, str] = {}

    def visit(record: Record, path: str, reason: str) -> None:
        for name, info in type(record).model_fields.items():
            here = f"{path}.{name}" if path else name
            value = getattr(record, name)
            extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            why = "" if info.is_required() else str(extra.get("source", ""))
            if isinstance(value, Record):
                visit(value, here, why)
            elif not isinstance(value, dict):
                by_default = "" if name in record.model_fields_set else why or reason
                found[here] = sources.get(here, "") or by_default

    visit(chip, "", "")
    return {path: text for path, text in found.items() if text and path not in ("name", "description")}


def _tree(name_or_path: str | os.PathLike[str], seen: tuple[str, ...]) -> Tree:
    name = os.fspath(name_or_path)
    if name in seen:
        raise InputError("extends", name, f"no circle ({' → '.join((*seen, name))})")
    if registry.is_known("chips", name):
        content = registry.find("chips", name)
        if not isinstance(content, dict):
            raise InputError("hardware", name, "an entry point that gives a file or a mapping")
        return _assemble({"name": name} | content, name, Path(), (*seen, name))
    if not name.endswith((".yaml", ".yml")) and not os.path.exists(name):
        raise InputError.choice("hardware", name, names())
    path = Path(name)
    content = registry.read_file(path, "hardware")
    return _assemble({"name": path.stem} | content, name, path.parent, (*seen, name))


def _assemble(raw: dict[str, Any], where: str, folder: Path, seen: tuple[str, ...]) -> Tree:
    """A file's own leaves over those of the chip it extends."""
    raw = dict(raw)
    version = raw.pop("version", VERSION)
    if version != VERSION:
        raise InputError(f"{where}: version", version, f"{VERSION}, the version this release reads", str(VERSION))
    parent = raw.pop("extends", None)
    base = Tree()
    if parent is not None:
        if not isinstance(parent, str):
            raise InputError("extends", parent, "the name of a chip or the path of a hardware file")
        beside = folder / parent
        base = _tree(str(beside) if not registry.is_known("chips", parent) and beside.exists() else parent, seen)
        base.values.pop("published", None)
    return _lay(raw, base)


def _lay(raw: Mapping[str, Any], base: Tree, source: str = "") -> Tree:
    """Raw content over a base; a device or component family given by name replaces the whole section."""
    raw = dict(raw)
    base = Tree(dict(base.values), dict(base.sources))
    device = raw.get("device")
    named = device if isinstance(device, str) else device.get("extends") if isinstance(device, Mapping) else None
    if named is not None:
        base.values["device"] = {}
        base.drop("device")
        base = _device(named).over(base)
        rest = {} if isinstance(device, str) else {k: v for k, v in raw["device"].items() if k != "extends"}
        raw["device"] = rest
    if isinstance(raw.get("components"), str):
        base.values["components"] = {}
        base.drop("components")
        raw["components"] = {"family": raw["components"]}
    return read(raw, Chip, source=source, base=base.values).over(base)


def _device(name: Any) -> Tree:
    """A device file's leaves under `device`."""
    if not isinstance(name, str):
        raise InputError("device.extends", name, "the name of a device")
    content = registry.find("devices", name)
    if not isinstance(content, dict):
        raise InputError("device", name, "an entry point that gives a file or a mapping")
    content = dict(content)
    parent = content.pop("extends", None)
    base = _device(parent) if parent is not None else Tree({"device": {}})
    part = read(content, Device, "device", root=Chip, base=base.values["device"])
    return Tree({"device": part.values}, part.sources).over(base)


def device_names() -> list[str]:
    """Names of all devices that `device: …` in a hardware file may name."""
    return registry.known("devices")


def _apply(tree: Tree, overrides: Mapping[str, Any] | Iterable[str]) -> Tree:
    """Lay overrides over a tree, one after the other."""
    if isinstance(overrides, str):
        overrides = [overrides]
    pairs = overrides.items() if isinstance(overrides, Mapping) else [_split(text) for text in overrides]
    for path, value in pairs:
        raw: Any = value
        for part in reversed(path.split(".")):
            raw = {part: raw}
        tree = _lay(raw, tree, "set by the user")
    return tree


def _split(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise InputError("--set", text, "path=value, such as array.b_adc=6")
    try:
        return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return path.strip(), value.strip()
