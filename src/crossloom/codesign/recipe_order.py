"""Which orders of steps cannot work, and why. What depends on the network and the chip, the rehearsal finds."""

from __future__ import annotations

from crossloom.codesign.passes import PASSES
from crossloom.codesign.recipe import MapStep, Recipe
from crossloom.codesign.recipe_methods import SEARCHES, known
from crossloom.errors import InputError

ORDER = {"compact": 0, "rename": 1, "repeat": 2, "reorder": 3, "place": 4}
"""Passes that undo an earlier one of a higher number: renaming makes one row of copies and gives rows a new order,
compacting renumbers them."""


def check_order(recipe: Recipe) -> None:
    """Refuse an order that cannot work.

    Raises:
        InputError: an unknown method or pass, a name that is given twice, or a step where it cannot stand.
    """
    methods, names = known(), [step.name for step in recipe.steps]
    pruned = cored = quantised = mapped = None
    for index, step in enumerate(recipe.steps):
        where = f"recipe.steps.{index}"
        if step.name in names[:index]:
            raise InputError(f"{where}.name", step.name, "a name of its own: another step has it")
        if isinstance(step, MapStep):
            if step.map not in PASSES:
                raise InputError.choice(f"{where}.map", step.map, PASSES)
            if mapped is not None and ORDER[step.map] < ORDER[mapped.map]:
                raise InputError(
                    f"{where}.map", step.map, f"a pass that may follow {mapped.map}: it would undo what "
                    f"{mapped.name!r} did with the rows; put it before",
                )  # fmt: skip
            mapped = step
            continue
        if mapped is not None:
            raise InputError(
                where, step.name, f"no training behind the mapping step {mapped.name!r}, which rewrites the integer "
                "program: its weights could no longer be trained; put training steps first",
            )  # fmt: skip
        for place, call in enumerate(step.methods):
            at = f"{where}.methods.{place}"
            if call.method not in methods:
                raise InputError.choice(at, call.method, methods)
            kind = methods[call.method]
            if "budget" in call.options and call.method not in SEARCHES:
                expected = f"no budget: only {' and '.join(SEARCHES)} have a search"
                raise InputError(f"{at}.{call.method}.budget", call.options["budget"], expected)
            if call.method in [other.method for other in step.methods[:place]]:
                raise InputError(at, call.method, "a method once a step; a second time is a step of its own")
            if kind.recores and pruned is not None and not kind.keeps_zeros:
                raise InputError(
                    at, call.method, f"a place before {pruned!r}: new cores would fill in the zeros that it leaves"
                )
            if kind.recores and cored is not None and not kind.keeps_zeros:
                raise InputError(at, call.method, f"a place before {cored!r}, which gives the layers cores already")
            if kind.requantises and quantised is not None:
                raise InputError(at, call.method, f"no {quantised!r} before it: what that set would be replaced")
            pruned = call.method if kind.prunes else pruned
            cored = call.method if kind.recores else cored
            quantised = call.method if kind.requantises else quantised
