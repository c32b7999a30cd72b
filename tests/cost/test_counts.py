"""Every count equals that of a walker that visits each array, digit, row group and position in plain loops."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cost import activity_of, count
from crossloom.cost.actions import accumulator_bits
from crossloom.errors import InputError
from crossloom.hardware import Action, Chip
from crossloom.mapping import Mapping, map_program
from crossloom.simulate import Executor
from crossloom.simulate.unfold import Fold
from crossloom.weave import AveragePool, Format, InputTransform, MaxPool, Rescale, Slice, Woven, pieces

from .conftest import (
    convolution,
    flatten,
    image,
    linear,
    program,
    residual_network,
    small_chip,
)

ARRAY_ACTIONS = (
    Action.ROW_DRIVE,
    Action.ARRAY_READ,
    Action.SAMPLE_HOLD,
    Action.ADC_CONVERSION,
    Action.SHIFT_ADD,
    Action.INPUT_REGISTER,
    Action.OUTPUT_REGISTER,
)


def vectors_of(mapping: Mapping, seed: int = 0) -> dict[str, np.ndarray]:
    """Input vectors of every layer for one random image, by layer name."""
    shape = mapping.program.input.shape
    x = torch.from_numpy(np.random.default_rng(seed).integers(-60, 200, (1, *shape)).astype(np.float32))
    codes = Executor(mapping, "integer").nodes(x)
    found = {}
    for node in mapping.program.woven():
        source = codes[node.inputs[0]].to(torch.int64)
        unfolded = Fold.of(node.layer, tuple(source.shape)).vectors(source)
        found[node.layer.name] = unfolded.reshape(-1, node.layer.inputs).numpy()
    return found


def walk(mapping: Mapping, node: Woven, vectors: np.ndarray, skip: bool) -> tuple[Counter[Action], float, int]:
    """(actions, Σ G·(digit/largest)², reads of the slowest array) of one layer, by visiting everything."""
    found: Counter[Action] = Counter()
    power = 0.0
    slowest = 0
    chip = mapping.chip
    mapped = mapping.layers[node.layer.name]
    width = node.layer.row_format.bits + node.layer.weight_bits
    width += math.ceil(math.log2(node.layer.core.shape[1])) if node.layer.core.shape[1] > 1 else 0
    levels = chip.device.conductances(chip.array.b_cell)
    placed = [array for array in mapping.arrays if array.layer == node.layer.name]
    for position, row_vector in enumerate(node.layer.transform.apply(vectors)):
        here = [array for array in placed if array.copy == position % mapped.copies]
        fed: dict[tuple[int, int], set[int]] = {}
        summed: dict[tuple[int, int], set[int]] = {}
        reads_here = []
        for array in here:
            block = mapped.blocks[array.block]
            cells = mapped.cells(block).levels
            rows = mapped.core_rows(block)
            macro = (array.tile, array.macro)
            fed.setdefault(macro, set()).update(rows.tolist())
            summed.setdefault(macro, set()).update(mapped.core_columns(block).tolist())
            found[Action.INPUT_REGISTER] += len(rows) * node.layer.row_format.bits
            reads = 0
            for digit in pieces(row_vector[rows], mapped.digits):
                for start in range(0, len(rows), chip.array.active_rows):
                    group = digit[start : start + chip.array.active_rows]
                    for h, value in enumerate(group):
                        if value:
                            found[Action.ROW_DRIVE] += 1
                            scale = (int(value) / ((1 << chip.array.b_dac) - 1)) ** 2
                            power += scale * sum(levels[cell] for cell in cells[start + h])
                    if skip and not group.any():
                        continue
                    reads += 1
                    found[Action.ARRAY_READ] += 1
                    for _ in range(cells.shape[1]):
                        found[Action.SAMPLE_HOLD] += 1
                        found[Action.ADC_CONVERSION] += 1
                        found[Action.SHIFT_ADD] += 1
            reads_here.append(reads)
        for rows_fed in fed.values():
            found[Action.INPUT_REGISTER] += len(rows_fed) * node.layer.row_format.bits
        for sums in summed.values():
            found[Action.OUTPUT_REGISTER] += 2 * len(sums) * width
        slowest += max(reads_here, default=0)
    return found, power, slowest


CHIPS = [
    {},
    {"array__active_rows": 5, "array__columns_per_adc": 16},
    {"array__b_dac": 2},
    {"array__encoding": "differential", "array__b_cell": 1},
    {"name": "crimp-isaac", "components__cell_energy": "conductance"},
]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("changes", CHIPS, ids=["plain", "7-rows", "2-bit-dac", "differential", "flipped"])
def test_array_actions_equal_a_walk_over_everything(changes: dict[str, object], skip: bool) -> None:
    network = residual_network(np.random.default_rng(3), signed=True)
    mapping = map_program(network, small_chip(**changes), {"first": 2})
    vectors = vectors_of(mapping)
    counted = {n.name: n for n in count(mapping, activity_of(mapping, vectors), skip).nodes}
    for node in network.woven():
        expected, power, slowest = walk(mapping, node, vectors[node.layer.name], skip)
        ours = counted[node.name]
        for action in ARRAY_ACTIONS:
            assert ours.count(action) == pytest.approx(expected[action], rel=1e-12), (node.name, action)
        assert ours.cell_power == pytest.approx(power, rel=1e-12)
        assert ours.reads * ours.positions == pytest.approx(slowest, rel=1e-12)
        assert ours.positions == len(vectors[node.layer.name])


def test_without_activity_every_digit_counts_as_the_largest(mapping: Mapping) -> None:
    vectors = {name: np.full((3, m.layer.inputs), 255) for name, m in mapping.layers.items()}
    stated, full = count(mapping), count(mapping, activity_of(mapping, vectors))
    for a, b in zip(stated.nodes, full.nodes, strict=True):
        assert a.count(Action.ROW_DRIVE) == pytest.approx(b.count(Action.ROW_DRIVE))
        assert a.cell_power == pytest.approx(b.cell_power)


def test_offset_correction_merges_bias_and_rescale_by_hand() -> None:
    """A 40×10 linear layer on 16×16 arrays: 3 bands × 3 stripes of 4 weights, 2 arrays a macro."""
    rng = np.random.default_rng(0)
    x = image(40, 1)
    flat = flatten(x)
    node = linear(rng, flat, "fc", 10, power_of_two=False)
    mapping = map_program(program([x, flat, node]), small_chip(hierarchy__arrays_per_macro=2))
    found = {n.name: n for n in count(mapping).nodes}["fc"]
    assert mapping.crossbars == 9
    # Sums over 16, 16 and 8 inputs, two additions of bands, one subtraction per column.
    assert found.count(Action.TRANSFORM_ADD) == (15 + 15 + 7) + 2 + 10
    # Macros hold blocks (0,1) (2,3) … row bands first: every macro sees 2 stripes but the last, which sees one.
    columns = [4, 4, 2] * 3
    made = sum(columns)
    assert found.count(Action.DIGITAL_ADD) == (made - 10) + np.count_nonzero(node.layer.output.bias)
    assert found.count(Action.DIGITAL_MULTIPLY) == 10
    assert found.count(Action.ACTIVATION) == 10
    width = 8 + 8 + 6
    # Rows into macros: (band 0) (band 0, band 1) (band 1) (band 2) (band 2).
    rows = 16 + 32 + 16 + 8 + 8
    assert found.count(Action.TILE_BUS) == rows * 8 + made * width
    assert found.count(Action.BUFFER_READ) == rows * 8


def test_flipped_columns_cost_one_correction_each() -> None:
    rng = np.random.default_rng(0)
    x = image(32, 1)
    flat = flatten(x)
    node = linear(rng, flat, "fc", 12)
    chip = small_chip("crimp-isaac")
    mapping, plain = map_program(program([x, flat, node]), chip), chip.override({"array.flip": False})
    flips = sum(int(mapping.layers["fc"].cells(b).flipped.sum()) for b in mapping.layers["fc"].blocks)
    assert flips > 0
    without = map_program(program([x, flat, node]), plain)
    assert count(mapping).total(Action.TRANSFORM_ADD) - count(without).total(Action.TRANSFORM_ADD) == flips


def test_input_transform_is_counted_once_per_position_whatever_the_columns() -> None:
    rng = np.random.default_rng(0)
    moments = InputTransform.sum([i // 3 for i in range(36)])
    operations = moments.operations()
    assert operations.adds == 24
    for channels in (4, 64):
        x = image(4, 5)
        node = convolution(rng, x, "conv", channels, transform=moments)
        mapping = map_program(program([x, node]), small_chip(array__encoding="differential", array__b_cell=1))
        assert count(mapping).total(Action.TRANSFORM_ADD) == 25 * operations.adds
        assert len(mapping.layers["conv"].digits) == 10  # three 8-bit inputs add up to ten bits


def test_pooling_counts_the_taps_inside() -> None:
    x = image(2, 5)
    pooled = MaxPool(
        name="pool", inputs=("x",), format=x.format, shape=(2, 3, 3), kernel=(3, 3), stride=(2, 2), padding=(1, 1),
        dilation=(1, 1),
    )  # fmt: skip
    taps = 0
    for i in range(3):
        for j in range(3):
            for a in range(3):
                for b in range(3):
                    taps += 0 <= 2 * i - 1 + a < 5 and 0 <= 2 * j - 1 + b < 5
    mapping = map_program(program([x, pooled]), small_chip())
    assert count(mapping).total(Action.POOL) == 2 * taps
    assert count(mapping).total(Action.BUFFER_READ) == 50 * 8
    windows = np.array([[0, 3], [3, 5]])
    average = AveragePool(
        name="mean", inputs=("x",), format=x.format, shape=(2, 2, 2), low=0, high=255, rows=windows, columns=windows,
        rescale=Rescale.of(np.array([1 / 9, 1 / 6, 1 / 6, 1 / 4])),
    )  # fmt: skip
    counted = count(map_program(program([x, average]), small_chip()))
    assert counted.total(Action.POOL) == 2 * 25
    assert counted.total(Action.DIGITAL_MULTIPLY) == 2 * 3  # a quarter is a shift
    assert counted.total(Action.ACTIVATION) == 8


def test_a_tensor_is_written_once_into_each_tile_that_reads_it() -> None:
    """On one tile: x, first (read by second, added in place), pool's input, pool, hidden; nothing hops."""
    network = residual_network(np.random.default_rng(1))
    mapping = map_program(network, small_chip(hierarchy__arrays_per_macro=64, hierarchy__macros_per_tile=64))
    assert mapping.tiles == 1
    found = count(mapping)
    assert found.total(Action.NETWORK_HOP) == 0
    assert found.total(Action.BUFFER_WRITE) == 8 * (4 * 36 + 8 * 36 + 8 * 36 + 8 * 9 + 20)
    assert found.total(Action.DRAM) == 8 * (4 * 36) + 8 * 5


def test_views_move_nothing_of_their_own() -> None:
    rng = np.random.default_rng(0)
    x = image(4, 4)
    half = Slice(name="half", inputs=("x",), format=x.format, shape=(2, 4, 4), axis=1, start=0, stop=2)
    node = convolution(rng, half, "conv", 4)
    found = count(map_program(program([x, half, node]), small_chip()))
    assert [n.name for n in found.nodes] == ["x", "conv", "conv (answer)"]
    assert found.total(Action.BUFFER_WRITE) == 2 * 16 * 8


def test_zero_blocks_and_dead_channels_cost_nothing(rng: np.random.Generator) -> None:
    x = image(48, 1)
    flat = flatten(x)
    node = linear(rng, flat, "fc", 12)
    node.layer.core[:, 16:32] = 0
    node.layer.core[:, :, 8:] = 0
    mapping = map_program(program([x, flat, node]), small_chip())
    assert mapping.crossbars == 4
    found = count(mapping)
    assert found.total(Action.ARRAY_READ) == 4 * 8
    assert found.total(Action.ACTIVATION) == 8


def test_a_program_of_zeros_needs_no_arrays(rng: np.random.Generator) -> None:
    x = image(8, 1)
    flat = flatten(x)
    node = linear(rng, flat, "fc", 4)
    node.layer.core[:] = 0
    found = count(map_program(program([x, flat, node]), small_chip()))
    assert found.total(Action.ADC_CONVERSION) == found.total(Action.ROW_DRIVE) == 0


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 50), columns=st.integers(1, 20), active=st.integers(1, 16), dac=st.integers(1, 4),
    cell=st.sampled_from([1, 2]), copies=st.integers(1, 3), side=st.integers(1, 4),
)  # fmt: skip
def test_closed_forms(rows: int, columns: int, active: int, dac: int, cell: int, copies: int, side: int) -> None:
    rng = np.random.default_rng(rows * 100 + columns)
    x = image(rows, side)
    node = convolution(rng, x, "conv", columns, kernel=1)
    node.layer.core[node.layer.core == 0] = 1
    chip = small_chip(array__active_rows=active, array__b_dac=dac, array__b_cell=cell)
    mapping = map_program(program([x, node]), chip, {"conv": copies})
    found = count(mapping)
    digits, per_weight = math.ceil(8 / dac), 8 // cell
    capacity = 16 // per_weight
    heights = [min(16, rows - start) for start in range(0, rows, 16)]
    widths = [min(capacity, columns - start) for start in range(0, columns, capacity)]
    groups = sum(math.ceil(h / active) for h in heights)
    assert found.total(Action.ARRAY_READ) == side**2 * digits * groups * len(widths)
    assert found.total(Action.ADC_CONVERSION) == side**2 * digits * groups * columns * per_weight
    assert found.total(Action.ROW_DRIVE) == side**2 * digits * rows * len(widths)


@given(positions=st.integers(1, 6), factor=st.integers(2, 4))
@settings(max_examples=10, deadline=None)
def test_reads_follow_positions(positions: int, factor: int) -> None:
    def network(side: int) -> Mapping:
        rng = np.random.default_rng(0)
        x = image(5, 1)
        wide = x.__class__(name="x", inputs=(), format=x.format, shape=(5, 1, side))
        return map_program(program([wide, convolution(rng, wide, "conv", 7, kernel=1)]), small_chip())

    one, more = count(network(positions)), count(network(positions * factor))
    for action in (*ARRAY_ACTIONS, Action.TRANSFORM_ADD, Action.ACTIVATION, Action.BUFFER_READ, Action.BUFFER_WRITE):
        assert more.total(action) == factor * one.total(action)


def test_accumulators_hold_every_sum(mapping: Mapping) -> None:
    for geometry in count(mapping).geometries.values():
        layer = geometry.mapped.layer
        rows = layer.row_format
        largest = np.abs(layer.core).sum(1).max() * max(abs(rows.low), rows.high)
        assert int(largest).bit_length() + 1 <= accumulator_bits(geometry)


def test_skipping_needs_activity_and_activity_must_fit(mapping: Mapping) -> None:
    with pytest.raises(InputError, match="zero_skipping"):
        count(mapping, None, zero_skipping=True)
    with pytest.raises(InputError, match="activity"):
        activity_of(mapping, {"first": np.zeros((1, 36), np.int64)})
    with pytest.raises(InputError, match="did you mean 'first'"):
        activity_of(mapping, {"frist": np.zeros((1, 36), np.int64)})


def test_geometry_is_the_floor_plan(mapping: Mapping) -> None:
    per_tile = mapping.chip.hierarchy.macros_per_tile
    geometries = count(mapping).geometries
    assert mapping.tiles > 3
    for array in mapping.arrays:
        geometry = geometries[array.layer]
        assert geometry.tile[array.copy, array.block] == array.tile
        assert geometry.macro[array.copy, array.block] == array.tile * per_tile + array.macro
    assert sum(g.macro.size for g in geometries.values()) == mapping.crossbars


def test_formats_of_wide_inputs_are_counted_in_digits() -> None:
    rng = np.random.default_rng(0)
    x = image(4, 3)
    wide = x.__class__(name="x", inputs=(), format=Format(12, True), shape=x.shape)
    chip: Chip = small_chip()
    mapping = map_program(program([wide, convolution(rng, wide, "conv", 4)]), chip)
    assert count(mapping).nodes[1].reads == 12 * 1
