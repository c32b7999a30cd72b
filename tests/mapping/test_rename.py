"""Row rename: exact rename changes no output, lossy rename finds good merges, and what it costs is stated."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cost import activity_of
from crossloom.cost.actions import count
from crossloom.errors import InputError
from crossloom.hardware import Action, load
from crossloom.mapping import cut, map_program, rename, reorder
from crossloom.mapping.row_clusters import cluster, distances, medians
from crossloom.nn import MatrixWeave
from crossloom.simulate import Settings, engine
from crossloom.weave import Convolution, Format, Input, InputTransform, Program, Woven, WovenLayer
from tests.simulate.exact_cases import codes, make_array, make_layer, random_transform

KINDS = ["identity", "select", "sum", "moments", "rounding"]


@st.composite
def layers(draw: st.DrawFn) -> tuple[WovenLayer, np.random.Generator]:
    """Any layer whose core repeats rows, their negatives and zeros."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits, kind = draw(st.sampled_from([1, 2, 3, 5, 8])), draw(st.sampled_from(KINDS))
    groups, kernel = draw(st.integers(1, 3)), draw(st.sampled_from([None, (1, 1), (2, 3)]))
    width = draw(st.integers(1, 8)) * (1 if kernel is None else kernel[0] * kernel[1])
    groups = 1 if kernel is None else groups
    transform = random_transform(width, kind, rng).repeated(groups)
    signed = kind != "rounding" and draw(st.booleans())
    form = Format(draw(st.integers(1, 4)), signed=signed, zero_point=0)
    layer = make_layer(
        transform, draw(st.integers(1, 4)), rng, groups=groups, weight_bits=bits, form=form,
        convolution=None if kernel is None else Convolution(kernel, padding=(1, 0, 1, 1)), zeros=0.3,
    )  # fmt: skip
    rows = layer.core.shape[1]
    chosen = rng.integers(0, rows, (groups, rows))
    core = np.take_along_axis(layer.core, chosen[..., None], axis=1)
    core = core * rng.choice([-1, 1], (groups, rows, 1)) if draw(st.booleans()) else core
    return layer.with_rows(InputTransform.identity(transform.rows), core), rng


def image(layer: WovenLayer, rng: np.random.Generator) -> torch.Tensor:
    shape = (2, layer.in_channels, 4, 5) if layer.convolution else (5, layer.inputs)
    return codes(layer.input_format, shape, rng)


def accumulators(layer: WovenLayer, x: torch.Tensor, name: str, **array: object) -> np.ndarray:
    return engine(name).prepare(cut(layer, make_array(**array)), Settings())(x).numpy()


@settings(max_examples=60, deadline=None)
@given(layers(), st.booleans())
def test_exact_rename_keeps_every_accumulator(case: tuple[WovenLayer, np.random.Generator], complement: bool) -> None:
    layer, rng = case
    renamed = rename.exact(layer, complement)
    x = rng.integers(layer.input_format.low, layer.input_format.high + 1, (7, layer.inputs))
    assert np.array_equal(renamed.layer.accumulate(x), layer.accumulate(x))
    assert renamed.error == 0 and renamed.layer.core.shape[1] <= layer.core.shape[1]
    assert np.array_equal(renamed.assignment.expand(renamed.layer.core), layer.core)


@settings(max_examples=25, deadline=None)
@given(layers(), st.booleans(), st.sampled_from(["offset", "differential", "twos_complement"]), st.integers(0, 99))
def test_rename_then_reorder_keeps_every_code_on_the_crossbar(
    case: tuple[WovenLayer, np.random.Generator], complement: bool, encoding: str, seed: int
) -> None:
    """On arrays of few rows, in windows, with a converter that has a code for every sum."""
    layer, rng = case
    x = image(layer, rng)
    before = layer.core.shape[1]
    renamed = rename.exact(layer, complement).layer
    order = np.stack([np.random.default_rng(seed).permutation(renamed.core.shape[1]) for _ in range(layer.groups)])
    moved = reorder.permuted(renamed, order)
    array = {"rows": 12, "active_rows": 5, "encoding": encoding, "b_cell": 1, "b_dac": 1, "b_adc": 3}
    wanted = accumulators(layer, x, "integer")
    assert moved.core.shape[1] <= before
    for name in ("integer", "crossbar"):
        assert np.array_equal(accumulators(moved, x, name, **array), wanted)


def test_equal_rows_and_zeros_are_found() -> None:
    """Against a loop over pairs of rows."""
    rng = np.random.default_rng(3)
    core = rng.integers(-1, 2, (1, 60, 3))
    renamed = rename.exact(
        make_layer(InputTransform.identity(60), 3, rng, weight_bits=2).with_rows(InputTransform.identity(60), core)
    )
    stored = renamed.assignment.stored[0]
    for i, j in product(range(60), range(60)):
        zero = not core[0, i].any()
        assert (stored[i] == -1) == zero
        if not zero:
            assert (stored[i] == stored[j]) == np.array_equal(core[0, i], core[0, j])
    assert renamed.layer.core.shape[1] == len({tuple(row) for row in core[0] if row.any()})


def test_groups_store_equally_many_rows_and_none_twice_without_need() -> None:
    rng = np.random.default_rng(0)
    core = np.array([[[1], [1], [1], [-1]], [[1], [1], [1], [1]]])
    layer = make_layer(InputTransform.identity(8), 1, rng, groups=2, weight_bits=1).with_rows(
        InputTransform.identity(8), core
    )
    renamed = rename.exact(layer)
    assert renamed.layer.core.shape == (2, 2, 1)
    assert rename.exact(layer, complement=True).layer.core.shape == (2, 1, 1)


def test_a_layer_of_distinct_rows_is_left_alone() -> None:
    layer = make_layer(InputTransform.identity(3), 2, np.random.default_rng(0), weight_bits=1)
    core = np.array([[[1, 1], [1, -1], [-1, 1]]])
    distinct = layer.with_rows(InputTransform.identity(3), core)
    assert rename.exact(distinct).layer is distinct


def best_error(rows: np.ndarray, count: int, mass: np.ndarray, complement: bool) -> float:
    """Every labelling, every centre made of values that occur, row of zeros included."""
    best = np.inf
    candidates = [np.unique(np.concatenate([rows[:, n], -rows[:, n]])) for n in range(rows.shape[1])]
    for labels in product(range(-1, count), repeat=len(rows)):
        total = 0.0
        for label in set(labels):
            mine = [i for i, k in enumerate(labels) if k == label]
            if label < 0:
                total += sum(mass[i] * np.abs(rows[i]).sum() for i in mine)
                continue
            centres = product(*candidates)
            signs = (1, -1) if complement else (1,)
            total += min(
                sum(mass[i] * min(np.abs(rows[i] - s * np.array(c)).sum() for s in signs) for i in mine)
                for c in centres
            )
        best = min(best, total)
    return float(best)


@pytest.mark.parametrize("complement", [False, True])
@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_lossy_rename_against_all_partitions(bits: int, seed: int, complement: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.choice([-1, 1], (5, 3)) if bits == 1 else rng.integers(-3, 4, (5, 2))
    mass = rng.random(5) + 0.1
    found, best = cluster(rows, 2, mass, complement), best_error(rows, 2, mass, complement)
    change = np.abs(rows - np.where(found.labels < 0, 0, found.sign)[:, None] * found.centres[found.labels])
    assert found.error == pytest.approx(mass @ change.sum(1))
    assert best - 1e-9 <= found.error <= 1.5 * best + 1e-9


@settings(max_examples=20, deadline=None)
@given(layers(), st.data())
def test_lossy_rename_reaches_its_target(case: tuple[WovenLayer, np.random.Generator], data: st.DataObject) -> None:
    layer, rng = case
    target = data.draw(st.integers(1, layer.core.shape[1]))
    mass = rng.random(layer.groups * layer.core.shape[1])
    renamed = rename.lossy(layer, target, mass, complement=data.draw(st.booleans()))
    assert renamed.layer.core.shape[1] <= target
    stood_for = renamed.assignment.expand(renamed.layer.core)
    change = np.abs(stood_for - layer.core).sum(2).reshape(-1)
    assert renamed.error == pytest.approx(mass @ change)
    full = layer.with_rows(InputTransform.identity(layer.transform.rows), stood_for)
    x = rng.integers(layer.input_format.low, layer.input_format.high + 1, (5, layer.inputs))
    assert np.array_equal(renamed.layer.accumulate(x), full.accumulate(x))


def test_more_rows_never_cost_more() -> None:
    layer = make_layer(InputTransform.identity(84), 10, np.random.default_rng(1), weight_bits=1)
    errors = [rename.lossy(layer, rows).error for rows in (84, 70, 60, 46, 30, 10, 1)]
    assert errors == sorted(errors) and errors[0] == 0 < errors[1]


def test_mass_decides_what_is_merged() -> None:
    """Three rows, two to keep: the silent one gives way."""
    core = np.array([[[1, 1, 1, 1], [-1, -1, -1, -1], [1, 1, -1, -1]]])
    layer = make_layer(InputTransform.identity(3), 4, np.random.default_rng(0), weight_bits=1).with_rows(
        InputTransform.identity(3), core
    )
    for silent in range(3):
        mass = np.ones(3)
        mass[silent] = 0
        assert rename.lossy(layer, 2, mass).error == 0


def test_tied_rows_in_training_are_the_assignment() -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(InputTransform.identity(20), 6, rng, weight_bits=1)
    renamed = rename.lossy(layer, 9, complement=True)
    weave = MatrixWeave(renamed.assignment.group(0))
    stored = torch.from_numpy(renamed.layer.core[0].T.astype(np.float32))
    assert np.array_equal(weave.expand(stored).numpy().T, renamed.assignment.expand(renamed.layer.core)[0])
    assert np.array_equal(renamed.assignment.matrix(), renamed.layer.transform.matrix().toarray())
    other = rng.choice([-1, 1], renamed.layer.core.shape)
    assert np.array_equal(rename.with_core(renamed, other).core, other)


def test_distances_and_medians_against_loops() -> None:
    rng = np.random.default_rng(0)
    for a, b in ((rng.integers(-9, 9, (7, 11)), rng.integers(-9, 9, (5, 11))), (rng.choice([-1, 1], (6, 9)),) * 2):
        small = a.astype(np.int16), b.astype(np.int16)
        listed = np.tile(np.arange(len(b)), (len(a), 1))
        assert np.array_equal(distances(*small, listed), np.abs(a[:, None] - b[None]).sum(2))
    rows, weight = rng.integers(-5, 6, (9, 4)).astype(np.int16), rng.random(9)
    centre = medians(rows, np.zeros(9, np.int64), np.ones(9, np.int8), weight, 1)[0]
    for n in range(4):
        cost = [weight @ np.abs(rows[:, n] - c) for c in range(-5, 6)]
        assert weight @ np.abs(rows[:, n] - centre[n]) == pytest.approx(min(cost))


@settings(max_examples=25, deadline=None)
@given(layers())
def test_streams_of_serial_access_add_up_to_the_sum(case: tuple[WovenLayer, np.random.Generator]) -> None:
    layer, rng = case
    renamed = rename.exact(layer, access="serial").layer
    moved = reorder.permuted(renamed, np.stack([rng.permutation(renamed.core.shape[1]) for _ in range(layer.groups)]))
    x = rng.integers(layer.input_format.low, layer.input_format.high + 1, (4, layer.inputs))
    streams = moved.transform.streams()
    assert np.array_equal(sum(stream.apply(x) for stream in streams), moved.transform.apply(x))
    assert np.array_equal(moved.accumulate(x), layer.accumulate(x))
    mapped = cut(moved, make_array())
    assert mapped.stream_format.bits <= max(layer.row_format.bits, 1)
    for stream in streams:
        assert mapped.stream_format.low <= stream.apply(x).min() and stream.apply(x).max() <= mapped.stream_format.high


def single(layer: WovenLayer) -> Program:
    source = Input(name="x", inputs=(), format=layer.input_format, shape=(layer.inputs,))
    node = Woven(name="y", inputs=("x",), format=layer.output.format, shape=(layer.outputs,), layer=layer)
    return Program("test", (source, node))


def test_summed_access_pays_adders_and_digits_and_serial_access_cycles() -> None:
    """Six inputs on three rows, three of them on one: 2-bit codes, two rows a window."""
    rng = np.random.default_rng(0)
    core = np.array([[[1, 1], [1, 1], [1, 1], [-1, 1], [-1, 1], [1, -1]]])
    layer = make_layer(InputTransform.identity(6), 2, rng, weight_bits=1, form=Format(2, False)).with_rows(
        InputTransform.identity(6), core
    )
    chip = load("rram-40nm", overrides={"array.active_rows": 2})
    summed, serial = (rename.exact(layer, access=access).layer for access in ("summed", "serial"))
    made = {name: count(map_program(single(one), chip)) for name, one in (("sum", summed), ("serial", serial))}
    corrections = 3 - 1 + 2
    assert summed.row_format.bits == 4
    assert made["sum"].total(Action.TRANSFORM_ADD) == 3 + corrections
    assert made["sum"].total(Action.ARRAY_READ) == 2 * 4
    assert made["serial"].total(Action.TRANSFORM_ADD) == corrections
    assert made["serial"].total(Action.ARRAY_READ) == (2 + 1 + 1) * 2
    x = rng.integers(0, 4, (50, 6))
    for one in (summed, serial):
        mapped = map_program(single(one), chip)
        found = activity_of(mapped, {"layer": x}).layers["layer"]
        driven = [
            (stream.apply(x)[:, window] >> bit & 1).any(1).mean()
            for stream in one.transform.streams()
            for bit in range(2 if one is serial else 4)
            for window in (slice(0, 2), slice(2, 3))
        ]
        assert found.busy[0].reshape(-1) == pytest.approx(driven)


def test_programs_are_renamed_by_layer_name() -> None:
    layer = make_layer(InputTransform.identity(20), 3, np.random.default_rng(0), weight_bits=1)
    network, done = rename.program(single(layer), rows={"layer": 4})
    assert network.layers[0] is done["layer"].layer and done["layer"].assignment.rows == 4
    assert done["layer"].saving == 0.8
    assert rename.program(single(layer))[1]["layer"].assignment.rows <= 8
    for arguments in ({"rows": {"lawyer": 3}}, {"layers": ["lawyer"]}, {"activity": {"lawyer": np.ones(20)}}):
        with pytest.raises(InputError, match="did you mean 'layer'"):
            rename.program(single(layer), **arguments)


def test_table_bits() -> None:
    """84 logical inputs on 46 rows take 84 entries of 6 bits."""
    layer = make_layer(InputTransform.identity(84), 10, np.random.default_rng(1), weight_bits=1)
    assert rename.lossy(layer, 46).assignment.table_bits == 84 * 6


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("rename.rows", {"rows": 0}),
        ("rename.rows", {"rows": 7}),
        ("rename.activity", {"rows": 2, "activity": np.ones(5)}),
        ("rename.activity", {"rows": 2, "activity": -np.ones(6)}),
        ("rename.activity", {"rows": 2, "activity": np.full(6, np.nan)}),
        ("rename.access", {"rows": 2, "access": "parallel"}),
        ("rename.access", {"rows": 2, "access": "serial", "complement": True}),
    ],
)
def test_bad_input(field: str, arguments: dict[str, object]) -> None:
    layer = make_layer(InputTransform.identity(6), 3, np.random.default_rng(0), weight_bits=1)
    with pytest.raises(InputError) as error:
        rename.lossy(layer, **arguments)
    assert error.value.field == field


def test_calibration_of_another_shape() -> None:
    layer = make_layer(InputTransform.identity(6), 3, np.random.default_rng(0))
    for inputs in (np.zeros((0, 6), int), np.zeros((3, 5), int), np.zeros(6, int)):
        with pytest.raises(InputError, match="calibration"):
            rename.row_activity(layer, inputs)
    assert np.array_equal(rename.row_activity(layer, np.full((2, 6), 3)), np.full(6, 3.0))
