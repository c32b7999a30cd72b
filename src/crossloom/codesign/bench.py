"""How fast the engines are on this machine, as ratios measured in one run: `crossloom bench`.

Every case runs ours and its yardstick in turn on the same inputs, again and again; each run of ours is compared with
the runs of the yardstick just before and after, and the median of those ratios counts. Ratios travel between machines
better than seconds do, and a median between neighbours survives a machine that other work slows down for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossloom.compiled import compile
from crossloom.errors import InputError
from crossloom.hardware import Chip, load
from crossloom.mapping import Mapping, map_program
from crossloom.simulate import Executor
from crossloom.training import build_network
from crossloom.weave import Format, Input, InputTransform, OutputTransform, Program, Rescale, Woven, WovenLayer

POSITIONS, ROWS, COLUMNS = 1024, 1152, 256
"""The layer of issue and paper tables: 1024 input vectors, 1152 inputs (3·3·128), 256 outputs."""
ROUNDS, SECONDS = (5, 40), 2.0
"""Fewest and most rounds of a case, and the time within which there may be more than the fewest."""
SERIAL = {
    "array.rows": 128, "array.columns": 128, "array.active_rows": 128, "array.b_cell": 1, "array.b_dac": 1,
    "array.b_adc": 6, "array.encoding": "offset", "array.adc_range": "full", "array.flip": False,
    "hierarchy.tiles": None,
}  # fmt: skip
"""8 b × 8 b, one-bit cells and digits, 128 rows, six-bit converters: the case that every simulator is compared on."""
VARIATION = {"device.variation": {"model": "lognormal", "sigma": 0.1}}
WIRES = {"array.wire_resistance": 1.0}


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Attributes:
        case: what was run.
        yardstick: what it is compared with.
        seconds, yardstick_seconds: median times.
        ratio: ours over the yardstick, the median over rounds.
        goal: the ratio to stay below.
        rounds: how many there were.
    """

    case: str
    yardstick: str
    seconds: float
    yardstick_seconds: float
    ratio: float
    goal: float
    rounds: int


@dataclass(frozen=True)
class Case:
    """A case: ours and its yardstick, made when its turn comes; a yardstick may be a time in seconds."""

    name: str
    yardstick: str
    goal: float
    build: Callable[[], tuple[Callable[[], object], Callable[[], object] | float]]


def one_layer() -> Program:
    """The layer alone as a program on 8-bit inputs."""
    rng = np.random.default_rng(0)
    form = Format(8, False, 1 / 255)
    layer = WovenLayer(
        "layer", InputTransform.identity(ROWS), rng.integers(-127, 128, (1, ROWS, COLUMNS)).astype(np.int32),
        OutputTransform(np.zeros(COLUMNS, np.int64), Rescale(), Format(32, True)), form, 8, None, np.ones(1),
    )  # fmt: skip
    made = Input(name="x", inputs=(), format=form, shape=(ROWS,))
    return Program(
        "layer", (made, Woven(name="y", inputs=("x",), format=Format(32, True), shape=(COLUMNS,), layer=layer))
    )


def chip(**changes: Any) -> Chip:
    """The serial chip with fields changed."""
    return load("isaac", overrides={**SERIAL, **changes})


def layer_on(rung: str, **changes: Any) -> Callable[[], object]:
    """The layer on a rung, without the cost of making input codes."""
    executor = Executor(map_program(one_layer(), chip(**changes)), rung)
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (POSITIONS, ROWS), dtype=np.uint8))
    return lambda: executor.kernels["y"](codes)


def gemm() -> Callable[[], object]:
    """The same layer as one fp32 matrix product."""
    a, b = torch.randn(POSITIONS, ROWS), torch.randn(ROWS, COLUMNS)
    return lambda: a @ b


def sliced_gemms(noise: bool) -> Callable[[], object]:
    """What simulators commonly do: one fp32 product per digit, slice and row block, the converter in between."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (POSITIONS, ROWS), generator=generator)
    w = torch.randint(0, 256, (ROWS, COLUMNS), generator=generator)
    digits = [((x >> i) & 1).float() for i in range(8)]
    slices = [((w >> s) & 1).float() for s in range(8)]
    if noise:
        slices = [s * torch.exp(0.1 * torch.randn(s.shape, generator=generator)) for s in slices]
    delta = 128 / 63

    def run() -> Tensor:
        total = torch.zeros(POSITIONS, COLUMNS)
        for block in range(0, ROWS, 128):
            for i, digit in enumerate(digits):
                for s, cells in enumerate(slices):
                    p = digit[:, block : block + 128] @ cells[block : block + 128]
                    total += 2.0 ** (i + s) * delta * p.div_(delta).add_(0.5).floor_().clamp_(0, 63)
        return total

    return run


def network(name: str, batch: int) -> tuple[Mapping, torch.nn.Module, Tensor]:
    """A reference network with random weights on the serial chip."""
    torch.manual_seed(0)
    model = build_network(name, 10, (3, 32, 32)).eval()
    x = torch.rand(batch, 3, 32, 32)
    return compile(model, chip(), x, name=name).mapping, model.to(memory_format=torch.channels_last), x


def _network(name: str, rung: str, batch: int, **changes: Any) -> tuple[Callable[[], object], Callable[[], object]]:
    mapping, model, x = network(name, batch)
    executor = Executor(map_program(mapping.program, chip(**changes)), rung)
    last = x.to(memory_format=torch.channels_last)

    def float_forward() -> Tensor:
        with torch.no_grad():
            result: Tensor = model(last)
            return result

    return lambda: executor.run(x), float_forward


def _transfer() -> tuple[Callable[[], object], float]:
    from crossloom.simulate.parasitic import effective_conductances

    array = chip(**WIRES).array
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (128, 128))
    return lambda: effective_conductances(g, array), 0.06


GEMM, FORWARD = "its fp32 GEMM", "the fp32 forward pass"
CASES: tuple[Case, ...] = (
    Case("exact layer, 6-bit converter", GEMM, 4, lambda: (layer_on("crossbar"), gemm())),
    Case("exact layer, 2-bit cells", GEMM, 4, lambda: (layer_on("crossbar", **{"array.b_cell": 2}), gemm())),
    Case("exact layer, lossless converter", GEMM, 1.5, lambda: (layer_on("crossbar", **{"array.b_adc": 8}), gemm())),
    Case(
        "exact layer, 6-bit converter", "slice-by-slice GEMMs", 1, lambda: (layer_on("crossbar"), sliced_gemms(False))
    ),
    Case("ResNet-20, exact, 6-bit converter", FORWARD, 6, lambda: _network("resnet20", "crossbar", 64)),
    Case(
        "ResNet-20, exact, lossless converter", FORWARD, 1.5,
        lambda: _network("resnet20", "crossbar", 64, **{"array.b_adc": 8}),
    ),
    Case("VGG8, exact, 6-bit converter", FORWARD, 6, lambda: _network("vgg8", "crossbar", 32)),
    Case("analog layer, programming variation", GEMM, 20, lambda: (layer_on("analog", **VARIATION), gemm())),
    Case(
        "analog layer, programming variation", "slice-by-slice GEMMs", 1 / 3,
        lambda: (layer_on("analog", **VARIATION), sliced_gemms(True)),
    ),
    Case(
        "analog layer, read noise too", "without read noise", 1.5,
        lambda: (layer_on("analog", **VARIATION, **{"device.read_noise": 0.02}), layer_on("analog", **VARIATION)),
    ),
    Case(
        "parasitic layer, 1 Ω wires", "the analog layer", 1.2,
        lambda: (layer_on("parasitic", **VARIATION, **WIRES), layer_on("analog", **VARIATION)),
    ),
    Case("transfer matrix of a 128 × 128 array", "60 ms", 1, _transfer),
    Case("ResNet-20, analog", FORWARD, 20, lambda: _network("resnet20", "analog", 32, **VARIATION)),
)  # fmt: skip
"""The table. Goals are those of the project's plan, on two cores."""


def select(words: Iterable[str]) -> Sequence[Case]:
    """The cases whose name contains any of the words; all without words.

    Raises:
        InputError: a word that no case has.
    """
    wanted = tuple(words)
    for word in wanted:
        if not any(word.lower() in case.name.lower() for case in CASES):
            raise InputError.choice("--only", word, {case.name for case in CASES})
    return [case for case in CASES if not wanted or any(w.lower() in case.name.lower() for w in wanted)]


def measure(case: Case, clock: Callable[[], float] = time.perf_counter) -> Measurement:
    """Time one case.

    Args:
        case: which.
        clock: seconds; `time.process_time` on one thread leaves out what other programs take.
    """
    ours, theirs = case.build()

    def taken(what: Callable[[], object] | float) -> float:
        if isinstance(what, float):
            return what
        start = clock()
        what()
        return clock() - start

    taken(ours)
    taken(theirs)
    yardstick, mine = [taken(theirs)], list[float]()
    begin = time.perf_counter()
    while len(mine) < ROUNDS[0] or (len(mine) < ROUNDS[1] and time.perf_counter() - begin < SECONDS):
        mine.append(taken(ours))
        yardstick.append(taken(theirs))
    before = np.array(yardstick)
    ratio = np.median(2 * np.array(mine) / (before[:-1] + before[1:]))
    times = float(np.median(mine)), float(np.median(before))
    return Measurement(case.name, case.yardstick, *times, float(ratio), case.goal, len(mine))


def record(measurement: Measurement) -> dict[str, Any]:
    """A line as plain data."""
    return {**asdict(measurement), "met": measurement.ratio <= measurement.goal}
