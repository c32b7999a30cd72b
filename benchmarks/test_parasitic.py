"""Time of exact transfer matrices: per array at several sizes, against the floor of its own operations, and per batch.

    pytest benchmarks/test_parasitic.py --benchmark-columns=min,median [-m "slow or not slow"]

The floor is the count of multiply–adds divided by what a float64 matrix product of the same run reaches.
"""

import time

import numpy as np
import pytest

from crossloom.simulate.parasitic import Wires, effective_conductances

WIRES = Wires(1.0, 1.0, 500.0, 100.0)


def arrays(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(1e-6, 1e-4, (count, size, size))


def multiply_adds(size: int, tile: int = 16) -> int:
    """Of one size × size array, driven and sensed at one end: removing a node that has n neighbours costs n²/2."""

    def removing(common: int, others: int) -> int:
        return sum((common + others - k) ** 2 // 2 for k in range(1, common + 1))

    total, h, w = 0, 1, 1
    while h * w < tile * tile:
        common = h if w <= h else w
        h, w = (h, 2 * w) if w <= h else (2 * h, w)
        total += removing(common, 2 * h + 2 * w) * (size // h) * (size // w)
    down = across = size // tile
    while down * across > 1:
        sideways = w <= h
        common, height, width = (h, h, 2 * w) if sideways else (w, 2 * h, w)
        down, across = (down, across // 2) if sideways else (down // 2, across)
        for y in range(down):
            for x in range(across):
                ports = height * ((x > 0) + (x < across - 1)) + width * ((y > 0) + (y < down - 1))
                inputs, outputs = height * (x == 0), width * (y == 0)
                total += common**2 * (ports + inputs + outputs) // 2 + common**3 // 6
                total += common * (ports**2 // 2 + ports * (inputs + outputs) + inputs * outputs)
        h, w = height, width
    return total


def product_rate() -> float:
    """Float64 multiply–adds per second of a 1024 × 1024 matrix product here and now."""
    a = np.random.default_rng(0).random((1024, 1024))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 1024**3 / min(times)


@pytest.mark.parametrize("size", [64, 128, 256, 512, pytest.param(1024, marks=pytest.mark.slow)])
def test_one_array(benchmark, size: int) -> None:
    g = arrays(1, size)
    effective_conductances(g[:, :32, :32], WIRES)
    transfer = benchmark.pedantic(effective_conductances, (g, WIRES), rounds=5 if size < 512 else 3, warmup_rounds=1)
    assert transfer.shape == (1, size, size)
    count = multiply_adds(size)
    benchmark.extra_info["multiply_adds"] = count
    if benchmark.stats:
        benchmark.extra_info["times the floor"] = benchmark.stats["min"] * product_rate() / count


def test_an_array_of_128_takes_at_most_60_ms_of_processor_time() -> None:
    g, times = arrays(1, 128), []
    for _ in range(8):
        start = time.process_time()
        effective_conductances(g, WIRES)
        times.append(time.process_time() - start)
    assert min(times) <= 0.060


def test_time_grows_linearly_with_arrays(benchmark) -> None:
    counts = [8, 16, 32]
    batches = [arrays(n, 64) for n in counts]
    effective_conductances(batches[0], WIRES)

    def measure() -> list[float]:
        times = []
        for g in batches:
            start = time.perf_counter()
            effective_conductances(g, WIRES)
            times.append(time.perf_counter() - start)
        return times

    runs = np.array([benchmark.pedantic(measure, rounds=1)] + [measure() for _ in range(2)])
    each = runs.min(0) / counts
    benchmark.extra_info["seconds an array"] = dict(zip(map(str, counts), each.tolist(), strict=True))
    assert each.max() <= 1.6 * each.min()


@pytest.mark.slow
def test_memory_of_the_largest_array(benchmark) -> None:
    """1024 × 1024 stays below 8 GiB, wherever the process stood before."""
    resource = pytest.importorskip("resource")
    benchmark.pedantic(effective_conductances, (arrays(1, 1024), WIRES), rounds=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    benchmark.extra_info["peak bytes of the process"] = peak
    assert peak < 8 << 30
