"""How cost grows with arrays, inputs and chips: processor time, a plot and a page.

    python benchmarks/growth.py [DOCS]

Prints the table; with a folder, writes DOCS/growth.md and DOCS/images/growth.svg from the same numbers. One thread, the
least processor time of several runs, programming included where chips are counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numba
import numpy as np
import torch

from crossloom.codesign.bench import VARIATION, chip
from crossloom.codesign.machine import processor
from crossloom.compiled import compile
from crossloom.mapping import map_program
from crossloom.simulate import Executor
from crossloom.simulate.analog_chips import ChipSet
from crossloom.simulate.parasitic import Wires, effective_conductances
from crossloom.training import build_network
from crossloom.weave import Format, Input, InputTransform, OutputTransform, Program, Rescale, Woven, WovenLayer

ROUNDS = 8
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, GAP = 268, 216, 46, 40, 30, 14
"""Of one panel of the plot, in SVG units: outside, and its margins."""
COLOURS = ("#0b8a8f", "#c2571a", "#6b4fa0")


@dataclass(frozen=True)
class Series:
    """One line of the plot.

    Attributes:
        panel: what grows.
        name: what is measured.
        counts, seconds: how many, and processor seconds of each.
    """

    panel: str
    name: str
    counts: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Slope of log seconds over log count, least squares: 1 is proportional."""
        return float(np.polyfit(np.log(self.counts), np.log(self.seconds), 1)[0])


def least(functions: Sequence[Callable[[], object]]) -> tuple[float, ...]:
    """Least processor time of each function, called in turn so that all meet the same machine."""
    best = [float("inf")] * len(functions)
    for number in range(ROUNDS + 1):
        for i, function in enumerate(functions):
            start = time.process_time()
            function()
            if number:
                best[i] = min(best[i], time.process_time() - start)
    return tuple(best)


def layer(outputs: int) -> Program:
    """128 inputs, 8 b × 8 b: with one-bit cells one array of 128 × 128 for every 16 outputs."""
    rng, form = np.random.default_rng(0), Format(8, False, 1 / 255)
    core = rng.integers(-127, 128, (1, 128, outputs)).astype(np.int32)
    woven = WovenLayer(
        "layer", InputTransform.identity(128), core,
        OutputTransform(np.zeros(outputs, np.int64), Rescale(), Format(32, True)), form, 8, None, np.ones(1),
    )  # fmt: skip
    made = Input(name="x", inputs=(), format=form, shape=(128,))
    return Program(
        "layer", (made, Woven(name="y", inputs=("x",), format=Format(32, True), shape=(outputs,), layer=woven))
    )


def reads(rung: str, arrays: int, vectors: int) -> Callable[[], object]:
    """All reads of some arrays for some input vectors."""
    executor = Executor(map_program(layer(16 * arrays), chip(**VARIATION)), rung)
    x = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (vectors, 128), dtype=np.uint8))
    return lambda: executor.kernels["y"](x)


def transfers(arrays: int) -> Callable[[], object]:
    """The transfer matrices of some arrays of 64 × 64."""
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (arrays, 64, 64))
    return lambda: effective_conductances(g, Wires(1.0, 1.0, 500.0, 100.0))


def studies(counts: Sequence[int]) -> list[Callable[[], object]]:
    """LeNet-5 with random weights on so many chips, 100 images, programming included."""
    torch.manual_seed(0)
    x = torch.rand(100, 1, 28, 28)
    mapping = compile(build_network("lenet5", 10, (1, 28, 28)).eval(), chip(**VARIATION), x[:16]).mapping
    return [lambda n=n: ChipSet(mapping, range(n)).run(x) for n in counts]


def measure() -> list[Series]:
    """All lines."""
    arrays, solved, vectors, chips = (
        (4, 8, 16, 32, 64),
        (4, 8, 16, 32),
        (1024, 2048, 4096, 8192, 16384),
        (1, 2, 5, 10, 20),
    )
    made = []
    for rung in ("crossbar", "analog"):
        made.append(Series("arrays", f"{rung} reads", arrays, least([reads(rung, n, 512) for n in arrays])))
    made.append(Series("arrays", "transfer matrices", solved, least([transfers(n) for n in solved])))
    for rung in ("crossbar", "analog"):
        made.append(Series("input vectors", f"{rung} reads", vectors, least([reads(rung, 8, n) for n in vectors])))
    made.append(Series("chips", "LeNet-5, analog", chips, least(studies(chips))))
    return made


def table(series: Sequence[Series]) -> str:
    """Markdown: one line per measurement."""
    lines = ["| grows | what | count | processor time | each | exponent |", "|---|---|---|---|---|---|"]
    for one in series:
        for i, (count, seconds) in enumerate(zip(one.counts, one.seconds, strict=True)):
            exponent = f"{one.exponent:.2f}" if i == 0 else ""
            each = f"{1e3 * seconds / count:.4g} ms"
            lines.append(f"| {one.panel} | {one.name} | {count} | {1e3 * seconds:.4g} ms | {each} | {exponent} |")
    return "\n".join(lines)


def plot(series: Sequence[Series]) -> str:
    """SVG: a panel for each thing that grows, logarithmic both ways; dashed where proportional to the first point."""
    panels = list(dict.fromkeys(one.panel for one in series))
    parts = []
    for at, panel in enumerate(panels):
        here = [one for one in series if one.panel == panel]
        counts = [c for one in here for c in one.counts]
        times = [s for one in here for s in one.seconds]
        x0, y0 = at * (WIDTH + GAP) + LEFT, HEIGHT - BOTTOM
        low, high = 10 ** np.floor(np.log10(min(times))), 10 ** np.ceil(np.log10(max(times)))

        def place(count: float, seconds: float, x0: int = x0, y0: int = y0, counts: list[int] = counts,
                  low: float = low, high: float = high) -> tuple[float, float]:  # fmt: skip
            across = np.log(count / min(counts)) / np.log(max(counts) / min(counts))
            up = np.log(seconds / low) / np.log(high / low)
            return x0 + 8 + across * (WIDTH - LEFT - 16), y0 - up * (HEIGHT - BOTTOM - TOP)

        parts.append(f'<text class="t" x="{x0}" y="18">{escape(panel)}</text>')
        parts.append(f'<path class="a" d="M{x0} {TOP} V{y0} H{x0 + WIDTH - LEFT}"/>')
        for power in range(round(np.log10(low)), round(np.log10(high)) + 1):
            y = place(min(counts), 10.0**power)[1]
            text = f"{10.0 ** (power + 3):g} ms" if power < 0 else f"{10**power} s"
            parts.append(f'<path class="g" d="M{x0} {y:.1f} h{WIDTH - LEFT}"/>')
            parts.append(f'<text class="n" x="{x0 - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for count in sorted(set(counts)):
            x = place(count, low)[0]
            parts.append(f'<text class="n" x="{x:.1f}" y="{y0 + 15}" text-anchor="middle">{count}</text>')
        for colour, one in zip(COLOURS, here, strict=False):
            points = [place(c, s) for c, s in zip(one.counts, one.seconds, strict=True)]
            ends = [place(c, one.seconds[0] * c / one.counts[0]) for c in (one.counts[0], one.counts[-1])]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<path class="d" stroke="{colour}" d="M{ends[0][0]:.1f} {ends[0][1]:.1f} '
                         f'L{ends[1][0]:.1f} {ends[1][1]:.1f}"/>')  # fmt: skip
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{line}"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
            y = y0 + 30
            x = x0 + here.index(one) * (WIDTH - LEFT) / len(here)
            parts.append(f'<text class="n" x="{x:.1f}" y="{y}" style="fill:{colour}">{escape(one.name)}</text>')
    width = len(panels) * (WIDTH + GAP)
    style = (
        "text{font:11px system-ui,sans-serif;fill:#5b6570}.t{font-size:13px;font-weight:600}.n{font-size:9.5px}"
        ".a{fill:none;stroke:#8b949e}.g{stroke:#8b949e;stroke-opacity:.25}.d{stroke-dasharray:2 3;stroke-opacity:.8}"
    )
    title = "Processor time over arrays, input vectors and chips, both logarithmic; dashed: proportional"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def page(series: Sequence[Series]) -> str:
    """The page of the docs."""
    chips = next(one for one in series if one.panel == "chips")
    ratio = chips.seconds[-1] / chips.seconds[0]
    return f"""<!-- Generated by `python benchmarks/growth.py docs`; do not edit. -->

# How cost grows

![Processor time over arrays, input vectors and chips](images/growth.svg)

Twice the arrays, input vectors or chips take about twice the processor time: nothing is solved or drawn anew for an
input, and no chip waits for another. Dashes show what is proportional to the first point; the exponent is the slope
of the logarithms, 1 where cost is proportional. Below 1, a part is done once for all: {chips.counts[-1]} chips of
LeNet-5 cost {ratio:.1f} times one chip, since they share the quantised images and the packed inputs of the first layer.

Measured on one thread of {processor()}; the least of {ROUNDS} runs in turn. Arrays are 128 × 128 with one-bit
cells and digits, six-bit converters and log-normal variation, read 8 digits by 8 slices for 512 input vectors (over
input vectors: 8 arrays); transfer matrices are those of 64 × 64 arrays with wires of 1 Ω; chips run LeNet-5 with
random weights on 100 images, programming included.

{table(series)}

A transfer matrix of an n × n array takes O(n³) operations, so the cost of a *cell* grows with the array's side;
`pytest benchmarks/test_parasitic.py` has the times from 64 to 1024.
"""


def main() -> None:
    """Measure, print, and write where asked to."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    series = measure()
    print(table(series))
    if len(sys.argv) > 1:
        docs = Path(sys.argv[1])
        (docs / "images").mkdir(parents=True, exist_ok=True)
        (docs / "growth.md").write_text(page(series), encoding="utf-8")
        (docs / "images" / "growth.svg").write_text(plot(series), encoding="utf-8")


if __name__ == "__main__":
    main()
