"""Options by layer: the value that the first matching name pattern gives, and records from plain fields."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from crossloom.errors import InputError


def by_pattern[T](field: str, values: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """The value of every name that a pattern (`conv*`, `layer3.[12]*`) matches, in the order of the names.

    Args:
        field: what the patterns belong to, for errors.
        values: value by pattern; of several that match a name the first counts.
        names: of the layers.

    Raises:
        InputError: a pattern that matches no name; the nearest is suggested.
    """
    known = list(names)
    for pattern in values:
        if not fnmatch.filter(known, pattern):
            raise InputError.choice(field, pattern, known)
    found = {}
    for name in known:
        first = next((p for p in values if fnmatch.fnmatch(name, p)), None)
        if first is not None:
            found[name] = values[first]
    return found


def record[M: BaseModel](model: type[M], field: str, given: M | Mapping[str, Any]) -> M:
    """A record, given as it is or by its fields.

    Raises:
        InputError: an unknown field (the nearest is suggested), or a value that does not fit.
    """
    if isinstance(given, model):
        return given
    content = dict(given)
    for name in content:
        if name not in model.model_fields:
            raise InputError.choice(field, name, model.model_fields)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{field}.{first['loc'][0]}", first["input"], first["msg"]) from error
