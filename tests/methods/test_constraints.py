"""Projections: idempotent, exact against brute force, non-expansive where convex; bad input names field and fix."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crossloom.errors import InputError
from crossloom.methods import levels as level_sets
from crossloom.methods.constraints import (
    NM,
    Blocks,
    Channels,
    Columns,
    Constraint,
    Filters,
    Groups,
    Polarised,
    Support,
    Unstructured,
    Window,
    constraint,
    constraint_types,
    intersected,
)
from crossloom.methods.levels import DeviceLevels, FixedPoint, Levels, PowerOfTwo

SHAPE = (3, 2, 2, 2)


def weight(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


STRUCTURES: list[Constraint] = [
    Filters(2), Channels(1), Columns(3), Columns(0.4, multiple=2), Unstructured(0.3), Blocks(2, 3, 2), NM(2, 4),
    NM(1, 3), Polarised(3), Polarised(1), Polarised(2, used=torch.arange(8) % 3 > 0), Support(weight(99) > 0),
    Window(-0.5, 0.7),
    Polarised(4, signs=torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])),
]  # fmt: skip
LEVELS: list[Levels] = [
    FixedPoint(2), FixedPoint(3), FixedPoint(5), FixedPoint(8), FixedPoint(5, per_channel=True),
    FixedPoint(4, fraction=2), PowerOfTwo(2), PowerOfTwo(3), PowerOfTwo(3, exponent=0), PowerOfTwo(3, per_channel=True),
    DeviceLevels([-3, -1, 0, 1, 3]), DeviceLevels([0, 1, 4]), DeviceLevels([-2, 0, 1, 3], scale=0.3),
]  # fmt: skip


@pytest.mark.parametrize("one", [*STRUCTURES, *LEVELS], ids=repr)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-12, 12))
@settings(max_examples=25, deadline=None)
def test_projecting_twice_changes_nothing(one: Constraint, seed: int, exponent: int) -> None:
    projected = one.project(weight(seed) * 2.0**exponent)
    assert torch.equal(one.project(projected), projected)
    assert one.contains(projected)
    assert projected.shape == SHAPE
    assert projected.dtype == torch.float32


def all_groups(one: Groups, w: Tensor) -> list[Tensor]:
    """Every point that keeps as many groups as allowed, by plain loops over the meaning of each set."""
    count, shape = w.shape[0], tuple(w.shape)
    flat = torch.arange(w.numel()).view(shape)
    if isinstance(one, Filters):
        cut = [flat[n].reshape(-1) for n in range(count)]
    elif isinstance(one, Channels):
        cut = [flat[:, c].reshape(-1) for c in range(shape[1])]
    elif isinstance(one, Columns):
        cut = [flat.flatten(1)[:, k] for k in range(flat.flatten(1).shape[1])]
    elif isinstance(one, Blocks):
        matrix = flat.flatten(1)
        cut = [
            matrix[n : n + one.columns, k : k + one.rows].reshape(-1)
            for n in range(0, matrix.shape[0], one.columns)
            for k in range(0, matrix.shape[1], one.rows)
        ]
    else:
        cut = [i[None] for i in flat.reshape(-1)]
    points = []
    for chosen in itertools.combinations(cut, one.kept(len(cut))):
        point = torch.zeros(w.numel())
        kept = torch.cat(chosen)
        point[kept] = w.reshape(-1)[kept]
        points.append(point.view(shape))
    return points


GROUPS = [Filters(2), Channels(1), Columns(3), Columns(0.5), Blocks(2, 3, 2), Blocks(3, 2, 2), Unstructured(3)]


@pytest.mark.parametrize("one", GROUPS, ids=repr)
def test_groups_are_the_best_of_all_choices(one: Groups) -> None:
    shape = (3, 1, 2, 2) if isinstance(one, Unstructured) else SHAPE
    for seed in range(5):
        w = weight(seed, shape)
        least = min(float((p - w).square().sum()) for p in all_groups(one, w))
        assert float((one.project(w) - w).square().sum()) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 4)])
def test_n_of_m_is_the_best_of_all_choices(n: int, m: int) -> None:
    w = weight(n, (2, 1, 3, 3))
    projected = NM(n, m).project(w).flatten(1)
    for row, found in zip(w.flatten(1), projected, strict=True):
        for start in range(0, 9, m):
            run, kept = row[start : start + m], found[start : start + m]
            best = min(
                float(run.square().sum() - run[list(chosen)].square().sum())
                for chosen in itertools.combinations(range(len(run)), min(n, len(run)))
            )
            assert int(kept.count_nonzero()) <= n
            assert float((run - kept).square().sum()) == pytest.approx(best, abs=1e-6)


def test_fragments_take_the_better_sign() -> None:
    w = weight(3, (4, 10))
    projected = Polarised(4).project(w)
    for row, found in zip(w, projected, strict=True):
        for start in range(0, 10, 4):
            run, kept = row[start : start + 4], found[start : start + 4]
            assert bool((kept >= 0).all() or (kept <= 0).all())
            best = min(float((run - run.clamp_min(0)).square().sum()), float((run - run.clamp_max(0)).square().sum()))
            assert float((run - kept).square().sum()) == pytest.approx(best, abs=1e-6)


def test_fragments_run_over_the_rows_that_count() -> None:
    used = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1, 0, 1], dtype=torch.bool)
    w = weight(5, (4, 2, 5))
    one = Polarised(3, used=used)
    projected = one.project(w)
    assert one.contains(projected)
    assert torch.equal(projected.flatten(1)[:, ~used], w.flatten(1)[:, ~used])
    assert torch.equal(projected.flatten(1)[:, used], Polarised(3).project(w.flatten(1)[:, used]))
    pruned = w.flatten(1) * used
    assert torch.equal(Polarised(3, used="left").of(pruned).used, used)
    assert torch.equal(Polarised(3, used="left").of(pruned).project(w), projected)


@pytest.mark.parametrize("one", [Polarised(3), Window(-0.5, 0.7)], ids=repr)
def test_values_within_the_bounds_stay_in_the_set(one: Constraint) -> None:
    w = one.project(weight(1, (4, 10)))
    low, high = one.bounds(w)
    assert bool((w >= low).all() and (w <= high).all())
    moved = (w + weight(2, (4, 10))).clamp(low, high) * (w != 0)
    assert one.contains(moved)
    assert not one.contains(w + weight(2, (4, 10)))


@pytest.mark.parametrize("one", [s for s in LEVELS if s.scale is not None], ids=repr)
def test_fixed_levels_are_the_nearest(one: Levels) -> None:
    w, values = weight(5), one.codes.double() * (one.scale or 0)
    nearest = (w.reshape(-1, 1).double() - values).abs().min(1).values
    assert torch.allclose((one.project(w).double() - w.double()).abs().reshape(-1), nearest, atol=1e-6)


@pytest.mark.parametrize(
    "codes", [[-1, 0, 1], [-3, -2, -1, 0, 1, 2, 3], [-4, -2, -1, 0, 1, 2, 4], [0, 1, 4], [-2, 0, 1, 3]], ids=str
)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_scaled_levels_are_the_best_of_all_codes(codes: list[int], seed: int) -> None:
    w = weight(seed, (4,)).double()
    least = float(w.square().sum())
    for q in itertools.product(codes, repeat=4):
        vector = torch.tensor(q, dtype=torch.float64)
        product = float(w @ vector)
        if product > 0:
            least = min(least, float(w.square().sum()) - product**2 / float(vector @ vector))
    projected = Levels(codes).project(w.view(1, 4))
    assert float((projected - w).square().sum()) == pytest.approx(least, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("bits", [3, 5, 8])
def test_scales_of_large_weights_are_near_the_best(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w = weight(bits, (60, 200))
    one = FixedPoint(bits)
    monkeypatch.setattr(level_sets, "CROSSINGS", 1 << 30)
    best = float((one.project(w) - w).double().square().sum())
    monkeypatch.setattr(level_sets, "CROSSINGS", 0)
    projected = one.project(w)
    assert float((projected - w).double().square().sum()) <= 1.03 * best
    assert one.contains(projected)


@pytest.mark.parametrize("one", [s for s in STRUCTURES if s.convex], ids=repr)
@given(seeds=st.tuples(st.integers(0, 9999), st.integers(0, 9999)))
@settings(max_examples=25, deadline=None)
def test_convex_projections_do_not_expand(one: Constraint, seeds: tuple[int, int]) -> None:
    a, b = weight(seeds[0]), weight(seeds[1])
    assert float((one.project(a) - one.project(b)).norm()) <= float((a - b).norm()) * (1 + 1e-6)


def test_three_sets_are_convex() -> None:
    assert sum(s.convex for s in STRUCTURES) == 3
    assert not any(s.convex for s in LEVELS)


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
@pytest.mark.parametrize("level", [s for s in LEVELS if s.scale is None], ids=repr)
def test_structures_then_levels_end_in_both(structure: Constraint, level: Levels) -> None:
    if isinstance(structure, Window):
        structure = Window(-0.5, 0.5)
    result = intersected([structure, level], weight(11))
    assert level.contains(result)
    if not isinstance(structure, Window):  # a scale may round the largest weight up
        assert structure.contains(result)


def test_keep_counts_fractions_and_multiples() -> None:
    assert [Columns(k).kept(10) for k in (0.01, 0.25, 0.5, 1.0, 3, 50)] == [1, 3, 5, 10, 3, 10]
    assert [Columns(k, multiple=4).kept(10) for k in (0.01, 0.5, 1.0)] == [4, 8, 10]


def test_sets_from_a_recipe() -> None:
    assert isinstance(constraint({"set": "columns", "keep": 0.2}), Columns)
    given = NM(2, 4)
    assert constraint(given) is given
    assert {"filters", "channels", "columns", "blocks", "fragments", "n:m", "unstructured"} < set(constraint_types())


@pytest.mark.parametrize(
    ("make", "field", "nearest"),
    [
        (lambda: Columns(0.0), "columns.keep", "1"),
        (lambda: Filters(-2), "filters.keep", "1"),
        (lambda: Columns(0.5, multiple=0), "columns.multiple", "1"),
        (lambda: Blocks(1, rows=0), "blocks.rows", "1"),
        (lambda: NM(5, 4), "n:m.n", "4"),
        (lambda: Polarised(0), "fragments.rows", "1"),
        (lambda: Polarised(4, used="lefd"), "fragments.used", "left"),
        (lambda: Window(0.1, 1.0), "window.low, high", "(0, 1.0)"),
        (lambda: FixedPoint(1), "fixed-point.bits", "2"),
        (lambda: PowerOfTwo(9), "power-of-two.bits", "4"),
        (lambda: DeviceLevels([1, 2]), "device-levels.codes", None),
        (lambda: Levels([0, 1], scale=-1.0), "levels.scale", "1.0"),
        (lambda: constraint({"set": "colums", "keep": 1}), "constraint.set", "columns"),
        (lambda: constraint({"set": "columns", "kep": 1}), "constraint.columns", None),
    ],
)
def test_bad_input_is_named(make: Callable[[], object], field: str, nearest: str | None) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert (error.value.field, error.value.nearest) == (field, nearest)
