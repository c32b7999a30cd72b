"""The AND engine before and after ADMM, with cells of four technologies: area, power, throughput, standby, writing.

"Power" is energy per image times images per second at the dense network's rate on the same engine, so that a network
that became faster is not charged for answering more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from crossloom.compiled import CompiledChip
from crossloom.cost import CostReport, estimate, measure
from crossloom.hardware import Chip, load
from crossloom.mapping import map_program
from crossloom.weave import Program

ENGINE = "sot-mram-and"
CELLS = {"sot-mram": "SOT-MRAM", "stt-mram": "STT-MRAM", "rram-binary": "ReRAM", "sram": "SRAM"}
"""Device preset → name in rows."""


@dataclass(frozen=True)
class Figure:
    """One number of the engine.

    Attributes:
        metric, unit: as in a results file.
        dense, sparse: before and after.
    """

    metric: str
    unit: str
    dense: float
    sparse: float


def engine(device: str, overrides: tuple[str, ...]) -> Chip:
    """The AND engine with other cells, and arrays of another size."""
    return load(ENGINE, [f"device={device}", *overrides])


def cost(program: Program, chip: Chip, images: Tensor) -> CostReport:
    """Area, energy and time with the statistics of some images."""
    mapping = map_program(program, chip)
    return estimate(mapping, measure(mapping, images))


def figures(dense: CostReport, sparse: CostReport) -> Iterator[Figure]:
    """What is compared, before and after."""
    rate = 1 / dense.interval_s

    def both(metric: str, unit: str, of: str) -> Figure:
        return Figure(metric, unit, float(getattr(dense, of)), float(getattr(sparse, of)))

    yield both("crossbars", "arrays", "crossbars")
    yield both("area", "m²", "area_m2")
    yield both("energy of an image", "J", "energy_j")
    yield Figure("power at the dense network's rate", "W", dense.energy_j * rate, _power(sparse, rate))
    yield Figure("images per second", "1/s", rate, 1 / sparse.interval_s)
    yield both("standby power", "W", "leakage_w")
    yield Figure("writing the network once", "J", dense.programming.energy_j, sparse.programming.energy_j)
    yield Figure("time of writing it", "s", dense.programming.time_s, sparse.programming.time_s)


def _power(report: CostReport, rate: float) -> float:
    """Dynamic energy at a rate of images, and leakage all the time."""
    return report.dynamic_j * rate + report.leakage_w


def compared(
    dense: CompiledChip, sparse: CompiledChip, overrides: tuple[str, ...], images: Tensor
) -> dict[str, list[Figure]]:
    """The figures for every cell technology by its name."""
    found = {}
    for device, name in CELLS.items():
        chip = engine(device, overrides)
        found[name] = list(figures(cost(dense.program, chip, images), cost(sparse.program, chip, images)))
    return found
