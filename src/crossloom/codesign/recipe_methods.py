"""A recipe's methods, made for one network and one chip: options that follow from the chip or from a search."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from crossloom.codesign import budget as admm_budget
from crossloom.codesign import plan_search
from crossloom.codesign.progress import Tick, untold
from crossloom.codesign.recipe import Call, named
from crossloom.codesign.rename_rows import RenameRows, tables
from crossloom.errors import InputError
from crossloom.hardware import Chip
from crossloom.methods import Method, methods
from crossloom.methods.admm_budget import FORMATS, KEEPS, Setting
from crossloom.methods.cell_draws import ArrayCells
from crossloom.nn import woven_layers
from crossloom.weave import weight_code

SEARCH_BATCHES = 4
"""Calibration batches that a search measures harm on."""

Options = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What a method is fitted to.

    Attributes:
        network: converted and calibrated, as the steps before left it.
        chip: the hardware.
        batches: calibration images with labels.
        teacher: the float network.
        tick: told (done, total) of a search.
    """

    network: fx.GraphModule
    chip: Chip
    batches: Sequence[tuple[Tensor, Tensor]]
    teacher: nn.Module
    tick: Tick = untold

    @property
    def bits(self) -> int:
        """Of the widest weights."""
        return max(layer.weight_quantiser.bits for layer in woven_layers(self.network).values())


def known() -> dict[str, type[Method]]:
    """All methods that a recipe may name."""
    return {**methods(), RenameRows.name: RenameRows}


def resolved(call: Call, bench: Bench) -> Options:
    """Options as JSON values: layer names in place of `@first` and `@last`, searches done, the chip's array filled in.

    Raises:
        InputError: a budget that no plan meets, a budget for a method that has no search, or a chip that the method
            cannot know.
    """
    options: Options = named(call.options, list(woven_layers(bench.network)))
    if "budget" in options:
        limits, field = options.pop("budget"), f"{call.method}.budget"
        if not isinstance(limits, Mapping):
            raise InputError(field, limits, "a mapping such as {of: crossbars, saved: 0.3}")
        options |= SEARCHES[call.method](bench, dict(limits), options)
    takes = inspect.signature(known()[call.method]).parameters
    array = bench.chip.array
    if call.method == RenameRows.name and "tables" not in options:
        options = {"tables": tables(bench.network, bench.chip, bench.batches, **options)}
    if "cells" in takes:
        options["cells"] = asdict(ArrayCells.of(bench.chip)) | dict(options.get("cells") or {})
    if "rows" in takes and call.method != RenameRows.name:
        options.setdefault("rows", array.rows)
    if "columns" in takes:
        code = weight_code(array.encoding, bench.bits, array.b_cell, None)
        options.setdefault("columns", array.columns // code.columns)
    return options


def made(call: Call, options: Options, bench: Bench) -> Method:
    """The method.

    Raises:
        InputError: options that it does not take, or values out of range.
    """
    options = dict(options)
    if options.get("teacher") == "float":
        options["teacher"] = bench.teacher
    kind = known()[call.method]
    takes = inspect.signature(kind).parameters
    for name in options:
        if name not in takes and all(p.kind is not p.VAR_KEYWORD for p in takes.values()):
            raise InputError.choice(f"recipe.{call.method}", name, takes)
    for name, parameter in takes.items():
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if needed and name not in options:
            raise InputError(f"recipe.{call.method}.{name}", "absent", "a value: the method needs it")
    try:
        return kind(**options)
    except TypeError as error:
        raise InputError(f"recipe.{call.method}", options, f"options that it takes ({error})") from error


def approximated(bench: Bench, limits: Options, options: Options) -> Options:
    """`approximation: {budget: {of: crossbars, saved: 0.3}}`, or `loss:` in place of `saved:`."""
    of, saved, loss = limits.pop("of", "crossbars"), limits.pop("saved", None), limits.pop("loss", None)
    leftover("approximation.budget", limits, ("of", "saved", "loss"))
    found = plan_search.search(
        bench.network, bench.batches, bench.chip, objective=of, saved=saved, budget=loss, tick=bench.tick
    )
    return {"layers": found.method_options()}


def reachable(call: Call, bench: Bench) -> None:
    """Refuse a budget that no plan can meet on this network and chip; in seconds, where the search takes minutes.

    Raises:
        InputError: the budget is below the harshest plan's cost, which is said.
    """
    limits = dict(named(call.options, list(woven_layers(bench.network)))["budget"])
    of, saved, target = limits.get("of", "crossbars"), limits.get("saved"), limits.get("target")
    if call.method == "approximation" and of == "crossbars" and saved is not None:
        costs = plan_search.crossbar_costs(bench.network, bench.chip, plan_search.settings_of(bench.network))
        dense, least = (sum(pick(found) for found in costs.values()) for pick in (lambda c: c[0], min))
    elif call.method == "admm" and (saved is not None or target is not None):
        priced = admm_budget.oracle(bench.network, bench.chip, of)
        keep = min(limits.get("keeps", KEEPS))
        forms = limits.get("formats", FORMATS)
        harshest = min((Setting(keep, form) for form in forms), key=lambda s: s.bits).sets()
        dense, least = priced({}), priced(dict.fromkeys(woven_layers(bench.network), harshest))
    else:
        return
    wanted = float(target) if target is not None else dense * (1 - float(saved or 0.0))
    if least > wanted * (1 + 1e-9):
        share = math.floor(1000 * (1 - least / dense)) / 1000
        most = f"target: {least:.4g}" if target is not None else f"saved: {share:g}"
        given = f"target: {target}" if target is not None else f"saved: {saved}"
        raise InputError(f"{call.method}.budget", given, f"at most what the harshest plan reaches, {most}", most)


def constrained(bench: Bench, limits: Options, options: Options) -> Options:
    """`admm: {budget: {of: energy, target: 2e-9}}`, or `saved: 0.9` for `target:`; `formats: [as-is]` only prunes."""
    of, target, saved = limits.pop("of", "crossbars"), limits.pop("target", None), limits.pop("saved", None)
    grids = {name: limits.pop(name) for name in ("keeps", "formats") if name in limits}
    leftover("admm.budget", limits, ("of", "target", "saved", "keeps", "formats"))
    if (target is None) == (saved is None):
        raise InputError("admm.budget", {"target": target, "saved": saved}, "a target or a share saved, one of them")
    if saved is not None:
        target = (1 - saved) * admm_budget.oracle(bench.network, bench.chip, of)({})
    found = admm_budget.budget_of(bench.network, bench.batches, bench.chip, of, target, tick=bench.tick, **grids)
    return {"constraints": {name: [s.spec() for s in sets] for name, sets in found.sets.items()}}


SEARCHES: dict[str, Callable[[Bench, Options, Options], Options]] = {"approximation": approximated, "admm": constrained}


def leftover(field: str, given: Options, fields: Sequence[str]) -> None:
    """Refuse what no one asked for."""
    for name in given:
        raise InputError.choice(field, name, fields)


def labelled(loader: Any, batches: int = SEARCH_BATCHES) -> list[tuple[Tensor, Tensor]]:
    """The first batches of a loader of (images, labels)."""
    return [(x, torch.as_tensor(y)) for (x, y), _ in zip(loader, range(batches), strict=False)]
