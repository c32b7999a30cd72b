"""Sums over cells equal those over `LayerMapping.cells`, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from crossloom.cost.cells import CellTable
from crossloom.mapping import cut, packed

from .conftest import convolution, image, layer, linear, small_chip

LEVELS = {1: (1e-6, 40e-6), 2: (1e-6, 9e-6, 30e-6, 31e-6)}


@pytest.mark.parametrize(
    ("encoding", "flip"),
    [("offset", False), ("offset", True), ("differential", False), ("twos_complement", False), ("polarised", False)],
)
@pytest.mark.parametrize("b_cell", [1, 2])
def test_rows_and_flips_equal_the_cells(encoding: str, flip: bool, b_cell: int) -> None:
    rng = np.random.default_rng(b_cell)
    chip = small_chip(array__encoding=encoding, array__b_cell=b_cell, array__flip=flip)
    for groups in (1, 4):
        mapped = cut(packed(layer(rng, "fc", 40, 12, groups=groups), chip.array.fragment), chip.array)
        table = CellTable(mapped)
        for block in mapped.blocks:
            cells = mapped.cells(block)
            np.testing.assert_array_equal(table.flipped(block), cells.flipped)
            expected = np.asarray(LEVELS[b_cell])[cells.levels].sum(1)
            np.testing.assert_allclose(table.row_conductance(block, LEVELS[b_cell]), expected, rtol=1e-12)
        together = table.row_conductances(mapped.blocks, LEVELS[b_cell])
        for block, found in zip(mapped.blocks, together, strict=True):
            np.testing.assert_allclose(found, table.row_conductance(block, LEVELS[b_cell]), rtol=1e-12)


def test_no_blocks_no_sums() -> None:
    mapped = cut(layer(np.random.default_rng(0), "fc", 8, 4), small_chip().array)
    assert CellTable(mapped).row_conductances([], LEVELS[2]) == []


def test_binary_and_packed_depthwise_layers() -> None:
    rng = np.random.default_rng(0)
    binary = layer(rng, "fc", 20, 12, weight_bits=2)
    binary.core[:] = rng.choice([-1, 1], binary.core.shape)
    mapped = cut(type(binary)(**{**vars(binary), "weight_bits": 1}), small_chip(array__b_cell=1).array)
    assert mapped.code.encoding == "binary"
    node = convolution(rng, image(8, 4), "depthwise", 8, groups=8)
    packed = cut(node.layer, small_chip(array__rows=32, array__active_rows=32).array)
    assert any(b.groups[1] - b.groups[0] > 1 for b in packed.blocks)
    for mapping, bits in ((mapped, 1), (packed, 2)):
        table = CellTable(mapping)
        for block in mapping.blocks:
            expected = np.asarray(LEVELS[bits])[mapping.cells(block).levels].sum(1)
            np.testing.assert_allclose(table.row_conductance(block, LEVELS[bits]), expected, rtol=1e-12)


def test_all_zero_weights_sit_at_the_code_of_zero() -> None:
    rng = np.random.default_rng(0)
    node = linear(rng, image(8, 1).__class__(name="x", inputs=(), format=image().format, shape=(8,)), "fc", 2)
    node.layer.core[:] = 0
    node.layer.core[0, 0, 0] = 1
    mapped = cut(node.layer, small_chip().array)
    # Offset 128 is 2·4³: levels (0, 0, 0, 2) in every weight but the first, which has (1, 0, 0, 2).
    rows = CellTable(mapped).row_conductance(mapped.blocks[0], (0.0, 1.0, 10.0, 100.0))
    assert rows.tolist() == [21.0, *[20.0] * 7]
