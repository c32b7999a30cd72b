"""Printing: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossloom.cli import errors

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 118
"""Columns of a table where standard output is no terminal."""


@dataclass(frozen=True)
class Output:
    """What a command came to.

    Attributes:
        record: for `--json`.
        view: makes what people read.
    """

    record: dict[str, Any]
    view: Callable[[], RenderableType]


@dataclass(frozen=True)
class Flags:
    """How to talk: the options that every command has."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False


def flags(arguments: Sequence[str]) -> Flags:
    """The flags of a command line, read before it is parsed so that complaints about it obey them."""
    own = arguments[: list(arguments).index("--")] if "--" in arguments else arguments
    return Flags("--json" in own, bool({"--quiet", "-q"} & set(own)), bool({"--verbose", "-v"} & set(own)))


def log_to_stderr(quiet: bool, verbose: bool) -> None:
    """One line a remark; other packages' warnings only if `verbose`."""
    level = logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s: %(message)s", force=True)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbose else logging.ERROR)


def present(made: Output, how: Flags) -> None:
    """Print a result."""
    if how.json:
        print(json.dumps(made.record, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH).print(made.view())
    sys.stdout.flush()


def interrupted(how: Flags) -> int:
    """Say that Ctrl-C was heard."""
    return fail(KeyboardInterrupt(), how)


def fail(error: BaseException, how: Flags) -> int:
    """Print an error and give the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError):  # the reader has gone, as `| head` does: nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.FAILED
    told = errors.explain(error)
    if how.verbose and told.code != errors.INTERRUPTED:
        traceback.print_exception(error, file=sys.stderr)
    print(f"{'interrupted' if told.code == errors.INTERRUPTED else 'error'}: {said(told)}", file=sys.stderr)
    if how.json:
        try:
            print(json.dumps(told.record(), ensure_ascii=False), flush=True)
        except OSError:  # standard output itself is what failed; standard error has told it
            _drop_stdout()
    else:
        _drop_stdout()
    return told.code


def said(told: errors.Explanation) -> str:
    """The message, without saying "interrupted" twice."""
    return told.message.removeprefix("interrupted; ")


def _drop_stdout() -> None:
    """Flush standard output; where that fails, forget what it holds, or Python would complain again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
