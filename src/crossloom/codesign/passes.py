"""Mapping passes by the names that recipes give them: each rewrites the integer program and keeps its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from crossloom.errors import InputError
from crossloom.hardware import Chip
from crossloom.mapping import idle_rows, map_program, packed, rename, reorder
from crossloom.mapping.blocks import cut
from crossloom.mapping.fault_placement import damage, filled, place_all
from crossloom.mapping.read_objectives import Objective
from crossloom.methods.patterns import by_pattern
from crossloom.simulate import ReadNoise
from crossloom.simulate.analog_chip import AnalogChip
from crossloom.simulate.compensation import stuck_cells
from crossloom.simulate.observe import input_vectors
from crossloom.weave import Program, WovenLayer
from crossloom.weave.compaction import compacted

VECTORS = 2048
"""Input vectors of a layer that a pass looks at."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """Where a pass is done.

    Attributes:
        program: the integer program.
        chip: the hardware.
        images: calibration images.
        rehearsal: only what is refused matters: searches are cut short.
    """

    program: Program
    chip: Chip
    images: Tensor
    rehearsal: bool = False


def compact(site: Site) -> tuple[Program, Figures]:
    """Rows and columns of zeros leave the cores."""
    made = compacted(site.program)
    before = {layer.name: layer.core.shape[1:] for layer in site.program.layers}
    changed = {
        layer.name: {"rows": layer.core.shape[1], "columns": layer.core.shape[2]}
        for layer in made.layers
        if layer.core.shape[1:] != before[layer.name]
    }
    return made, {"layers": changed}


def renamed(
    site: Site, layers: Sequence[str] = ("*",), complement: bool = False, access: rename.Access = "summed",
    saves: Literal["arrays", "rows"] = "arrays",
) -> tuple[Program, Figures]:  # fmt: skip
    """Equal rows are stored once, in layers where that pays.

    Args:
        site: where.
        layers: patterns of names.
        complement: a row may be stored as another one's negative.
        access: how inputs that share a row reach it.
        saves: what a layer must save to be renamed: sums of inputs have more digits, and the table has a price, so
            that fewer rows in as many arrays cost energy and time.

    Raises:
        InputError: a pattern without a layer, or what `rename.exact` raises.
    """
    wanted = matching("rename.layers", layers, site.program)
    _, done = rename.program(site.program, layers=wanted, complement=complement, access=access)
    if saves not in ("arrays", "rows"):
        raise InputError.choice("rename.saves", saves, ("arrays", "rows"))

    def taken(layer: WovenLayer) -> int:
        layer = packed(layer, site.chip.array.fragment)
        return len(cut(layer, site.chip.array).blocks) if saves == "arrays" else layer.core.shape[1]

    before = {layer.name: taken(layer) for layer in site.program.layers}
    kept = {name: found for name, found in done.items() if taken(found.layer) < before[name]}
    made = site.program.replace_layers({name: found.layer for name, found in kept.items()})
    return made, {"layers": {n: {"rows": f.assignment.rows, "of": f.rows_before} for n, f in kept.items()}}


def reordered(
    site: Site, layers: Sequence[str] = ("*",), objective: Objective = "skipped", noise: float | None = None,
    law: str = "root", sweeps: int = 30, vectors: int = 512,
) -> tuple[Program, Figures]:  # fmt: skip
    """Rows are put into the order in which reads are idle most often, or wrong least often.

    Args:
        site: where.
        layers: patterns of names.
        objective: see `crossloom.mapping.reorder`.
        noise: σ of a read at a partial sum of 1, in level steps, for the objectives that need it.
        law: of that noise: `proportional` or `root`.
        sweeps: passes of the search.
        vectors: input vectors looked at.

    Raises:
        InputError: a pattern without a layer, or what `reorder` raises.
    """
    wanted = matching("reorder.layers", layers, site.program)
    if objective not in get_args(Objective):
        raise InputError.choice("reorder.objective", objective, get_args(Objective))
    if law not in ("proportional", "root"):
        raise InputError.choice("reorder.law", law, ("proportional", "root"))
    found = input_vectors(map_program(site.program, site.chip), site.images, VECTORS)
    read = None if noise is None else ReadNoise(law, sigma=noise)  # type: ignore[arg-type]
    made, done = reorder.program(
        site.program, site.chip.array, {name: found[name] for name in wanted}, objective, read,
        sweeps=1 if site.rehearsal else sweeps, vectors=vectors, proof=not site.rehearsal,
    )  # fmt: skip
    return made, {"layers": {n: {"before": f.before, "after": f.value, "bound": f.bound} for n, f in done.items()}}


def repeated(site: Site, layers: Sequence[str] = ("*",), most: int | None = None) -> tuple[Program, Figures]:
    """Rows that arrays have idle hold copies of the others, so that errors of cells average out; no array is added.

    Args:
        site: where.
        layers: patterns of names.
        most: copies of a row at most; None: as many powers of two as fit.

    Raises:
        InputError: a pattern without a layer, or fewer copies than 1.
    """
    wanted = matching("repeat.layers", layers, site.program)
    found = map_program(site.program, site.chip).layers
    counts = {name: idle_rows.copies(found[name], most) for name in wanted}
    chosen = {name: count for name, count in counts.items() if count > 1}
    made = site.program.replace_layers({name: idle_rows.repeated(found[name], most) for name in chosen})
    return made, {"layers": {name: {"copies": count} for name, count in chosen.items()}}


def placed(
    site: Site, chip: int = 0, seed: int = 0, rows: bool = True, columns: bool = True
) -> tuple[Program, Figures]:
    """Rows and columns go where the stuck cells of one known chip hurt least; for that chip alone.

    Args:
        site: where.
        chip: which chip of the batch that `seed` draws, as on the analog rung.
        seed: of the batch.
        rows: whether rows may be moved.
        columns: whether weight columns may be.

    Raises:
        InputError: a chip without stuck cells.
    """
    if not site.chip.device.stuck_hrs + site.chip.device.stuck_lrs:
        raise InputError("place", site.chip.name, "a chip with stuck cells (device.stuck_hrs, device.stuck_lrs)")
    drawn = AnalogChip.of(site.chip, seed, chip)
    program = site.program.replace_layers(
        {name: filled(layer) for name, layer in map_program(site.program, site.chip).layers.items()}
    )
    mapping = map_program(program, site.chip)
    faults = {name: stuck_cells(layer, drawn) for name, layer in mapping.layers.items()}
    made = place_all(mapping.layers, faults, rows=rows, columns=columns)
    after = map_program(program.replace_layers(made), site.chip)
    harm = {
        name: {"before": damage(mapping.layers[name], faults[name]), "after": damage(after.layers[name], faults[name])}
        for name in made
    }
    return after.program, {"chip": chip, "seed": seed, "layers": harm}


Pass = Callable[..., tuple[Program, Figures]]

PASSES: dict[str, Pass] = {
    "compact": compact, "rename": renamed, "repeat": repeated, "reorder": reordered, "place": placed,
}  # fmt: skip
"""The passes. Each takes a `Site` and its options, and returns the program with plain figures for the record."""


def apply(name: str, site: Site, options: Mapping[str, Any]) -> tuple[Program, Figures]:
    """A pass by name.

    Raises:
        InputError: an unknown pass, options that it does not take, or what the pass itself refuses.
    """
    if name not in PASSES:
        raise InputError.choice("pass", name, PASSES)
    try:
        return PASSES[name](site, **options)
    except TypeError as error:
        raise InputError(f"pass.{name}", dict(options), f"options that it takes ({error})") from error


def matching(field: str, patterns: Sequence[str], program: Program) -> list[str]:
    """Names of the layers that patterns name.

    Raises:
        InputError: a pattern without a layer.
    """
    return list(by_pattern(field, dict.fromkeys(patterns), (layer.name for layer in program.layers)))
