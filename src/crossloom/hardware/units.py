"""Physical units: every figure in a hardware file becomes a plain number in SI."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

from crossloom.errors import InputError

COUNTS = frozenset({"1", "bit", "F^2", "LSB", "cycle", "array", "row", "column"})
"""Units of pure numbers. A figure in one of them is written plainly, or with the same word as its unit."""

QUANTITY = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s].*)$")
"""A number followed by its unit, as one may write on a command line: `6 kohm`."""


@cache
def _registry() -> Any:
    import pint

    return pint.UnitRegistry()


def to_si(value: float, unit: str, expected: str, field: str) -> float:
    """`value` in `unit`, converted to the SI unit `expected`.

    Args:
        value: the number as written.
        unit: the unit as written, in Pint's language (`kohm`, `um^2`, `degC`, `percent`).
        expected: the unit of the field, an SI unit or one of `COUNTS`.
        field: dotted name for the error.

    Raises:
        InputError: an unknown unit, or one of another dimension.
    """
    if unit == expected:
        return value
    import pint

    written = f"{value} {unit}"
    if expected in COUNTS and expected != "1":
        raise InputError(field, written, f"a plain number of unit {expected!r}")
    try:
        registry = _registry()
        converted = registry.Quantity(value, unit).to("dimensionless" if expected == "1" else expected).magnitude
    except pint.DimensionalityError as error:
        wanted = "a number without unit" if expected == "1" else f"a unit of {expected}"
        raise InputError(f"{field}.unit", unit, f"{wanted}, such as {_example(expected)}") from error
    except (pint.UndefinedUnitError, pint.errors.DefinitionSyntaxError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{field}.unit", unit, f"a known unit of {expected}, such as {_example(expected)}") from error
    # Two roundings of a decimal factor would make 6 kohm and 6000 ohm differ in the last bit, and with it the hash.
    return float(f"{float(converted):.14g}") if math.isfinite(converted) else float(converted)


def _example(expected: str) -> str:
    return {
        "ohm": "kohm",
        "s": "ns",
        "m": "nm",
        "m^2": "um^2",
        "J": "pJ",
        "W": "mW",
        "Hz": "MHz",
        "V": "mV",
        "S": "uS",
        "K": "degC",
        "F": "fF",
        "1": "percent",
    }.get(expected, expected)


def split_quantity(text: str) -> tuple[float, str] | None:
    """(number, unit) of a text such as `6 kohm`, or None if it is not of that form."""
    match = QUANTITY.match(text)
    return (float(match[1]), match[2].strip()) if match else None
