"""The Python reference, from signatures and docstrings of everything the rooms export."""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

ROOMS = (
    "crossloom", "crossloom.hardware", "crossloom.weave", "crossloom.nn", "crossloom.methods", "crossloom.training",
    "crossloom.frontend", "crossloom.mapping", "crossloom.simulate", "crossloom.cost", "crossloom.codesign",
    "crossloom.report",
)  # fmt: skip


def page() -> str:
    """Every room's exports, in the order in which rooms build on one another."""
    lines = [
        "# Python interface",
        "",
        "`import crossloom` has what most programs need; the rooms below have the rest. A room imports only from the",
        "rooms above it. Quantities are in SI units. Bad input raises `crossloom.InputError`, a `ValueError`.",
        "",
    ]
    for name in ROOMS:
        room = importlib.import_module(name)
        lines += [f"## {name}", "", *_text(room), ""]
        for member in sorted(room.__all__, key=lambda word: (word[0].islower(), word)):
            lines += _member(name, member, getattr(room, member))
    return "\n".join(lines)


def _member(room: str, name: str, thing: Any) -> Iterator[str]:
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    home = thing.__module__.rsplit(".", 1)[0] if room == "crossloom" else room
    if room == "crossloom" and home != "crossloom":
        yield from (f"- `{name}`: {_first(thing)} See [`{home}`](#{home.replace('.', '')}).", "")
        return
    yield from (f"### `{name}`", "", *_signature(name, thing), *_text(thing), "")
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            yield from _method(member, value)


def _method(name: str, value: Any) -> Iterator[str]:
    inner = getattr(value, "fget", None) or getattr(value, "__func__", None) or getattr(value, "func", None) or value
    if name.startswith("_") or not inspect.isfunction(inner) or not inner.__doc__ or name == "forward":
        return
    called = _call(inner) if inspect.isfunction(value) or isinstance(value, (staticmethod, classmethod)) else ""
    yield from (f"- `{name}{called}`: {_first(inner)}", "")


def _first(thing: Any) -> str:
    """The first paragraph of a docstring in one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _signature(name: str, thing: Any) -> list[str]:
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return []
    function = thing.__init__ if inspect.isclass(thing) else thing
    return ["```python", f"{name}{_call(function)}", "```", ""]


def _call(function: Any) -> str:
    """The parameters with their defaults; types are in the docstring."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "()"
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name not in ("self", "cls")]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    return re.sub(r"<(?:function|class|object|crossloom)[^>]*>", "…", re.sub(r" at 0x[0-9a-f]+", "", text))


def _text(thing: Any) -> list[str]:
    """A docstring as Markdown: headings of its sections in bold, their entries as a list."""
    found, inside = [], False
    for line in (inspect.getdoc(thing) or "").splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises|Returns):", line):
            found += ["", f"**{line[:-1]}**", ""]
            inside = True
        elif inside and (entry := re.match(r" {4}(\S[^:]*): (.*)", line)):
            found.append(f"- `{entry[1]}`: {entry[2]}")
        elif inside and line.startswith("    "):
            found.append(f"  {line.strip()}")
        else:
            inside = inside and not line.strip()
            found.append(line)
    return _fenced(found)


def _fenced(lines: list[str]) -> list[str]:
    """Indented blocks outside lists, and doctests, as code."""
    found: list[str] = []
    code = False
    for line in lines:
        wants = line.startswith("    ") or line.startswith(">>> ") or (code and bool(line.strip()))
        if wants != code:
            found.append("```" + ("text" if wants else ""))
            code = wants
        found.append(line[4:] if line.startswith("    ") else line)
    return found + (["```"] if code else [])
