"""What an exception means to the user: one line, and an exit code."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Any

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not grow that large here",
}
FULL_WORDS = re.compile(
    r"no space left on device|storagefull|quota exceeded|filetoolarge|file too large"
    r"|pytorchstreamwriter failed|inline_container\.cc.*unexpected pos",
    re.IGNORECASE | re.DOTALL,
)
"""How torch's and safetensors' own writers say that a write failed; torch does not say why."""


@dataclass(frozen=True)
class Explanation:
    """An error for people and programs.

    Attributes:
        code: exit code.
        kind: "bad input", "failed" or "interrupted".
        message: one line.
        field, value, expected, nearest: of a bad input, as far as known.
    """

    code: int
    kind: str
    message: str
    field: str | None = None
    value: Any = None
    expected: str | None = None
    nearest: str | None = None

    def record(self) -> dict[str, Any]:
        """For `--json`."""
        value = self.value if self.value is None or isinstance(self.value, (bool, int, float, str)) else str(self.value)
        if isinstance(value, float) and value - value != 0:  # NaN and infinities are no JSON
            value = str(value)
        return {
            "error": {
                "kind": self.kind, "exit_code": self.code, "message": self.message, "field": self.field,
                "value": value, "expected": self.expected, "nearest": self.nearest,
            }
        }  # fmt: skip


def explain(error: BaseException) -> Explanation:
    """The meaning of an exception."""
    from pydantic import ValidationError

    from crossloom.errors import InputError

    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return Explanation(INTERRUPTED, "interrupted", "interrupted; the same command goes on from here")
    if isinstance(error, ValidationError):
        from crossloom.codesign.config import explained

        error = explained(error, type("Input", (), {"model_fields": {}}))
    if isinstance(error, InputError):
        nearest = str(error.nearest) if error.nearest is not None else None
        return Explanation(
            BAD_INPUT, "bad input", line(str(error)), error.field, error.value, line(error.expected), nearest
        )
    if full := out_of_space(error):
        return Explanation(BAD_INPUT, "bad input", full, "disk", getattr(error, "filename", None), "free space")
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        name = None if error.filename is None else str(error.filename)
        return Explanation(BAD_INPUT, "bad input", line(f"{name}: {what}" if name else what), "file", name, what)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the parser's own complaints
        return usage(error)
    if isinstance(error, (FloatingPointError, MemoryError)):
        return Explanation(FAILED, "failed", line(str(error)) or "not enough memory")
    text = line(str(error))
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return Explanation(FAILED, "failed", f"{told} (a fault of crossloom's; --verbose shows where)")


def usage(error: Any) -> Explanation:
    """The explanation of a wrong command line."""
    parameter = getattr(error, "param", None)
    options = getattr(parameter, "opts", None) or [getattr(error, "option_name", None)]
    message = line(error.format_message())
    context = getattr(error, "ctx", None)
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    return Explanation(BAD_INPUT, "bad input", message + hint, options[-1], None, message)


def out_of_space(error: BaseException) -> str | None:
    """What to say if an exception, or what caused it, is a write that found no space."""
    seen: BaseException | None = error
    while seen is not None:
        number = seen.errno if isinstance(seen, OSError) else None
        if number in FULL or (number is None and FULL_WORDS.search(str(seen))):
            name = getattr(seen, "filename", None)
            where = f"cannot write {name}: " if name else "cannot write: "
            reason = "the disk is full or failing" if number is None else FULL[number]
            return f"{where}{reason}; nothing half-written was left"
        seen = seen.__cause__ or seen.__context__
    return None


def line(text: str) -> str:
    """Any text as one line."""
    return " ".join(text.split())
