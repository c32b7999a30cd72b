"""What crosses the network, against a plain account of who needs what from whom."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from crossloom.cost import count, estimate
from crossloom.cost.actions import accumulator_bits
from crossloom.hardware import Action
from crossloom.mapping import Mapping, map_program
from crossloom.weave import Concat, InputTransform, Rescale

from .conftest import convolution, image, program, small_chip


def hops(mapping: Mapping, a: int, b: int) -> int:
    """Steps between two tiles laid out in a square, every second row backwards."""
    side = int(np.ceil(np.sqrt(mapping.tiles)))

    def position(tile: int) -> tuple[int, int]:
        y, x = divmod(tile, side)
        return (side - 1 - x if y % 2 else x), y

    (x0, y0), (x1, y1) = position(a), position(b)
    return abs(x0 - x1) + abs(y0 - y1)


def spread(transform: InputTransform | None, copies: int, **changes: object) -> Mapping:
    """One convolution of 4 × 6 × 6 → 40 channels over many one-macro tiles."""
    rng = np.random.default_rng(0)
    x = image(4, 6)
    node = convolution(rng, x, "conv", 40, transform=transform)
    chip = small_chip(hierarchy__network="mesh", hierarchy__macros_per_tile=1, **changes)
    return map_program(program([x, node]), chip, {"conv": copies})


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("computed", [False, True])
def test_bit_hops_of_one_layer(computed: bool, copies: int) -> None:
    transform = InputTransform.sum([i // 2 for i in range(36)]) if computed else None
    mapping = spread(transform, copies)
    mapped = mapping.layers["conv"]
    assert mapping.tiles > 8
    counts = count(mapping)
    found = {node.name: node for node in counts.nodes}
    width = accumulator_bits(counts.geometries["conv"])
    row_bits = mapped.layer.row_format.bits
    channels: dict[int, set[int]] = {}
    makes: dict[tuple[int, int], set[int]] = {}  # (copy, column) → tiles
    computes: dict[int, int] = {}  # row → tile that makes it of x
    needs: dict[int, set[int]] = {}  # tile → rows made elsewhere
    for array in mapping.arrays:
        block = mapped.blocks[array.block]
        for column in mapped.core_columns(block).tolist():
            makes.setdefault((array.copy, column), set()).add(array.tile)
        for row in mapped.core_rows(block).tolist():
            if computed and computes.setdefault(row, array.tile) != array.tile:
                needs.setdefault(array.tile, set()).add(row)
                continue
            inputs = [2 * row, 2 * row + 1] if computed else [row]
            channels.setdefault(array.tile, set()).update(k // 9 for k in inputs)
    expected = sum(len(seen) * 36 * 8 * hops(mapping, 0, tile) for tile, seen in channels.items())
    expected += sum(36 * row_bits * hops(mapping, computes[r], t) for t, rows in needs.items() for r in rows)
    answer = 0.0
    for tiles in makes.values():
        chain = sorted(tiles)
        expected += sum(width * 36 / copies * hops(mapping, a, b) for a, b in pairwise(chain))
        answer += 36 / copies * 8 * hops(mapping, chain[-1], 0)
    assert found["conv"].count(Action.NETWORK_HOP) == pytest.approx(expected)
    assert found["conv"].count(Action.BUFFER_WRITE) == sum(len(seen) for seen in channels.values()) * 36 * 8
    assert found["conv (answer)"].count(Action.NETWORK_HOP) == pytest.approx(answer)
    assert answer > 0


def test_contention_can_bound_the_time() -> None:
    fast, slow = (estimate(spread(None, 1, hierarchy__link_bits=bits)) for bits in (1024, 1))
    wide, narrow = fast.layers[1], slow.layers[1]
    assert wide.latency_s == wide.compute_s > wide.network_s
    assert narrow.latency_s == narrow.network_s > narrow.compute_s == wide.compute_s
    assert slow.interval_s >= narrow.network_s


def test_a_layer_used_twice_has_its_arrays_once_and_its_work_twice() -> None:
    rng = np.random.default_rng(0)
    x = image(4, 6)
    first = convolution(rng, x, "conv", 4)
    again = replace(first, name="again", inputs=("conv",))
    mapping = map_program(program([x, first, again]), small_chip())
    found = {layer.name: layer for layer in estimate(mapping).layers}
    assert found["conv"].crossbars == mapping.crossbars > 0
    assert found["again"].crossbars == 0 and found["again"].macros == 0
    for action in ("adc_conversion", "row_drive", "array_read"):
        assert found["again"].actions[action] == found["conv"].actions[action]


def test_a_concatenation_that_only_joins_moves_nothing_and_one_that_rescales_works() -> None:
    rng = np.random.default_rng(0)
    x = image(2, 4)
    left, right = (convolution(rng, x, name, 3) for name in ("left", "right"))
    plain = Rescale()
    shapes = {"format": left.format, "shape": (6, 4, 4), "low": 0, "high": 255, "axis": 1}
    joined = Concat(name="cat", inputs=("left", "right"), rescales=(plain, plain), **shapes)
    scaled = replace(joined, rescales=(plain, Rescale.of(0.7)))
    chip = small_chip(hierarchy__macros_per_tile=64)
    results = []
    for node in (joined, scaled):
        tail = convolution(rng, node, "tail", 2)
        results.append(count(map_program(program([x, left, right, node, tail]), chip)))
    assert "cat" not in {node.name for node in results[0].nodes}
    tail = next(node for node in results[0].nodes if node.name == "tail")
    assert tail.count(Action.BUFFER_WRITE) == 6 * 16 * 8
    cat = next(node for node in results[1].nodes if node.name == "cat")
    assert cat.count(Action.DIGITAL_MULTIPLY) == 3 * 16
    assert cat.count(Action.ACTIVATION) == 6 * 16
