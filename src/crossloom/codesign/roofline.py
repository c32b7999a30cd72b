"""Operations and bytes of one layer on each rung, and the time below which this machine cannot do them.

The floor of a rung is the larger of operations over the machine's rate of them and bytes over its bandwidth. Rates
are measured on operands that stay in registers or in the first-level cache: `crossloom bench --roofline`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange

from crossloom.codesign.bench import COLUMNS, POSITIONS, ROWS, VARIATION, chip, gemm, layer_on, one_layer
from crossloom.mapping import map_program
from crossloom.simulate.adc import array_adc
from crossloom.simulate.analog_lanes import add_shorts, load_shorts, spread_short, store_shorts
from crossloom.simulate.converter import Converter, operations
from crossloom.simulate.crossbar_plan import plan
from crossloom.simulate.lanes import PLANE, WORDS, add, load, store
from crossloom.simulate.planes import aligned

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}
TURNS = 200_000
LANES = 64 * WORDS
ANALOG_CONVERSION = 10
"""Vector operations of one read of 32 columns without noise: bias, product, constant, shift, two limits, shift, add,
and its share of widening and storing (`analog_kernels.convert`)."""


@njit(parallel=True, **OPTIONS)
def _adders(buffers, turns):
    """Four full adders a turn and thread, all in registers."""
    for t in prange(len(buffers)):
        p = buffers[t].ctypes.data
        a, b, c, d = load(p), load(p + PLANE), load(p + 2 * PLANE), load(p + 3 * PLANE)
        e, f, g, h, x = a, b, c, d, load(p + 4 * PLANE)
        for _ in range(turns):
            a, b = add(a, b, x)
            c, d = add(c, d, x)
            e, f = add(e, f, x)
            g, h = add(g, h, x)
        for i, v in enumerate((a, b, c, d, e, f, g, h)):
            store(p + PLANE * i, v)


@njit(parallel=True, **OPTIONS)
def _lookups(buffers, turns):
    """Eight loads of 32 shorts from the first-level cache a turn and thread, each added up."""
    for t in prange(len(buffers)):
        p = buffers[t].ctypes.data
        a = b = c = d = e = f = g = h = spread_short(0)
        for i in range(turns):
            q = p + 512 * (i & 31)
            a, b = add_shorts(a, load_shorts(q)), add_shorts(b, load_shorts(q + 64))
            c, d = add_shorts(c, load_shorts(q + 128)), add_shorts(d, load_shorts(q + 192))
            e, f = add_shorts(e, load_shorts(q + 256)), add_shorts(f, load_shorts(q + 320))
            g, h = add_shorts(g, load_shorts(q + 384)), add_shorts(h, load_shorts(q + 448))
        for i, v in enumerate((a, b, c, d, e, f, g, h)):
            store_shorts(p + 64 * i, v)


@dataclass(frozen=True)
class Floor:
    """One rung's floor.

    Attributes:
        rung: what runs.
        unit: what is counted.
        operations: how many.
        rate: of them, a second, on this machine.
        moved: bytes of inputs and accumulators, which have to cross memory at least once.
        bandwidth: bytes a second that a copy moves there.
        seconds: measured, the best.
        gemm_seconds: of the layer's fp32 product, measured, the best.
    """

    rung: str
    unit: str
    operations: float
    rate: float
    moved: float
    bandwidth: float
    seconds: float
    gemm_seconds: float

    @property
    def floor(self) -> float:
        """Seconds."""
        return max(self.operations / self.rate, self.moved / self.bandwidth)


def best(function: Callable[[], object], clock: Callable[[], float], rounds: int = 15) -> float:
    """Seconds of the fastest of several calls, after one to warm up."""
    function()
    times = []
    for _ in range(rounds):
        start = clock()
        function()
        times.append(clock() - start)
    return min(times)


def exact_operations(**changes: Any) -> float:
    """Full adders of 1024 lanes of the exact layer: rows counted, converters, shift-and-add."""
    (mapping,) = map_program(one_layer(), chip(**changes)).layers.values()
    made = plan(mapping)
    converter = Converter.of(array_adc(mapping.array), made.largest_read, int(made.slot_reads.max()))
    vectors = -(-POSITIONS * len(mapping.digits) // LANES)
    reads = int(made.slot_reads.sum())
    wide = int(abs(made.count).max() * converter.top).bit_length() + 1
    sums = sum(wide - int(left) - d.lsb for left in made.slots[:, 1] for d in mapping.digits)
    sums = sums * vectors // len(mapping.digits)
    combined = (mapping.array.b_cell - 1) * 8 * reads
    return vectors * (len(made.rows) + combined + reads * operations(converter) / 2) + sums


def rooflines(clock: Callable[[], float] = time.perf_counter) -> list[dict[str, Any]]:
    """The floors of the layer of the benchmark table."""
    threads = numba.get_num_threads()
    buffers = aligned(threads * 2048).reshape(threads, 2048)
    adders = 4 * TURNS * threads / best(lambda: _adders(buffers, TURNS), clock)
    lookups = 8 * TURNS * threads / best(lambda: _lookups(buffers, TURNS), clock)
    a = torch.randint(-127, 127, (2048, 2048), dtype=torch.int8)
    macs = 2048**3 / best(lambda: torch._int_mm(a, a), clock, 5)
    source = np.zeros(1 << 26, np.uint8)
    target = np.empty_like(source)
    memory = 2 * source.nbytes / best(lambda: np.copyto(target, source), clock, 5)
    product = best(gemm(), clock)
    data = POSITIONS * ROWS + 4 * POSITIONS * COLUMNS
    reads = POSITIONS * 8 * (ROWS // 128) * COLUMNS * 8
    looked = POSITIONS * 8 * (ROWS // 4) * COLUMNS * 8 // 32 + ANALOG_CONVERSION * reads // 32
    rows = [
        ("exact, 1-bit cells", "full adders of 1024 lanes", exact_operations(), adders, layer_on("crossbar")),
        (
            "exact, 2-bit cells", "full adders of 1024 lanes", exact_operations(**{"array.b_cell": 2}), adders,
            layer_on("crossbar", **{"array.b_cell": 2}),
        ),
        (
            "exact, lossless", "8-bit multiply-accumulates", POSITIONS * ROWS * COLUMNS, macs,
            layer_on("crossbar", **{"array.b_adc": 8}),
        ),
        (
            "analog, programming variation", "loads and adds of 32 columns", looked, lookups,
            layer_on("analog", **VARIATION),
        ),
    ]  # fmt: skip
    found = []
    for rung, unit, count, rate, run in rows:
        floor = Floor(rung, unit, float(count), rate, float(data), memory, best(run, clock), product)
        found.append({**asdict(floor), "floor": floor.floor, "distance": floor.seconds / floor.floor})
    return found
