"""Row reorder: the function stays, the objective is what it says, the order is good and the bound holds."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cost import activity_of
from crossloom.cost.actions import count
from crossloom.errors import InputError
from crossloom.hardware import Action, Array, load
from crossloom.mapping import cut, map_program, rename, reorder
from crossloom.mapping.read_objectives import code_probabilities, deviations, objective_table
from crossloom.mapping.reorder_bound import envelope, least_pairs
from crossloom.simulate import Settings, engine
from crossloom.simulate.adc import array_adc
from crossloom.simulate.analog_chip import ReadNoise
from crossloom.weave import Convolution, Format, Input, InputTransform, Program, Woven, WovenLayer, pieces
from tests.simulate.exact_cases import codes, make_array, make_layer, random_transform

ROOT = ReadNoise("root", 0.2)


def small_array(**fields: object) -> Array:
    usual = {"rows": 12, "columns": 64, "active_rows": 3, "b_adc": 2, "adc_range": "unit"}
    return make_array(**(usual | fields))


def every_read(layer: WovenLayer, array: Array, x: np.ndarray) -> list[tuple[int, float]]:
    """(p, significance) of every read, by loops over programmed cells."""
    mapped = cut(layer, array)
    z = layer.transform.apply(x)
    found = []
    for block in mapped.blocks:
        levels, rows = mapped.cells(block).levels.astype(int), mapped.core_rows(block)
        for first in range(0, len(rows), array.active_rows):
            run = slice(first, first + array.active_rows)
            for field, digit in zip(mapped.digits, pieces(z[:, rows[run]], mapped.digits), strict=True):
                for vector in digit:
                    for c in range(levels.shape[1]):
                        gain = mapped.code.slices[c % mapped.code.columns].gain * field.weight
                        found.append((int(vector @ levels[run, c]), float(gain) ** 2))
    return found


def every_drive(layer: WovenLayer, array: Array, x: np.ndarray) -> list[bool]:
    """Whether a row is driven, of every window of rows, digit and vector: once for all columns that share the rows."""
    mapped = cut(layer, array)
    z = layer.transform.apply(x)
    found = []
    for rows in {(block.groups, block.rows): mapped.core_rows(block) for block in mapped.blocks}.values():
        for first in range(0, len(rows), array.active_rows):
            for digit in pieces(z[:, rows[first : first + array.active_rows]], mapped.digits):
                found += [bool(vector.any()) for vector in digit]
    return found


def mean_cost(layer: WovenLayer, array: Array, x: np.ndarray, objective: str, table: np.ndarray) -> float:
    if objective == "skipped":
        return float(np.mean(every_drive(layer, array, x)))
    reads = every_read(layer, array, x)
    weights = [w if objective in ("variance", "squared-error") else 1.0 for _, w in reads]
    return float(np.average([table[p] for p, _ in reads], weights=weights))


@st.composite
def cases(draw: st.DrawFn) -> tuple[WovenLayer, Array, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draw(st.sampled_from([1, 2, 3, 8]))
    kernel = draw(st.sampled_from([None, (1, 1), (2, 3)]))
    groups = 1 if kernel is None else draw(st.integers(1, 3))
    width = draw(st.integers(1, 6)) * (1 if kernel is None else kernel[0] * kernel[1])
    kind = draw(st.sampled_from(["identity", "select", "sum", "moments", "rounding"]))
    layer = make_layer(
        random_transform(width, kind, rng).repeated(groups), draw(st.integers(1, 3)), rng, groups=groups,
        weight_bits=bits, form=Format(draw(st.integers(1, 3)), signed=kind != "rounding" and draw(st.booleans())),
        convolution=None if kernel is None else Convolution(kernel, padding=(0, 1, 1, 0)), zeros=0.3,
    )  # fmt: skip
    array = small_array(
        rows=draw(st.integers(4, 20)), active_rows=draw(st.integers(1, 4)), b_cell=draw(st.integers(1, 2)),
        b_dac=draw(st.integers(1, 2)), encoding=draw(st.sampled_from(["offset", "differential", "twos_complement"])),
        b_adc=draw(st.integers(1, 6)), adc_range=draw(st.sampled_from(["unit", "full"])),
    )  # fmt: skip
    return layer, array, rng


def vectors(layer: WovenLayer, rng: np.random.Generator, count: int = 6) -> np.ndarray:
    return rng.integers(layer.input_format.low, layer.input_format.high + 1, (count, layer.inputs))


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(["code-error", "squared-error", "variance", "skipped"]))
def test_reorder_keeps_the_function_and_says_its_values(
    case: tuple[WovenLayer, Array, np.random.Generator], objective: str
) -> None:
    layer, array, rng = case
    x = vectors(layer, rng)
    found = reorder.reorder(layer, array, x, objective, ReadNoise("proportional", 0.2), sweeps=4)
    y = vectors(layer, rng, 9)
    assert np.array_equal(found.layer.accumulate(y), layer.accumulate(y))
    if not every_read(layer, array, x):
        assert found.value == found.before == 0
        return
    assert found.before == pytest.approx(mean_cost(layer, array, x, objective, found.table), abs=1e-12)
    assert found.bound <= found.value + 1e-12 and found.value <= found.before + 1e-12
    emptied = len(cut(layer, array).blocks) - len(cut(found.layer, array).blocks)
    assert emptied >= 0
    if not emptied:  # an array that came to hold zeros alone is gone, and its reads with it
        assert found.value == pytest.approx(mean_cost(found.layer, array, x, objective, found.table), abs=1e-12)
    quick = reorder.reorder(layer, array, x, objective, ReadNoise("proportional", 0.2), sweeps=1, proof=False)
    assert (
        0 <= quick.bound <= quick.value + 1e-12 and quick.value <= quick.before + 1e-12 and quick.before == found.before
    )


@settings(max_examples=25, deadline=None)
@given(cases(), st.booleans())
def test_rename_and_reorder_keep_every_code_on_the_crossbar(
    case: tuple[WovenLayer, Array, np.random.Generator], complement: bool
) -> None:
    """Behind any transform, on a converter with a code for every sum: integer and crossbar rung agree with before."""
    layer, array, rng = case
    array = array.model_copy(update={"b_adc": array.lossless_b_adc, "adc_range": "unit"})
    shape = (2, layer.in_channels, 4, 5) if layer.convolution else (5, layer.inputs)
    x = codes(layer.input_format, shape, rng)
    wanted = engine("integer").prepare(layer, Settings())(x)
    renamed = rename.exact(layer, complement).layer
    moved = reorder.reorder(renamed, array, vectors(layer, rng), "code-error", ROOT, sweeps=2).layer
    for name in ("integer", "crossbar"):
        assert torch.equal(engine(name).prepare(cut(moved, array), Settings())(x), wanted)


@pytest.mark.parametrize("objective", ["code-error", "squared-error", "variance", "skipped"])
@pytest.mark.parametrize("seed", range(3))
def test_small_layers_get_the_best_order(objective: str, seed: int) -> None:
    """Against all permutations; and the general bound and search, without the exact solver, keep to either side."""
    rng = np.random.default_rng(seed)
    layer = make_layer(InputTransform.identity(7), 3, rng, weight_bits=1, form=Format(2, False))
    array = small_array()
    x = np.maximum(rng.integers(-3, 4, (8, 7)), 0)
    noise = ReadNoise("proportional", 0.3)
    found = reorder.reorder(layer, array, x, objective, noise)
    values = [
        mean_cost(reorder.permuted(layer, np.array([order])), array, x, objective, found.table)
        for order in permutations(range(7))
        if order[0] < order[1] < order[2] and order[3] < order[4] < order[5]
    ]
    assert found.value == pytest.approx(min(values), rel=1e-6)
    assert found.bound == pytest.approx(found.value, rel=1e-5)


@pytest.mark.parametrize("objective", ["code-error", "squared-error", "variance", "skipped"])
def test_search_and_bound_enclose_the_optimum(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of large layers, on small ones."""
    noise = ReadNoise("proportional", 0.3)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        layer = make_layer(InputTransform.identity(9), 2, rng, weight_bits=1, form=Format(2, False))
        x = np.maximum(rng.integers(-2, 4, (10, 9)), 0)
        best = reorder.reorder(layer, small_array(), x, objective, noise)
        with monkeypatch.context() as patch:
            patch.setattr(reorder, "EXACT_SETS", 0)
            found = reorder.reorder(layer, small_array(), x, objective, noise)
        assert best.bound == pytest.approx(best.value, rel=1e-5)
        assert found.bound <= best.value * (1 + 1e-9) and best.value <= found.value * (1 + 1e-6)
        assert found.value <= best.value * 1.02
        assert found.bound >= 0.2 * best.value


def test_bound_on_pairs_against_all_partitions() -> None:
    rng = np.random.default_rng(0)
    for size, parts in ((2, 3), (3, 2), (3, 3)):
        rows = size * parts
        half = rng.normal(size=(rows, rows))
        for pairs in (half + half.T, half @ half.T, -half @ half.T):
            values = []
            for order in permutations(range(rows)) if rows < 8 else (rng.permutation(rows) for _ in range(20000)):
                cut_up = np.array(order).reshape(parts, size)
                values.append(sum(pairs[np.ix_(part, part)].sum() for part in cut_up))
            bound = least_pairs(pairs, size, min(values))
            assert min(values) - 0.5 * np.ptp(values) <= bound <= min(values) + 1e-9


def test_envelope_is_convex_and_below() -> None:
    table = np.array([0.0, 3.0, 1.0, 5.0, 4.0, 9.0])
    p = np.linspace(0, 5, 51)
    hull = envelope(table, p)
    assert np.all(np.diff(hull, 2) >= -1e-12)
    assert np.all(hull[::10] <= table) and hull[0] == 0 and hull[-1] == 9 and hull[20] == 1
    assert hull[10] == pytest.approx(0.5)


def test_rarely_active_rows_are_gathered() -> None:
    """Six rows of twelve are never driven: two of four windows are always skipped, and the best order says so."""
    rng = np.random.default_rng(0)
    layer = make_layer(InputTransform.identity(12), 4, rng, weight_bits=1, form=Format(1, False))
    x = np.zeros((20, 12), int)
    x[:, ::2] = 1
    found = reorder.reorder(layer, small_array(), x, "skipped")
    assert found.before == 1.0 and found.value == found.bound == 0.5


def test_skipped_windows_are_reads_saved_in_the_cost_model() -> None:
    """The objective is the cost model's own fraction of busy reads, and zero-skipping pays for no others."""
    rng = np.random.default_rng(2)
    layer = make_layer(InputTransform.identity(40), 4, rng, weight_bits=1, form=Format(2, False))
    chip = load("rram-40nm", overrides={"array.rows": 24})
    x = np.clip(rng.integers(-4, 4, (60, 40)) + rng.choice([-3, 1], 40), 0, 3)
    found = reorder.reorder(layer, chip.array, x, "skipped")
    reads = []
    for one, value in ((layer, found.before), (found.layer, found.value)):
        source = Input(name="x", inputs=(), format=one.input_format, shape=(40,))
        node = Woven(name="y", inputs=("x",), format=one.output.format, shape=(4,), layer=one)
        mapping = map_program(Program("test", (source, node)), chip)
        activity = activity_of(mapping, {"layer": x})
        busy = np.concatenate([band.reshape(-1) for band in activity.layers["layer"].busy])
        assert value == pytest.approx(busy.mean())
        reads.append(count(mapping, activity, zero_skipping=True).total(Action.ARRAY_READ))
        assert reads[-1] == pytest.approx(busy.sum())
    assert reads[1] < reads[0]


def test_programs_are_reordered_by_layer_name() -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(InputTransform.identity(12), 3, rng, weight_bits=1, form=Format(2, False))
    source = Input(name="x", inputs=(), format=layer.input_format, shape=(12,))
    node = Woven(name="y", inputs=("x",), format=layer.output.format, shape=(3,), layer=layer)
    network = Program("test", (source, node))
    moved, done = reorder.program(network, small_array(), {"layer": vectors(layer, rng, 20)}, "code-error", ROOT)
    assert moved.layers[0] is done["layer"].layer and done["layer"].value < done["layer"].before
    with pytest.raises(InputError, match="did you mean 'layer'"):
        reorder.program(network, small_array(), {"lawyer": vectors(layer, rng)}, "code-error", ROOT)


def test_blocks_of_zeros_stay_blocks_of_zeros() -> None:
    """A pruned block takes no array, before and after, whatever the objective would like."""
    rng = np.random.default_rng(0)
    layer = make_layer(InputTransform.identity(24), 8, rng, weight_bits=4, form=Format(2, False))
    core = layer.core.copy()
    core[0, :12, :4] = 0
    layer = layer.with_rows(InputTransform.identity(24), core)
    array = small_array(columns=16)
    found = reorder.reorder(layer, array, vectors(layer, rng, 30), "variance", ReadNoise("proportional", 0.1))
    assert [b.rows for b in cut(found.layer, array).blocks] == [b.rows for b in cut(layer, array).blocks]
    assert np.array_equal(np.sort(found.order[0, :12]), np.arange(12))
    assert found.value < found.before


@pytest.mark.parametrize(
    "noise", [ReadNoise("proportional", 0.12), ROOT, ReadNoise("table", table=((0, 0.1), (3, 0.4)))]
)
@pytest.mark.parametrize("fields", [{}, {"adc_range": "full", "b_adc": 2, "active_rows": 7}])
def test_code_error_is_what_sampling_finds(noise: ReadNoise, fields: dict[str, object]) -> None:
    """The table against draws through the simulator's own converter."""
    array = small_array(**fields)
    top = array.active_rows
    adc = array_adc(array)
    sigma = deviations(noise, top, True)
    rng = np.random.default_rng(0)
    draws = np.arange(top + 1)[:, None] + sigma[:, None] * rng.normal(size=(1, 200_000))
    noisy = np.clip(np.floor((draws - adc.p_min) / adc.delta + 0.5), 0, adc.top)
    ideal = adc.code(np.arange(top + 1))
    error = objective_table("code-error", array, top, noise)
    assert error == pytest.approx((noisy != ideal[:, None]).mean(1), abs=4e-3)
    squared = objective_table("squared-error", array, top, noise)
    decoded = adc.p_min + adc.delta * noisy
    assert squared == pytest.approx(((decoded - np.arange(top + 1)[:, None]) ** 2).mean(1), abs=2e-2)
    quiet = code_probabilities(np.zeros(top + 1), array.b_adc, adc.delta, adc.p_min)
    assert np.array_equal(quiet.argmax(1), ideal) and np.array_equal(quiet.max(1), np.ones(top + 1))


def test_root_law_has_one_variance_whatever_the_order() -> None:
    """Σ σ² is linear in p then, so reordering has nothing to gain and says so."""
    rng = np.random.default_rng(1)
    layer = make_layer(InputTransform.identity(30), 4, rng, weight_bits=1, form=Format(2, False))
    found = reorder.reorder(layer, small_array(rows=30), vectors(layer, rng, 20), "variance", ROOT)
    assert found.value == pytest.approx(found.before) and found.bound == pytest.approx(found.before)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("reorder.objective", {"objective": "code-eror"}),
        ("reorder.noise", {"noise": None}),
        ("noise.sigma", {"noise": ReadNoise("root")}),
        ("noise.law", {"noise": ReadNoise("cell", 0.1), "array": {"b_cell": 2}}),
        ("converter", {"array": {"adc_range": "calibrated"}}),
        ("converter", {"converter": (0.0, 0.0)}),
        ("array.flip", {"array": {"flip": True, "active_rows": 12}}),
        ("reorder.sweeps", {"sweeps": 0}),
        ("calibration of layer", {"inputs": np.zeros((4, 5), int)}),
        ("calibration of layer", {"inputs": np.zeros((0, 6), int)}),
        ("calibration of layer", {"inputs": np.zeros(6, int)}),
        ("calibration of layer", {"inputs": np.zeros((4, 6))}),
        ("calibration of layer", {"inputs": np.full((4, 6), 9)}),
    ],
)
def test_bad_input(field: str, change: dict[str, object]) -> None:
    layer = make_layer(InputTransform.identity(6), 3, np.random.default_rng(0), weight_bits=2, form=Format(2, False))
    arguments: dict[str, object] = {"objective": "code-error", "noise": ROOT, "inputs": np.ones((4, 6), int)} | change
    array = small_array(**arguments.pop("array", {}))
    with pytest.raises(InputError) as error:
        reorder.reorder(layer, array, **arguments)
    assert error.value.field == field
    if field == "reorder.objective":
        assert error.value.nearest == "code-error"


def test_orders_that_are_none() -> None:
    layer = make_layer(InputTransform.identity(3), 2, np.random.default_rng(0))
    for order in ([[0, 1, 1]], [[0, 1]], [[0, 1, 3]]):
        with pytest.raises(InputError, match=r"reorder\.order"):
            reorder.permuted(layer, np.array(order))
    assert reorder.permuted(layer, np.array([[0, 1, 2]])) is layer
