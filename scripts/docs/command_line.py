"""The command line reference, from Typer's own records."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from crossloom.cli.app import app

EXIT_CODES = """Every command takes `--json`: one JSON object on standard output, progress on standard error.

| exit code | meaning |
|--:|---|
| 0 | done |
| 1 | failed |
| 2 | bad input: one line names the field, the value, what was expected and the nearest valid choice |
| 130 | interrupted; the same command goes on where it stopped |
"""


def page() -> str:
    """Every command that is not hidden."""
    lines = ["# Command line", "", EXIT_CODES]
    lines += _commands(typer.main.get_command(app), "crossloom")
    return "\n".join(lines)


def _commands(command: Any, path: str) -> Iterator[str]:
    for name, inner in getattr(command, "commands", {}).items():
        if inner.hidden:
            continue
        whole = f"{path} {name}"
        if hasattr(inner, "commands"):
            yield from _commands(inner, whole)
        else:
            yield from _command(inner, whole)


def _command(command: Any, path: str) -> Iterator[str]:
    words, examples = _help(command.help or "")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([path, "[OPTIONS]", *(_metavar(p) for p in arguments)])
    yield from (f"## `{path}`", "", *words, "", "```text", usage, "```", "")
    if examples:
        yield from ("```sh", *examples, "```", "")
    yield from ("| argument or option | value | meaning |", "|---|---|---|")
    for parameter in (*arguments, *options):
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if parameter in arguments:
            names = f"`{_metavar(parameter)}`"
        value = "" if parameter in arguments or getattr(parameter, "is_flag", False) else f"`{_metavar(parameter)}`"
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in (names, value, _meaning(parameter))) + " |"
    yield ""


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.human_readable_name.upper())


def _meaning(parameter: Any) -> str:
    variable = getattr(parameter, "envvar", None)
    text = (getattr(parameter, "help", None) or "") + (f" Environment variable `{variable}`." if variable else "")
    return " ".join(_plain(text).split())


def _plain(text: str) -> str:
    return re.sub(r"\[/?(?:dim|bold)\]", "", text)


def _help(text: str) -> tuple[list[str], list[str]]:
    """The paragraphs and the example commands of a help text."""
    main, _, examples = inspect.cleandoc(text).partition("[dim]")
    shown = [line.strip() for line in _plain(examples).splitlines() if line.strip()]
    return _plain(main).strip().splitlines(), shown
