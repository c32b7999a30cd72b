"""What `crossloom hardware show` prints and the hardware file reference, both from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from crossloom.hardware.components import ACTION_HELP, Component, Family
from crossloom.hardware.files import entry_record, is_number, records_of, tag, unit_of, words_of
from crossloom.hardware.schema import VERSION, Calibration, Chip, Record


class Row(NamedTuple):
    """One figure of a chip."""

    path: str
    value: Any
    unit: str
    source: str
    help: str


def describe(chip: Chip) -> list[Row]:
    """Every figure of a chip in the schema's order: dotted path, SI value, unit, source, meaning.

    The source is empty for a figure that a user's file gives without one. Published checks come last.
    """
    return list(_rows(chip, "", dict(chip.sources)))


def _rows(record: Record, path: str, sources: dict[str, str]) -> Iterator[Row]:
    for name, info in type(record).model_fields.items():
        here, value = f"{path}.{name}" if path else name, getattr(record, name)
        if isinstance(value, Record):
            yield from _rows(value, here, sources)
        elif isinstance(value, dict):
            for key, entry in value.items():
                if isinstance(entry, Calibration):
                    yield from _factors(f"{here}.{key}", entry)
                    continue
                help_text = f"Published figure, {entry.condition}" if entry.condition else "Published figure"
                yield Row(f"{here}.{key}", entry.value, entry.unit, entry.source, help_text)
        else:
            unit = unit_of(info)
            yield Row(here, value, "" if unit == "1" else unit, sources.get(here, ""), info.description or "")


def _factors(path: str, entry: Calibration) -> Iterator[Row]:
    """The fitted factors of one part that are not 1."""
    for quantity, info in Calibration.model_fields.items():
        value = getattr(entry, quantity)
        if quantity != "source" and value != 1.0:
            yield Row(f"{path}.{quantity}", value, "", entry.source, info.description or "")


def schema_reference() -> str:
    """The hardware file reference as Markdown, generated from the schema."""
    lines = [
        "# Hardware files",
        "",
        f"Format version {VERSION}. A chip is one YAML file. A leaf is a plain number in SI units, or",
        '`{value: 6, unit: kohm, source: "…"}`; units are converted and checked. A `source` in a section holds for',
        "every leaf below it that has none of its own. `extends: <chip>` starts from another chip (a name, or a path",
        "beside the file); `device: <name>` and `components: <name>` take a whole device or component family.",
        "",
    ]
    for title, record in (("Chip", Chip), ("Component family", Family)):
        lines += [f"## {title}", "", _summary(record), ""]
        lines += list(_sections(record, ""))
    lines += ["## Actions", "", "| action | one of it is |", "|---|---|"]
    lines += [f"| `{action}` | {text} |" for action, text in ACTION_HELP.items()]
    return "\n".join(lines) + "\n"


def _summary(record: type[Record]) -> str:
    return (record.__doc__ or "").strip().split("\n\n")[0]


def _sections(record: type[Record], path: str) -> Iterator[str]:
    """A table of a record's own leaves, then one section for each record below it."""
    leaves, below = [], []
    for name, info in record.model_fields.items():
        here = f"{path}.{name}" if path else name
        inner = records_of(info.annotation)
        entry = entry_record(info.annotation)
        if inner or entry:
            members = inner or ((entry,) if entry else ())
            below += [(f"{here}.*" if entry else here, member, len(members) > 1) for member in members]
        else:
            leaves.append(_line(name, info))
    if leaves:
        yield from ("| field | unit | range | default | typical | meaning | source |", "|---|---|---|---|---|---|---|")
        yield from leaves
        yield ""
    for here, member, one_of in below:
        yield f"### `{here}`" + (f", model `{tag(member)}`" if one_of else "")
        yield from ("", _summary(member), "")
        yield from _sections(member, here)


def _line(name: str, info: FieldInfo) -> str:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    unit = unit_of(info)
    default = "required" if info.is_required() else _plain(info.get_default(call_default_factory=True))
    cells = (
        f"`{name}`",
        "" if unit == "1" else unit,
        _range(info),
        default,
        str(extra.get("typical", "")),
        (info.description or "").replace("\n", " "),
        str(extra.get("source", "")),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(value: Any) -> str:
    return "none" if value is None or value == () or value == "" else str(value).lower() if value is not ... else ""


def _range(info: FieldInfo) -> str:
    """The limits of a field in words."""
    if words := words_of(info.annotation):
        return ", ".join(words)
    signs = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
    limits = [f"{sign} {getattr(m, key):g}" for m in info.metadata for key, sign in signs if hasattr(m, key)]
    if limits:
        return ", ".join(limits)
    if info.annotation is bool:
        return "true, false"
    return "" if is_number(info.annotation) or get_origin(info.annotation) or get_args(info.annotation) else "text"


def describe_components(parts: dict[str, Component]) -> list[Row]:
    """Energy, area, latency and leakage of every part, one row each, with the part's source."""
    rows = []
    for name, part in parts.items():
        for quantity in ("energy", "area", "latency", "leakage"):
            info = Component.model_fields[quantity]
            help_text = info.description or ""
            rows.append(Row(f"{name}.{quantity}", getattr(part, quantity), unit_of(info), part.source, help_text))
    return rows
