"""Quantities as people read them: SI prefixes, three significant digits, thin spaces between thousands."""

from __future__ import annotations

import math

PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
AREAS = ((1e-6, "mm²"), (1e-12, "µm²"), (1e-18, "nm²"))
PREFIXED = ("m", "m^2", "s", "Hz", "V", "ohm", "S", "F", "J", "W")
"""Units of the hardware's figures that take a prefix."""
THIN = "\u202f"
"""Narrow no-break space, between thousands."""
MINUS = "−"


def digits(value: float, significant: int = 3) -> str:
    """A number of ordinary size with so many significant digits: 12.3, 1.20, 123, 1 234 (whole part never rounded)."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    places = significant - 1 - math.floor(math.log10(abs(value)))
    places = significant - 1 - math.floor(math.log10(abs(round(value, places))))  # 9.999 becomes 10.0, not 10.00
    text = f"{value:,.{max(places, 0)}f}"
    return text.replace(",", THIN).replace("-", MINUS)


def quantity(value: float, unit: str, like: float | None = None) -> tuple[str, str]:
    """(number, unit with prefix): `quantity(1.2e-8, "J")` is `("12.0", "nJ")`; `"m^2"` becomes mm², µm² or nm².

    Args:
        value: in SI units; one beyond the prefixes is written in the last of them.
        unit: its SI unit.
        like: another value whose prefix is used as well, so that a column is in one unit, unless this value is less
            than a hundredth of that unit.
    """
    factor, name = prefixed(like or value, unit) if like or value else (1.0, "mm²" if unit == "m^2" else unit)
    if value and abs(value) < 0.01 * factor:
        factor, name = prefixed(value, unit)
    return digits(value / factor), name


def prefixed(size: float, unit: str) -> tuple[float, str]:
    """(size in SI units, name) of the unit that a quantity is written in: `prefixed(1.2e-8, "J")` is (1e-9, "nJ")."""
    least = 0.01 if unit == "m^2" else 0.9995
    known = scales(unit)
    return next((s for s in known if abs(size) >= least * s[0]), known[-1])


def scales(unit: str) -> tuple[tuple[float, str], ...]:
    """(size in SI units, name) of a unit with every prefix, largest first."""
    if unit == "m^2":
        return AREAS
    return tuple((10.0**power, name + unit) for power, name in sorted(PREFIXES.items(), reverse=True))


def plain(value: object, unit: str) -> str:
    """A figure of the hardware with six significant digits: `plain(3.2e-8, "m")` is "32 nm"; text stays as it is."""
    if value is None or value == ():
        return "none"
    if isinstance(value, (tuple, list)):
        return ", ".join(plain(item, unit) for item in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if unit in PREFIXED and value:
        least = 0.01 if unit == "m^2" else 0.9995
        known = scales("Ω" if unit == "ohm" else unit)
        factor, name = next((s for s in known if abs(value) >= least * s[0]), known[-1])
        return f"{value / factor:.6g} {name}"
    return f"{value:.6g} {unit}".strip()


def count(value: float) -> str:
    """A whole number with thousands apart, or three significant digits of one that is not whole."""
    if float(value).is_integer():
        return f"{int(value):,}".replace(",", THIN).replace("-", MINUS)
    return digits(value)


def percent(fraction: float, places: int = 2) -> str:
    """A fraction in percent, without the sign: 0.9914 is 99.14."""
    return f"{100 * fraction:.{places}f}".replace("-", MINUS)


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign: +0.12, −0.30, ±0.00."""
    text = f"{abs(100 * difference):.2f}"
    return ("±" if text == "0.00" else "+" if difference > 0 else MINUS) + text


def spoken(name: str) -> str:
    """A name of the files for people: `adc_conversion` is `adc conversion`."""
    return name.replace("_", " ")


def ratio(value: float, base: float) -> str:
    """How many times the base: `ratio(2.0, 8.0)` is "0.250 ×"; empty where the base is 0."""
    return f"{digits(value / base)} ×" if base else ""


def padded(low: float, high: float, limits: tuple[float, float]) -> tuple[float, float]:
    """A range with a little air on both sides, inside `limits` where the data are."""
    span = (high - low) or abs(high) or 1.0
    bottom, top = low - 0.08 * span, high + 0.08 * span
    if low >= limits[0]:
        bottom = max(bottom, limits[0])
    if high <= limits[1]:
        top = min(top, limits[1])
    return bottom, top if top > bottom else bottom + 1.0


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers that lie within [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    scale = 10.0 ** math.floor(math.log10(span / wanted))
    step = min((scale * m for m in (1, 2, 5, 10)), key=lambda step: abs(math.log(span / step / wanted)))
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
