"""One way to say that an input is wrong: the field, the value, what was expected, the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Something the user gave cannot be used. The command line prints it and exits with code 2.

    Attributes:
        field: dotted name of what is wrong, as the user would write it (`array.b_adc`).
        value: what was given.
        expected: what would have been right, in words.
        nearest: the closest valid choice, if one is close.
    """

    def __init__(self, field: str, value: Any, expected: str, nearest: str | None = None) -> None:
        self.field, self.value, self.expected, self.nearest = field, value, expected, nearest
        hint = f" (did you mean {nearest!r}?)" if nearest else ""
        super().__init__(f"{field}: got {value!r}; expected {expected}{hint}")

    @classmethod
    def choice(cls, field: str, value: Any, choices: Iterable[str]) -> InputError:
        """The error for a value that is not among `choices`, with the closest one suggested."""
        known = sorted(choices)
        close = difflib.get_close_matches(str(value), known, n=1, cutoff=0.4)
        return cls(field, value, f"one of {', '.join(known)}", close[0] if close else None)
