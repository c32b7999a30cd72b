"""What people read: results as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from crossloom.codesign import Result
from crossloom.codesign.results import written
from crossloom.report.units import count, percent, points, quantity

BAR = 14
"""Characters of the longest bar."""


def amount(value: float, unit: str) -> str:
    """A quantity with its unit: 1.29 µJ."""
    return " ".join(quantity(value, unit))


def grid(rows: Sequence[tuple[str, str, str]]) -> Table:
    """Lines of (name, value, remark) without a frame."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=11)
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def result(record: Result) -> RenderableType:
    """A run: accuracy by rung, the chip's headline figures, cost by layer, and where everything lies."""
    title = Text.assemble(
        (record.network, "bold"), " on ", (record.data, "bold"), ", compiled for ", (record.hardware, "bold")
    )
    parts: list[RenderableType] = [Text(), title, Text(), Padding(grid(headline(record)), (0, 2))]
    parts += [Text(), layers(record.layers, record.cost["chip_level"])]
    parts += [Text(f"  {note}", style="dim") for note in record.notes]
    lines = [("run", record.run_dir, f"config {record.config_hash[:12]}, chip {record.chip_hash[:12]}")]
    parts += [Padding(grid(lines), (0, 2)), Text()]
    return Group(*parts)


def headline(record: Result) -> list[tuple[str, str, str]]:
    """Accuracy by rung and the chip's totals."""
    cost, rows = record.cost, accuracy_rows(record)
    rows += [
        ("crossbars", count(record.crossbars), f"{100 * cost['utilisation']:.0f} % of cells hold weights"),
        ("area", amount(record.area_m2, "m^2"), f"{cost['tiles']} tile{'s' if cost['tiles'] != 1 else ''}"),
        ("energy", amount(record.energy_j, "J"), f"an image; {cost['tops_per_watt']:.3g} TOPS/W"),
        ("latency", amount(record.latency_s, "s"), "from image to answer"),
        ("throughput", f"{count(float(f'{cost["throughput"]:.3g}'))}/s", "images, the chip kept busy"),
    ]
    return rows


def accuracy_rows(record: Result) -> list[tuple[str, str, str]]:
    """One line per rung."""
    rows = []
    before: str | None = None
    for rung, value in record.accuracy.items():
        images = record.images[rung]
        remark = f"of {count(images)} test images"
        pair = record.agreement.get(f"{before}={rung}")
        if pair is not None and pair.equal:
            remark += f", every logit equal to the {before} rung's"
        elif "float" in record.accuracy and rung != "float":
            remark += f", {points(value - record.accuracy['float'])} points from float"
        rows.append(("accuracy" if before is None else "", f"{rung:<9}{percent(value):>6} %", remark))
        before = rung
    return rows


def layers(rows: Sequence[dict[str, Any]], rest: dict[str, Any]) -> Table:
    """Matrix layers with crossbars, time, energy and area; the digital nodes, and what belongs to no layer, summed."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim", show_edge=False)
    table.add_column("  layer", no_wrap=True)
    for heading in ("weights", "crossbars", "used", "latency", "energy"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("area", justify="right", no_wrap=True)
    woven = [row for row in rows if row["kind"] == "woven"]
    digital = [row for row in rows if row["kind"] != "woven"]
    most = max((row["energy_j"] for row in rows), default=0.0) or 1.0
    for row in woven:
        table.add_row(
            f"  {escape(row['name'])}", f"{row['rows']} × {row['columns']}", count(row["crossbars"]),
            f"{100 * row['utilisation']:.0f} %", amount(row["latency_s"], "s"), amount(row["energy_j"], "J"),
            Text("━" * max(round(BAR * row["energy_j"] / most), 1), style="cyan"), amount(row["area_m2"], "m^2"),
        )  # fmt: skip
    if digital:
        energy, area = sum(row["energy_j"] for row in digital), sum(row["area_m2"] for row in digital)
        time = sum(row["latency_s"] for row in digital)
        table.add_row(
            f"  [dim]{len(digital)} digital nodes[/]", "", "", "", amount(time, "s"), amount(energy, "J"),
            Text("━" * round(BAR * min(energy / most, 1.0)), style="dim"), amount(area, "m^2"),
        )  # fmt: skip
    energy, area = rest["leakage_j"] + rest.get("energy_j", 0.0), rest["area_m2"]
    if energy or area:
        table.add_row("  [dim]rest of the chip[/]", "", "", "", "", amount(energy, "J"), "", amount(area, "m^2"))
    return table


def simulation(record: dict[str, Any]) -> RenderableType:
    """One rung on some images."""
    name, rate = record["name"], count(float(f"{record['images'] / max(record['seconds'], 1e-9):.3g}"))
    what = f"{record['rung']} rung, {count(record['images'])} images"
    if record["spread"] is not None:
        what += f", mean of {record['chips']} chips, standard deviation {percent(record['spread'])} points"
    rows = [
        ("accuracy", f"{percent(record['accuracy'])} %", what),
        ("time", f"{record['seconds']:.3g} s", f"{rate} images/s on this machine"),
        ("chip", record["hardware"], f"{record['crossbars']} crossbars, hash {record['chip_hash'][:12]}"),
    ]
    return Group(Text(), Text(name, style="bold"), Text(), Padding(grid(rows), (0, 2)), Text())


def measurements(rows: Sequence[dict[str, Any]]) -> RenderableType:
    """Ratios of times, with the goal of each."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    for heading in ("case", "against"):
        table.add_column(heading)
    for heading in ("ours", "theirs", "ratio", "goal"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        times = (f"{1e3 * row[key]:.3g} ms" for key in ("seconds", "yardstick_seconds"))
        colour = "green" if row["met"] else "red"
        ratio = f"[{colour}]{row['ratio']:.2f} ×[/]"
        table.add_row(row["case"], row["yardstick"], *times, ratio, f"≤ {row['goal']:.3g} ×")
    return table


def rooflines(rows: Sequence[dict[str, Any]]) -> RenderableType:
    """Operations, rates and floors."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    for heading in ("layer", "counted in"):
        table.add_column(heading)
    for heading in ("operations", "a second", "floor", "measured", "distance", "floor/GEMM"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        times = (f"{1e3 * row[key]:.3g} ms" for key in ("floor", "seconds"))
        numbers = (f"{row['operations']:.3g}", f"{row['rate']:.3g}")
        against = f"{row['floor'] / row['gemm_seconds']:.2f} ×"
        table.add_row(row["rung"], row["unit"], *numbers, *times, f"{row['distance']:.2f} ×", against)
    return table


def networks(records: Sequence[dict[str, Any]]) -> RenderableType:
    """Networks with their size."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    for heading in ("network", "usual data"):
        table.add_column(heading, no_wrap=True)
    counted = any(row["crossbars"] is not None for row in records)
    sizes = ("parameters", "crossbars") if counted else ("parameters",)
    for heading in sizes:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for row in records:
        numbers = ("" if row[key] is None else count(row[key]) for key in sizes)
        table.add_row(row["name"], row["data"] or "", *numbers, f"[dim]{escape(row['summary'])}[/]")
    return table


def recipes(found: Sequence[tuple[str, str, str, list[str]]]) -> RenderableType:
    """Recipes (name, chip, what it does, steps), each with its steps."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", show_lines=True)
    for heading in ("recipe", "chip"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it does, step by step")
    for name, chip, about, steps in found:
        lines = "\n".join(f"{i}. {escape(step)}" for i, step in enumerate(steps, 1))
        table.add_row(f"[bold]{name}[/]", chip, f"{escape(about)}\n[dim]{lines}[/]")
    return table


def chips(records: Sequence[dict[str, Any]]) -> RenderableType:
    """Chips in a line each."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    for heading in ("chip", "cell", "array", "cell bits", "ADC", "bits in × w"):
        table.add_column(heading, no_wrap=True)
    table.add_column("")
    for row in records:
        table.add_row(
            row["name"], row["technology"], f"{row['rows']} × {row['columns']}", str(row["b_cell"]),
            f"{row['b_adc']} b {row['adc_range']}", f"{row['inputs']} × {row['weights']}",
            f"[dim]{escape(row['description'])}[/]",
        )  # fmt: skip
    return table


def figures(title: str, rows: Sequence[dict[str, Any]]) -> RenderableType:
    """Every figure of a chip with its unit, source and meaning."""
    table = Table(title=title, box=box.SIMPLE_HEAD, header_style="dim", title_justify="left")
    table.add_column("field", no_wrap=True)
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("unit", no_wrap=True)
    table.add_column("source", style="dim", overflow="fold", ratio=1)
    for row in rows:
        if row["path"] in ("name", "description"):
            continue
        value = row["value"]
        shown = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
        table.add_row(row["path"], escape(shown), row["unit"], escape(row["source"]))
    return table


def drop(row: dict[str, Any]) -> str:
    """How far ours lies above the paper's number, in its unit; points for %. Empty where there is none of the two."""
    if row["paper"] is None or row["ours"] is None:
        return ""
    difference = row["ours"] - row["paper"]
    shown = written(abs(difference), row["unit"])
    return f"{'+' if difference > 0 else '−' if difference < 0 else ''}{shown}"


def rows(title: str, records: Sequence[dict[str, Any]]) -> RenderableType:
    """Rows of a results file beside the paper's, under the heading of their table."""
    parts: list[RenderableType] = [Text(), Text(title)]
    for heading in dict.fromkeys(row["table"] for row in records):
        table = Table(title=f"\n{escape(heading)}", box=box.SIMPLE_HEAD, header_style="dim", title_justify="left")
        table.add_column("row")
        table.add_column("metric")
        for column in ("paper", "ours", "±", "ours − paper"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("budget", style="dim", no_wrap=True)
        for row in (row for row in records if row["table"] == heading):
            numbers = [written(row[key], row["unit"]) for key in ("paper", "ours", "spread")]
            numbers.append(drop(row))
            budget = row["budget"]
            made = f"{budget['epochs']} epochs, {count(budget['images'])} images, {budget['device']}"
            table.add_row(row["row"], row["metric"], *numbers, row["unit"], made)
        parts.append(table)
    return Group(*parts)
