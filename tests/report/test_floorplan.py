from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.compiled import CompiledChip
from crossloom.report import floorplan
from crossloom.report.floorplan import ALPHABET, picture, plan, shrink_factor, side


def test_every_array_has_its_place(chip: CompiledChip) -> None:
    drawn = plan(chip)
    hierarchy = chip.hardware.hierarchy
    found = {}
    for t, tile in enumerate(drawn.tiles):
        assert len(tile) == hierarchy.macros_per_tile
        for m, macro in enumerate(tile):
            assert len(macro) == hierarchy.arrays_per_macro
            for s, slot in enumerate(macro):
                if slot.layer >= 0:
                    found[t, m, s] = slot
    assert len(found) == chip.crossbars
    for placed in chip.mapping.arrays:
        slot = found[placed.tile, placed.macro, placed.slot]
        assert (slot.name, slot.block, slot.copy, slot.index) == (
            placed.layer,
            placed.block,
            placed.copy,
            placed.index,
        )
        assert drawn.layers[slot.layer] == placed.layer
        assert slot.utilisation == chip.mapping.array_utilisation(placed)
        assert slot.width / 100 * slot.height / 100 == pytest.approx(slot.utilisation, abs=1e-4)
    assert drawn.undrawn == 0
    assert dict(zip(drawn.layers, drawn.arrays_of, strict=True)) == Counter(a.layer for a in chip.mapping.arrays)


def test_maps_are_the_programmed_cells(chip: CompiledChip) -> None:
    details = plan(chip).details
    assert details["shrink"] == 1
    top = (1 << chip.hardware.array.b_cell) - 1
    for layer, blocks in zip(chip.mapping.layers.values(), details["layers"], strict=True):
        for block, told in zip(layer.blocks, blocks, strict=True):
            cells = layer.cells(block)
            pixels = np.array([ALPHABET.index(letter) for letter in told["map"]]).reshape(-1, told["width"])
            np.testing.assert_array_equal(pixels, cells.levels * 63 // top)
            assert told["used"] == list(cells.levels.shape)
            assert told["flipped"] == cells.flipped.sum()
            assert told["level"] == pytest.approx(cells.levels.mean(), abs=1e-4)


@settings(deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 9), st.sampled_from([1, 3, 15]), st.integers(0, 2**32 - 1)
)
def test_a_pixel_is_the_mean_of_its_cells(rows: int, columns: int, factor: int, top: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, top + 1, (rows, columns), np.uint8)
    expected = ""
    for r in range(0, rows, factor):
        for c in range(0, columns, factor):
            cells = [levels[i, j] for i in range(r, min(r + factor, rows)) for j in range(c, min(c + factor, columns))]
            expected += ALPHABET[int(np.floor(sum(map(int, cells)) / len(cells) * 63 / top + 0.5))]
    assert picture(levels, top, factor) == expected


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=5), st.integers(1, 500))
def test_maps_shrink_no_more_than_they_must(shapes: list[tuple[int, int]], budget: int) -> None:
    def size(factor: int) -> int:
        return sum(-(-rows // factor) * -(-columns // factor) for rows, columns in shapes)

    factor = shrink_factor(shapes, budget)
    assert size(factor) <= budget or size(factor) == len(shapes)
    assert factor == 1 or size(factor - 1) > budget


def test_what_is_too_much_to_draw_is_said(chip: CompiledChip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floorplan, "MOST_ARRAYS", 5)
    drawn = plan(chip)
    assert drawn.undrawn == chip.crossbars - 5
    slots = [slot for tile in drawn.tiles for macro in tile for slot in macro if slot.layer >= 0]
    assert [slot.index for slot in slots] == [0, 1, 2, 3, 4]
    for slot in slots:
        assert drawn.details["layers"][slot.layer][slot.block]["map"]


def test_large_macros_show_no_empty_places(chip: CompiledChip) -> None:
    hardware = chip.hardware.override({"hierarchy.arrays_per_macro": 1000, "hierarchy.macros_per_tile": 2})
    wide = CompiledChip(replace(chip.mapping, chip=hardware))
    slots = [slot for tile in plan(wide).tiles for macro in tile for slot in macro]
    assert len(slots) == chip.crossbars
    assert all(slot.layer >= 0 for slot in slots)


@pytest.mark.parametrize(("places", "beside"), [(1, 1), (2, 2), (4, 2), (7, 7), (8, 4), (12, 4), (16, 4), (64, 8)])
def test_places_side_by_side(places: int, beside: int) -> None:
    assert side(places) == beside


def test_a_tiles_utilisation_counts_its_empty_places(chip: CompiledChip) -> None:
    hierarchy, mapping = chip.hardware.hierarchy, chip.mapping
    places = hierarchy.arrays_per_macro * hierarchy.macros_per_tile
    found = plan(chip).uses
    assert len(found) == mapping.tiles
    for tile, use in enumerate(found):
        inside = [mapping.array_utilisation(a) for a in mapping.arrays if a.tile == tile]
        assert use == pytest.approx(sum(inside) / places)
