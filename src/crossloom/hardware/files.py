"""Hardware files: YAML text to plain SI values beside their sources, and pydantic's complaints to one clear error.

A leaf is a plain number in SI or `{value: 6, unit: kohm, source: "…"}`. A key `source` in a section is the source
of every leaf below it that has none of its own. Everything is checked against the schema as it is read, so that
an error names the field as it stands in the file.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from crossloom.errors import InputError
from crossloom.hardware.schema import Invalid, Record
from crossloom.hardware.units import COUNTS, split_quantity, to_si


@dataclass
class Tree:
    """Values of a record (nested dictionaries of plain SI values) and the source of each leaf by dotted path."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def over(self, base: Tree) -> Tree:
        """This tree's leaves on top of `base`'s; a section that names another `model` replaces the whole section."""
        merged = Tree(dict(base.values), dict(base.sources))
        _merge(merged, self.values, (), merged.values)
        merged.sources.update(self.sources)
        return merged

    def drop(self, path: str) -> None:
        """Forget the sources at and below a path."""
        self.sources = {k: v for k, v in self.sources.items() if k != path and not k.startswith(path + ".")}


def _merge(tree: Tree, new: Mapping[str, Any], path: tuple[str, ...], into: dict[str, Any]) -> None:
    for key, value in new.items():
        old = into.get(key)
        if (
            isinstance(value, dict)
            and isinstance(old, dict)
            and value.get("model", old.get("model")) == old.get("model")
        ):
            into[key] = dict(old)
            _merge(tree, value, (*path, key), into[key])
        else:
            tree.drop(".".join((*path, key)))
            into[key] = value


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times as fast, where it was built


class _Loader(_Base):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, each key once."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} given twice", key_node.start_mark)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def parse(text: str, where: str) -> dict[str, Any]:
    """The mapping that a YAML text holds.

    Raises:
        InputError: malformed YAML, a key given twice, or no mapping at the top.
    """
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)
        raise InputError(where, at, "a well-formed YAML file") from error
    if not isinstance(content, dict):
        raise InputError(where, type(content).__name__, "a YAML file with sections such as device and array")
    return content


def records_of(annotation: Any) -> tuple[type[Record], ...]:
    """The record types that a field may hold (several for a union told apart by `model`)."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return (annotation,)
    if get_origin(annotation) is dict:
        return ()
    return tuple(r for inner in get_args(annotation) for r in records_of(inner))


def entry_record(annotation: Any) -> type[Record] | None:
    """The record type of a dictionary field's entries."""
    if get_origin(annotation) is dict:
        found = records_of(get_args(annotation)[1])
        return found[0] if found else None
    return None


def tag(record: type[Record]) -> str:
    """The `model` word of one member of a union."""
    return str(get_args(record.model_fields["model"].annotation)[0])


def unit_of(info: FieldInfo) -> str:
    """The SI unit of a field."""
    extra = info.json_schema_extra
    return str(extra.get("unit", "1")) if isinstance(extra, dict) else "1"


def leaves(record: type[Record], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf field below a record type with its dotted path, all members of a union included."""
    for name, info in record.model_fields.items():
        here = f"{path}.{name}" if path else name
        inner = records_of(info.annotation)
        if inner:
            for member in inner:
                yield from leaves(member, here)
        elif entry := entry_record(info.annotation):
            yield from leaves(entry, f"{here}.*")
        else:
            yield here, info


def unknown_field(root: type[Record], record: type[Record], path: str, key: str) -> InputError:
    """The error for a field that does not exist, with the nearest one that does."""
    here = f"{path}.{key}" if path else key
    siblings = [f"{path}.{name}" if path else name for name in record.model_fields]
    close = difflib.get_close_matches(here, siblings, n=1, cutoff=0.75)
    if not close:
        by_leaf = [p for p, _ in leaves(root) if p.rsplit(".", 1)[-1] == key]
        every = sorted({p for p, _ in leaves(root)})
        close = by_leaf or difflib.get_close_matches(here, every, n=1, cutoff=0.6)
        close = close or difflib.get_close_matches(here, siblings, n=1, cutoff=0.4)
    return InputError(here, "an unknown field", f"one of {', '.join(record.model_fields)}", close[0] if close else None)


def read(
    raw: Any, record: type[Record], path: str = "", source: str = "", base: Any = None, root: type[Record] | None = None
) -> Tree:
    """Check a raw section against a record type and convert every figure to SI.

    Args:
        raw: what the YAML holds.
        record: the schema of this section.
        path: dotted path of the section.
        source: source of leaves that give none.
        base: plain values that the section will be laid over (it tells which member of a union is meant).
        root: the schema of the whole file, for suggestions.

    Raises:
        InputError: an unknown field, a wrong unit, or a section that is no mapping.
    """
    root = root or record
    if not isinstance(raw, Mapping):
        raise InputError(
            path or "file", raw, f"a section with fields such as {', '.join(list(record.model_fields)[:3])}"
        )
    tree = Tree()
    own_source = "source" in record.model_fields
    source = _text(raw.get("source"), f"{path}.source") or source
    for key, value in raw.items():
        here = f"{path}.{key}" if path else str(key)
        if key == "source" and not own_source:
            continue
        info = record.model_fields.get(str(key))
        if info is None:
            raise unknown_field(root, record, path, str(key))
        below = base.get(key) if isinstance(base, Mapping) else None
        if inner := records_of(info.annotation):
            part = read(value, _member(inner, value, below, here), here, source, below, root)
            tree.values[key] = part.values
            tree.sources |= part.sources
        elif entry := entry_record(info.annotation):
            if not isinstance(value, Mapping):
                raise InputError(here, value, "a section of named entries")
            tree.values[key] = {}
            for name, content in value.items():
                at = f"{here}.{name}"
                part = read(content, entry, at, source, None, root)
                tree.values[key][str(name)] = part.values
                tree.sources |= part.sources
        else:
            tree.values[key], given = _leaf(value, info, here)
            if given or source:
                tree.sources[here] = given or source
    return tree


def _member(inner: tuple[type[Record], ...], raw: Any, base: Any, path: str) -> type[Record]:
    if len(inner) == 1:
        return inner[0]
    models = {tag(record): record for record in inner}
    word = raw.get("model") if isinstance(raw, Mapping) else None
    if isinstance(word, Mapping):
        word = word.get("value")
    if word is None and isinstance(base, Mapping):
        word = base.get("model")
    if not isinstance(word, str) or word not in models:
        raise InputError.choice(f"{path}.model", word, models)
    return models[str(word)]


def _text(value: Any, path: str) -> str:
    if value is not None and not isinstance(value, str):
        raise InputError(path, value, "a text that says where the figure comes from")
    return value or ""


def _leaf(raw: Any, info: FieldInfo, path: str) -> tuple[Any, str]:
    """(plain value, source) of one leaf."""
    unit, source, value = None, "", raw
    if isinstance(raw, Mapping):
        for key in raw:
            if key not in ("value", "unit", "source"):
                raise InputError.choice(f"{path}.{key}", key, ("value", "unit", "source"))
        if "value" not in raw:
            raise InputError(path, dict(raw), "a number, or {value: …, unit: …, source: …}")
        value, unit, source = raw["value"], raw.get("unit"), _text(raw.get("source"), f"{path}.source")
        if unit is not None and not isinstance(unit, str):
            raise InputError(f"{path}.unit", unit, "the name of a unit")
    if not is_number(info.annotation):
        if unit is not None:
            raise InputError(f"{path}.unit", unit, "no unit: this field is no number")
        return value, source
    if isinstance(value, str) and value in words_of(info.annotation):
        return value, source
    many = isinstance(value, list | tuple)
    numbers = [_number(v, unit, unit_of(info), path) for v in (value if many else [value])]
    return (numbers if many else numbers[0]), source


def is_number(annotation: Any) -> bool:
    """True if a field holds a number, or several."""
    if annotation in (int, float):
        return True
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return any(is_number(inner) for inner in get_args(annotation))
    return False


def words_of(annotation: Any) -> tuple[str, ...]:
    """The words that a field accepts."""
    if get_origin(annotation) is Literal:
        return tuple(str(word) for word in get_args(annotation))
    return tuple(word for inner in get_args(annotation) for word in words_of(inner))


def _number(value: Any, unit: str | None, expected: str, path: str) -> Any:
    if value is None:
        return None
    if isinstance(value, bool):
        raise InputError(path, value, "a number")
    if isinstance(value, str):
        try:
            value = float(value)  # YAML 1.1 reads 1e-9, without a point, as text
        except ValueError as error:
            quantity = split_quantity(value)
            if quantity is None:
                raise InputError(
                    path, value, "a number" if expected in COUNTS else f"a number in {expected}"
                ) from error
            if unit is not None:
                raise InputError(path, value, "one unit, not two") from error
            value, unit = quantity
    if not isinstance(value, int | float):
        raise InputError(path, value, "a number")
    return value if unit is None else to_si(value, unit, expected, path)


def validate[R: Record](record: type[R], values: Mapping[str, Any]) -> R:
    """Build a record from plain values.

    Raises:
        InputError: the first thing that is wrong, by dotted path.
    """
    try:
        return record.model_validate(values)
    except ValidationError as error:
        raise _complaint(record, error.errors(include_url=False)[0]) from error


def _complaint(record: type[Record], error: Mapping[str, Any]) -> InputError:
    path, info = _schema_path(record, error["loc"])
    context = error.get("ctx", {})
    broken = context.get("error")
    if isinstance(broken, Invalid):
        where = f"{path}.{broken.field}" if path else broken.field
        return InputError(where, broken.value, broken.expected, None if broken.nearest is None else str(broken.nearest))
    value = error.get("input")
    kind = str(error["type"])
    if kind == "missing":
        help_text = (info.description or "").rstrip(".") if info is not None else "a section"
        unit = unit_of(info) if info is not None else "1"
        return InputError(path, None, f"a value{'' if unit == '1' else f' in {unit}'} ({help_text})")
    if kind == "extra_forbidden":
        parent, _, key = path.rpartition(".")
        return unknown_field(record, _record_at(record, parent), parent, key)
    if info is not None and not is_number(info.annotation) and (words := words_of(info.annotation)):
        return InputError.choice(path, value, words)
    expected = (
        str(error["msg"]).replace("Input should be ", "").replace("a valid ", "a ").replace("a integer", "an integer")
    )
    limit: Any = next((context[k] for k in ("ge", "le") if k in context), None)
    if any(k in context for k in ("ge", "le", "gt", "lt")):
        expected = "a number " + expected
    return InputError(path, value, expected, None if limit is None else str(limit))


def _schema_path(record: type[Record], loc: tuple[int | str, ...]) -> tuple[str, FieldInfo | None]:
    """The dotted path of a pydantic location, without the tags of unions, and the field it ends at."""
    parts: list[str] = []
    candidates: tuple[type[Record], ...] = (record,)
    info: FieldInfo | None = None
    entries = False
    for position, part in enumerate(loc):
        owner = next((r for r in candidates if part in r.model_fields), None)
        if entries:
            parts.append(str(part))
            entries = False
        elif owner is not None:
            info = owner.model_fields[str(part)]
            parts.append(str(part))
            entry = entry_record(info.annotation)
            entries = entry is not None
            candidates = (entry,) if entry else records_of(info.annotation)
        elif len(candidates) > 1 and part in {tag(r) for r in candidates}:
            candidates = tuple(r for r in candidates if tag(r) == part)
        elif isinstance(part, str) and position == len(loc) - 1:
            parts.append(part)
            info = None
    return ".".join(parts), info


def _record_at(record: type[Record], path: str) -> type[Record]:
    for part in filter(None, path.split(".")):
        info = record.model_fields.get(part)
        inner = records_of(info.annotation) if info is not None else ()
        record = inner[0] if inner else record
    return record
