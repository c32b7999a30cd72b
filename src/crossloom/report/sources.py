"""Where the figures of the hardware come from: every one of them with its source, and how many are of each kind."""

from __future__ import annotations

from dataclasses import dataclass

from crossloom.compiled import CompiledChip
from crossloom.hardware import Row, components, describe, describe_components


@dataclass(frozen=True)
class Provenance:
    """Where the figures of the hardware come from.

    Attributes:
        groups: (title, figures) in the schema's order.
        published, assumed, defaults, unsourced: how many figures are of each kind.
    """

    groups: list[tuple[str, list[Row]]]
    published: int
    assumed: int
    defaults: int
    unsourced: int


def provenance(chip: CompiledChip) -> Provenance:
    """Every figure of the chip and of its components with its source."""
    hardware = chip.hardware
    groups: dict[str, list[Row]] = {}
    for row in describe(hardware):
        if "." in row.path:
            groups.setdefault(row.path.split(".")[0], []).append(row)
    groups["parts"] = describe_components(components(hardware))
    rows = [row for title, group in groups.items() if title != "published" for row in group]
    kinds = [source_kind(row.source) for row in rows]
    counts = [kinds.count(kind) for kind in ("published", "assumed", "default", "none")]
    return Provenance(list(groups.items()), *counts)


def source_kind(source: str) -> str:
    """published, assumed (`ours: …`), default (`default: …`) or none."""
    if not source:
        return "none"
    return "assumed" if source.startswith("ours") else "default" if source.startswith("default") else "published"
