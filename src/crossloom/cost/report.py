"""What an estimate says: totals, layers, components and levels, as numbers, JSON and tables."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

LEVELS = ("array", "macro", "tile", "chip")
PREFIXES = tuple((10.0**power, prefix) for power, prefix in zip(range(12, -18, -3), "TGMk mµnpf", strict=True))


def si(value: float, unit: str) -> str:
    """A number with three digits and an SI prefix: 0.00123 J → 1.23 mJ."""
    if value == 0:
        return f"0 {unit}"
    factor, prefix = next(((f, p) for f, p in PREFIXES if abs(value) >= 0.9995 * f), PREFIXES[-1])
    return f"{value / factor:.3g} {prefix.strip()}{unit}"


def square_millimetres(area: float) -> str:
    """An area in mm², or µm² if it is small."""
    return f"{area * 1e6:.3g} mm²" if area >= 1e-9 else f"{area * 1e12:.3g} µm²"


RAW = ("area_m2", "energy_j", "latency_s", "interval_s")
"""Headline figures that a calibrated chip's report also gives without calibration."""


@dataclass(frozen=True)
class LayerCost:
    """One program node for one image.

    Attributes:
        name, kind: of the node; matrix layers are `woven`.
        crossbars: arrays allocated, all copies.
        rows, columns: core rows and core columns of the whole layer, all groups.
        macros: allocated.
        copies: how often the layer is programmed.
        positions: input vectors of an image.
        digits: input digits of a vector.
        cycles: array reads one after another for one image.
        macs: multiply-accumulates of the dense layer.
        utilisation: cells that hold weights over cells allocated.
        busy: fraction of the image interval in which the arrays read.
        energy_j: dynamic and leakage.
        leakage_j: of that, leakage over one image interval.
        leakage_w: standby power of the layer's share of arrays, macros, tiles and units.
        latency_s: until an image has passed.
        compute_s, network_s: what the latency is the larger of.
        time_by_step: seconds of the arrays' reads by action, one after another (overlapping where the chip's cycle is
            fixed), and of every other part by component, which works beside the reads; the slower of the two sets
            compute_s.
        area_m2: its arrays and macros, its share of tiles by macros, its on-demand units.
        actions: counts by action.
        energy_by_component: dynamic energy, J.
        area_by_component: m².
    """

    name: str
    kind: str
    crossbars: int
    rows: int
    columns: int
    macros: int
    copies: int
    positions: int
    digits: int
    cycles: float
    macs: int
    utilisation: float
    busy: float
    energy_j: float
    leakage_j: float
    leakage_w: float
    latency_s: float
    compute_s: float
    network_s: float
    area_m2: float
    actions: dict[str, float]
    energy_by_component: dict[str, float]
    area_by_component: dict[str, float]
    time_by_step: dict[str, float]


@dataclass(frozen=True)
class ComponentCost:
    """One component over the whole chip, for one image.

    Attributes:
        level: of the hierarchy.
        parts: how many there are.
        energy_j: dynamic.
        leakage_j: over one image interval.
        leakage_w: standby power.
        area_m2: silicon.
        source: where its figures come from.
    """

    level: str
    parts: float
    energy_j: float
    leakage_j: float
    leakage_w: float
    area_m2: float
    source: str


@dataclass(frozen=True)
class Programming:
    """Writing the network into the cells once.

    Attributes:
        cells: written.
        pulses: write pulses, verification included.
        energy_j: of cells, write circuits and the weights' way over the chip's edge.
        time_s: see the assumptions.
        dram_bits: weights read from off-chip memory.
        endurance_used: fraction of the cells' endurance that one programming uses.
    """

    cells: int
    pulses: float
    energy_j: float
    time_s: float
    dram_bits: int
    endurance_used: float


class Page(Group):
    """Rich tables that also print as plain text."""

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, color_system=None)
        console.print(self)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()


@dataclass(frozen=True)
class CostReport:
    """The cost of one image on one chip. SI units throughout.

    The layers' energies and areas, and those of the chip level, add up to the totals; so do the components' and the
    levels'.

    Attributes:
        network, chip, hardware_hash: what was estimated.
        crossbars, macros, tiles: allocated.
        utilisation: cells that hold weights over cells of the allocated arrays.
        area_m2: allocated arrays, macros and tiles, on-demand units, chip-level parts.
        idle_area_m2: empty array and macro slots of the tiles in use; not in `area_m2`.
        energy_j: dynamic and leakage.
        dynamic_j, leakage_j: the two.
        latency_s: of a single image.
        interval_s: between images when the chip is kept busy.
        leakage_w: standby power.
        operations: of the dense network, two for a multiply-accumulate.
        layers, components, programming: the parts.
        chip_level: energy, leakage and area that belong to no layer.
        assumptions: what the numbers rest on.
        raw: area, energy, latency and interval without the chip's fitted factors; None if it has none.
    """

    network: str
    chip: str
    hardware_hash: str
    crossbars: int
    macros: int
    tiles: int
    utilisation: float
    area_m2: float
    idle_area_m2: float
    energy_j: float
    dynamic_j: float
    leakage_j: float
    latency_s: float
    interval_s: float
    leakage_w: float
    operations: int
    layers: tuple[LayerCost, ...]
    components: dict[str, ComponentCost]
    chip_level: dict[str, float]
    programming: Programming
    assumptions: tuple[str, ...]
    raw: dict[str, float] | None = None

    @property
    def throughput(self) -> float:
        """Images per second."""
        return 1 / self.interval_s if self.interval_s else 0.0

    @property
    def power_w(self) -> float:
        """Mean power when the chip is kept busy."""
        return self.energy_j * self.throughput

    @property
    def tops(self) -> float:
        """Tera-operations per second."""
        return self.operations * self.throughput * 1e-12

    @property
    def tops_per_watt(self) -> float:
        """Tera-operations per joule."""
        return self.operations / self.energy_j * 1e-12 if self.energy_j else 0.0

    @property
    def tops_per_mm2(self) -> float:
        """Tera-operations per second and mm² of allocated area."""
        return self.tops / (self.area_m2 * 1e6) if self.area_m2 else 0.0

    @property
    def edp(self) -> float:
        """Energy-delay product, J·s: energy of an image times its latency."""
        return self.energy_j * self.latency_s

    @property
    def levels(self) -> dict[str, dict[str, float]]:
        """Energy, leakage and area of each level of the hierarchy."""
        found = {level: {"energy_j": 0.0, "leakage_w": 0.0, "area_m2": 0.0} for level in LEVELS}
        for part in self.components.values():
            found[part.level]["energy_j"] += part.energy_j + part.leakage_j
            found[part.level]["leakage_w"] += part.leakage_w
            found[part.level]["area_m2"] += part.area_m2
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers in SI units, names and texts."""
        plain = asdict(self)
        derived = ("throughput", "power_w", "tops", "tops_per_watt", "tops_per_mm2", "edp", "levels")
        return {**plain, **{name: getattr(self, name) for name in derived}}

    def totals(self) -> dict[str, str]:
        """The headline figures in words."""
        found = {
            "crossbars": f"{self.crossbars}",
            "macros / tiles": f"{self.macros} / {self.tiles}",
            "utilisation": f"{100 * self.utilisation:.1f} %",
            "area": square_millimetres(self.area_m2),
            "energy an image": si(self.energy_j, "J"),
            "latency": si(self.latency_s, "s"),
            "throughput": f"{self.throughput:.4g} images/s",
            "power": si(self.power_w, "W"),
            "leakage": si(self.leakage_w, "W"),
            "TOPS": f"{self.tops:.3g}",
            "TOPS/W": f"{self.tops_per_watt:.3g}",
            "TOPS/mm²": f"{self.tops_per_mm2:.3g}",
            "energy × delay": si(self.edp, "Js"),
            "programming": f"{si(self.programming.energy_j, 'J')}, {si(self.programming.time_s, 's')}",
        }
        if self.raw is not None:
            found["uncalibrated area"] = square_millimetres(self.raw["area_m2"])
            found["uncalibrated energy"] = si(self.raw["energy_j"], "J")
            found["uncalibrated latency"] = si(self.raw["latency_s"], "s")
        return found

    def table(self) -> Page:
        """Totals, layers, components and assumptions for a terminal; `print` of it gives plain text."""
        return Page(self._headline(), self._layers(), self._components(), self._notes())

    def _headline(self) -> RenderableType:
        table = Table(
            title=f"{self.network} on {self.chip}", caption=f"hardware {self.hardware_hash[:12]}",
            box=box.SIMPLE, show_header=False, title_style="bold",
        )  # fmt: skip
        items = list(self.totals().items())
        half = (len(items) + 1) // 2
        for left, right in zip(items[:half], [*items[half:], ("", "")][:half], strict=True):
            table.add_row(f"[dim]{left[0]}", f"[bold]{left[1]}", f"[dim]{right[0]}", f"[bold]{right[1]}")
        return table

    def _layers(self) -> RenderableType:
        table = Table(title="Layers", box=box.SIMPLE_HEAD)
        for heading in ("layer", "kind"):
            table.add_column(heading, overflow="fold")
        for heading in ("crossbars", "used", "cycles", "latency", "energy", "", "area"):
            table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
        most = max((layer.energy_j for layer in self.layers), default=1.0) or 1.0
        for layer in self.layers:
            arrays = (str(layer.crossbars), f"{100 * layer.utilisation:.0f} %", f"{layer.cycles:.0f}")
            table.add_row(
                layer.name,
                layer.kind,
                *(arrays if layer.kind == "woven" else ("", "", "")),
                si(layer.latency_s, "s") if layer.latency_s else "",
                si(layer.energy_j, "J"),
                Text("█" * round(12 * layer.energy_j / most), style="cyan"),
                square_millimetres(layer.area_m2) if layer.area_m2 else "",
            )
        return table

    def _components(self) -> RenderableType:
        table = Table(title="Components", box=box.SIMPLE_HEAD)
        table.add_column("component")
        table.add_column("level")
        for heading in ("parts", "energy", "share", "leakage", "area", "share"):
            table.add_column(heading, justify="right", no_wrap=True)

        def share(part: float, whole: float) -> str:
            return f"{100 * part / whole:.1f} %" if whole else ""

        order = sorted(self.components.items(), key=lambda item: -(item[1].energy_j + item[1].leakage_j))
        for name, part in order:
            energy = part.energy_j + part.leakage_j
            table.add_row(
                name, part.level, f"{part.parts:g}", si(energy, "J"), share(energy, self.energy_j),
                si(part.leakage_w, "W"), square_millimetres(part.area_m2), share(part.area_m2, self.area_m2),
            )  # fmt: skip
        table.add_section()
        for level, sums in self.levels.items():
            table.add_row(
                f"all of {level} level", level, "", si(sums["energy_j"], "J"), share(sums["energy_j"], self.energy_j),
                si(sums["leakage_w"], "W"), square_millimetres(sums["area_m2"]), share(sums["area_m2"], self.area_m2),
            )  # fmt: skip
        return table

    def _notes(self) -> RenderableType:
        return Text("Assumptions\n" + "\n".join(f"  · {text}" for text in self.assumptions), style="dim")


COMPARED = (
    ("crossbars", "crossbars", ""),
    ("tiles", "tiles", ""),
    ("utilisation", "utilisation", ""),
    ("area", "area_m2", "m²"),
    ("energy an image", "energy_j", "J"),
    ("latency", "latency_s", "s"),
    ("throughput", "throughput", "/s"),
    ("power", "power_w", "W"),
    ("leakage", "leakage_w", "W"),
    ("TOPS/W", "tops_per_watt", ""),
    ("TOPS/mm²", "tops_per_mm2", ""),
    ("energy × delay", "edp", "Js"),
)
"""Rows of a comparison: heading, attribute, unit."""


@dataclass(frozen=True)
class Comparison:
    """Two reports side by side."""

    first: CostReport
    second: CostReport

    def ratios(self) -> dict[str, float | None]:
        """second ÷ first by attribute; None where the first is zero."""
        pairs = {key: (getattr(self.first, key), getattr(self.second, key)) for _, key, _ in COMPARED}
        return {key: b / a if a else None for key, (a, b) in pairs.items()}

    def to_dict(self) -> dict[str, Any]:
        """Both reports and the ratios."""
        return {"first": self.first.to_dict(), "second": self.second.to_dict(), "ratios": self.ratios()}

    def table(self) -> Page:
        """Totals, then the energy and area of every component either has."""
        ratios = self.ratios()
        totals = Table(title="Comparison", box=box.SIMPLE_HEAD)
        totals.add_column("")
        for report in (self.first, self.second):
            totals.add_column(f"{report.network}\n{report.chip}", justify="right")
        totals.add_column("ratio", justify="right")

        def figure(value: float, unit: str) -> str:
            if unit == "m²":
                return square_millimetres(value)
            return si(value, unit) if unit else f"{value:.4g}"

        def ratio(value: float | None) -> str:
            return "" if value is None else f"{value:.3g}×"

        for heading, key, unit in COMPARED:
            a, b = getattr(self.first, key), getattr(self.second, key)
            totals.add_row(heading, figure(a, unit), figure(b, unit), ratio(ratios[key]))
        parts = Table(title="Components", box=box.SIMPLE_HEAD)
        parts.add_column("")
        for heading in ("energy", "energy", "ratio", "area", "area", "ratio"):
            parts.add_column(heading, justify="right")
        empty = ComponentCost("", 0, 0.0, 0.0, 0.0, 0.0, "")
        for name in dict.fromkeys([*self.first.components, *self.second.components]):
            one, two = (r.components.get(name, empty) for r in (self.first, self.second))
            e1, e2 = one.energy_j + one.leakage_j, two.energy_j + two.leakage_j
            parts.add_row(
                name, si(e1, "J"), si(e2, "J"), ratio(e2 / e1 if e1 else None), square_millimetres(one.area_m2),
                square_millimetres(two.area_m2), ratio(two.area_m2 / one.area_m2 if one.area_m2 else None),
            )  # fmt: skip
        return Page(totals, parts)


def compare(first: CostReport, second: CostReport) -> Comparison:
    """Two chips, or two compilations, side by side; ratios are second ÷ first."""
    return Comparison(first, second)
