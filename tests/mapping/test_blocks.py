"""Cutting and placing: every weight is found again from the programmed cells, and counts follow the formula."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.hardware import Chip, load
from crossloom.mapping import balanced_duplication, cut, map_program
from crossloom.weave import Format, Input, InputTransform, OutputTransform, Program, Rescale, Woven, WovenLayer


def layer_of(core: np.ndarray, name: str = "layer", bits: int = 8) -> WovenLayer:
    groups, rows, columns = core.shape
    return WovenLayer(
        name=name,
        transform=InputTransform.identity(groups * rows),
        core=core.astype(np.int32),
        output=OutputTransform(np.zeros(groups * columns, np.int64), Rescale(), Format(32, True)),
        input_format=Format(8, False),
        weight_bits=bits,
        weight_zero=None,
        weight_scale=np.ones(1),
    )


def program_of(*layers: WovenLayer, positions: tuple[int, ...] = ()) -> Program:
    form = Format(8, False)
    nodes: list[Input | Woven] = [Input(name="x", inputs=(), format=form, shape=(layers[0].inputs,))]
    for i, layer in enumerate(layers):
        shape = (positions[i], layer.outputs) if positions else (layer.outputs,)
        nodes.append(Woven(name=f"n{i}", inputs=("x",), format=form, shape=shape, layer=layer))
    return Program("test", tuple(nodes))


@pytest.fixture(scope="module")
def chip() -> Chip:
    return load("crimp-isaac")


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Chip, int]:
    bits = draw(st.sampled_from([1, 2, 4, 8]))
    encoding = draw(st.sampled_from(["offset", "differential", "twos_complement", "polarised"]))
    rows, columns = draw(st.integers(4, 40)), draw(st.integers(16, 64))
    cell = draw(st.sampled_from([1, 2]))
    divisors = [n for n in range(1, rows + 1) if rows % n == 0] if encoding == "polarised" else [rows]
    chip = load(
        "crimp-isaac",
        overrides={
            "array.rows": rows, "array.active_rows": draw(st.sampled_from(divisors)), "array.columns": columns,
            "array.encoding": encoding,
            "array.b_cell": cell, "array.flip": encoding == "offset" and draw(st.booleans()),
            "array.columns_per_adc": 1, "precision.weights": 8,
        },
    )  # fmt: skip
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 50)), draw(st.integers(1, 20)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    top = max((1 << (bits - 1)) - 1, 1)
    core = rng.integers(-top, top + 1, shape) if bits > 1 else rng.choice([-1, 1], shape)
    if bits > 1 and draw(st.booleans()):
        core[:, : shape[1] // 2] = 0
    return core, chip, bits


@given(cases())
@settings(deadline=None)
def test_every_weight_is_found_again_from_the_cells(case: tuple[np.ndarray, Chip, int]) -> None:
    core, chip, bits = case
    mapping = map_program(program_of(layer_of(core, bits=bits)), chip)
    mapped = mapping.layers["layer"]
    stored = mapped.layer.core
    assert np.array_equal(mapping.read_back()["layer"], stored)
    if chip.array.encoding != "polarised" or bits == 1:
        assert np.array_equal(stored, core)
    top = (1 << chip.array.b_cell) - 1
    for block in mapped.blocks:
        cells = mapped.cells(block)
        assert cells.levels.shape[0] <= chip.array.rows
        assert cells.levels.shape[1] <= chip.array.columns
        assert cells.levels.max() <= top
        if chip.array.flip:
            assert np.all(cells.levels.sum(0, dtype=int) * 2 <= top * cells.levels.shape[0])
    group, row, column = (int(n) - 1 for n in stored.shape)
    for place in mapping.find("layer", group, row, column):
        cells = mapped.cells(mapped.blocks[place.array.block])
        weight = mapped.weights_of(cells)[place.row, place.columns[0] // mapped.code.columns]
        assert weight == stored[group, row, column]


@given(st.integers(1, 700), st.integers(1, 200))
@settings(deadline=None, max_examples=25)
def test_dense_counts_follow_the_paper(rows: int, outputs: int) -> None:
    """CRIMP: crossbars = ⌈C_out/32⌉·⌈k²C_in/128⌉."""
    core = np.ones((1, rows, outputs))
    assert cut(layer_of(core), load("crimp-isaac").array).arrays == ceil(outputs / 32) * ceil(rows / 128)


def test_blocks_of_zeros_get_no_array(chip: Chip) -> None:
    core = np.ones((1, 256, 64))
    core[0, :128, 32:] = 0
    mapping = map_program(program_of(layer_of(core)), chip)
    assert mapping.crossbars == 3
    assert mapping.find("layer", 0, 5, 40) == ()
    assert np.array_equal(mapping.read_back()["layer"], core)


def test_depthwise_groups_share_arrays_along_the_diagonal(chip: Chip) -> None:
    core = np.random.default_rng(0).integers(1, 127, (64, 9, 1))
    mapping = map_program(program_of(layer_of(core)), chip)
    assert mapping.crossbars == ceil(64 / min(128 // 9, 32))
    assert mapping.layers["layer"].used_cells == 64 * 9 * 4
    assert np.array_equal(mapping.read_back()["layer"], core)


def test_floor_plan_keeps_macros_to_one_layer_and_tiles_shared(chip: Chip) -> None:
    a, b = layer_of(np.ones((1, 1000, 64)), "a"), layer_of(np.ones((1, 100, 10)), "b")
    mapping = map_program(program_of(a, b), chip, {"b": 2})
    assert mapping.crossbars == 16 + 2
    assert mapping.macros == 2 + 2
    assert mapping.tiles == 1
    assert len(mapping.arrays) == mapping.crossbars
    owners: dict[tuple[int, int], set[tuple[str, int]]] = {}
    places = set()
    for placed in mapping.arrays:
        owners.setdefault((placed.tile, placed.macro), set()).add((placed.layer, placed.copy))
        places.add((placed.tile, placed.macro, placed.slot))
    assert all(len(o) == 1 for o in owners.values())
    assert len(places) == mapping.crossbars
    assert 0 < mapping.utilisation <= 1
    total = sum(mapping.array_utilisation(p) for p in mapping.arrays) / mapping.crossbars
    assert total == pytest.approx(mapping.utilisation)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3)), min_size=1, max_size=3), st.integers(0, 12))
@settings(deadline=None, max_examples=30)
def test_duplication_minimises_the_slowest_layer(shapes: list[tuple[int, int]], spare: int) -> None:
    from itertools import product

    chip = load("crimp-isaac")
    layers = [layer_of(np.ones((1, 128 * blocks, 8)), f"l{i}") for i, (_, blocks) in enumerate(shapes)]
    program = program_of(*layers, positions=tuple(p for p, _ in shapes))
    budget = sum(b for _, b in shapes) + spare
    found = balanced_duplication(program, chip, budget)

    def slowest(copies: tuple[int, ...]) -> float:
        return max(p / c for (p, _), c in zip(shapes, copies, strict=True))

    def spent(copies: tuple[int, ...]) -> int:
        return sum(b * c for (_, b), c in zip(shapes, copies, strict=True))

    mine = tuple(found[layer.name] for layer in layers)
    assert spent(mine) <= budget
    options = product(*(range(1, min(budget // b, p) + 1) for p, b in shapes))
    assert slowest(mine) == min(slowest(c) for c in options if spent(c) <= budget)


@pytest.mark.parametrize(
    ("overrides", "duplication", "message"),
    [
        ({"hierarchy.tiles": 1}, {"layer": 200}, "hierarchy.tiles"),
        ({}, {"layr": 2}, "did you mean 'layer'"),
        ({}, {"layer": 0}, "at least 1 copy"),
    ],
)
def test_impossible_placements_are_refused(
    overrides: dict[str, int], duplication: dict[str, int], message: str
) -> None:
    program = program_of(layer_of(np.ones((1, 10, 10))))
    with pytest.raises(InputError, match=message):
        map_program(program, load("crimp-isaac", overrides=overrides), duplication)


def test_weights_outside_the_code_are_refused(chip: Chip) -> None:
    with pytest.raises(InputError, match="this one holds -128 … 127"):
        cut(layer_of(np.full((1, 2, 2), 128)), chip.array)
