"""The fields of every record that Crossloom writes, from the classes that write them."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from crossloom.codesign.config import RunConfig
from crossloom.codesign.record import Result
from crossloom.codesign.results import ResultsFile
from crossloom.cost import ComponentCost, CostReport, LayerCost, Programming
from crossloom.weave.store import RECORDS

TITLES = {
    RunConfig: "`config.yaml`",
    Result: "`result.json`",
    CostReport: "`result.json`: `cost`",
    ResultsFile: "`results/<paper>-<network>.json`",
}


def page() -> str:
    """All records."""
    lines = [
        "# Records, field by field",
        "",
        "The formats of the files themselves are in [File formats](formats.md). A record that is marked *version* is",
        "refused by a release that reads another version.",
        "",
    ]
    seen: set[type] = set()
    for model in (RunConfig, Result):
        lines += _model(model, seen)
    for record in (CostReport, LayerCost, ComponentCost, Programming):
        lines += _dataclass(record, TITLES.get(record, f"`{record.__name__}`"))
    lines += _model(ResultsFile, seen)
    lines += ["## Records of `chip.safetensors`", "", "Written as JSON objects with their class name in `record`.", ""]
    for name, record in RECORDS.items():
        lines += _dataclass(record, f"`{name}`", "###")
    return "\n".join(lines)


def _model(model: type[BaseModel], seen: set[type]) -> Iterator[str]:
    if model in seen:
        return
    seen.add(model)
    yield from (f"## {TITLES.get(model, f'`{model.__name__}`')}", "", _first(model), "")
    yield from ("| field | type | default | meaning |", "|---|---|---|---|")
    inner: list[type[BaseModel]] = []
    meanings = _literals(model)
    for name, info in model.model_fields.items():
        inner += [part for part in _parts(info.annotation) if part not in inner]
        default = "required" if info.is_required() else _value(info.get_default(call_default_factory=True))
        yield _row(f"`{name}`", _type(info.annotation), default, info.description or meanings.get(name, ""))
    yield ""
    for part in inner:
        yield from _model(part, seen)


def _literals(model: type) -> dict[str, str]:
    """The texts below the fields of a class that does not hand them to pydantic."""
    found = re.finditer(
        r'^    (\w+): [^\n]*(?:\n(?!    \w)[^\n]*)*?\n    """(.*?)"""', inspect.getsource(model), re.M | re.S
    )
    return {match[1]: " ".join(match[2].split()) for match in found}


def _parts(annotation: Any) -> list[type[BaseModel]]:
    """The models inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in get_args(annotation) for part in _parts(argument)]


def _dataclass(record: type, title: str, level: str = "##") -> Iterator[str]:
    yield from (f"{level} {title}", "", _first(record), "")
    meanings: dict[str, str] = {}
    for parent in reversed(record.__mro__):
        if dataclasses.is_dataclass(parent):
            meanings |= _attributes(parent) | _literals(parent)
    fields = [f for f in dataclasses.fields(record) if f.init]
    if not fields:
        return
    yield from ("| field | type | meaning |", "|---|---|---|")
    for field in fields:
        yield _row(f"`{field.name}`", _type(field.type), meanings.get(field.name, ""))
    yield ""


def _attributes(record: type) -> dict[str, str]:
    """The `Attributes:` section of a docstring by field; several names may share a line."""
    _, _, section = (inspect.getdoc(record) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        entry = re.match(r" {4}(\w[\w, ]*): (.*)", line)
        if entry:
            names = [name.strip() for name in entry[1].split(",")]
            found |= dict.fromkeys(names, entry[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


def _first(record: type) -> str:
    return " ".join((inspect.getdoc(record) or "").split("\n\n")[0].split())


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else str(annotation)
    if isinstance(annotation, type) and not get_args(annotation):
        text = annotation.__name__
    text = re.sub(r"typing\.|crossloom\.[\w.]*\.|Annotated\[|, FieldInfo\(.*?\)\]|pathlib\.", "", text)
    text = re.sub(r"(?:\w+)\[np\.ndarray, '([^']*)'\]", r"array [\1]", text.replace('"', "'"))
    return f"`{text}`"


def _value(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "as below"
    return "none" if value is None or value in ({}, []) else f"`{value}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
