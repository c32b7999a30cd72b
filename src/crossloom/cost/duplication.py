"""Copies of the slow layers, as many as an area allows."""

from __future__ import annotations

import math

from crossloom.cost.estimate import estimate
from crossloom.errors import InputError
from crossloom.hardware import Chip
from crossloom.mapping import balanced_duplication, map_program
from crossloom.weave import Program


def duplication_for_area(program: Program, chip: Chip, area: float) -> dict[str, int]:
    """Copies per layer that make the slowest layer fastest within an area.

    `balanced_duplication` is the best use of a number of arrays; the largest number whose chip still fits is found by
    bisection.

    Args:
        program: the program.
        chip: the hardware.
        area: of all that is allocated (`CostReport.area_m2`), m².

    Raises:
        InputError: one copy of every layer does not fit.
    """

    def size(copies: dict[str, int]) -> float:
        try:
            return estimate(map_program(program, chip, copies)).area_m2
        except InputError as error:
            if error.field == "hierarchy.tiles":  # a chip of fixed size is full
                return math.inf
            raise

    single = map_program(program, chip)
    least = estimate(single).area_m2
    if least > area:
        raise InputError("area", area, f"at least {least:.4g} m², one copy of every layer")
    fits, best = single.crossbars, dict.fromkeys(single.layers, 1)
    beyond = 2 * fits
    while True:
        copies = balanced_duplication(program, chip, beyond)
        if size(copies) > area:
            break
        if copies == best:  # every position has its own copy
            return best
        fits, best, beyond = beyond, copies, 2 * beyond
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        copies = balanced_duplication(program, chip, middle)
        if size(copies) <= area:
            fits, best = middle, copies
        else:
            beyond = middle
    return best
