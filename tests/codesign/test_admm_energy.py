"""On the AND engine, energy follows weight bits × activation bits × kept weights: the point of pruning for it."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import crossloom
from crossloom.codesign.admm_points import RECIPES
from crossloom.cost import CostReport, estimate
from crossloom.mapping import map_program
from crossloom.methods import ADMM, Columns, Filters, FixedPoint
from crossloom.weave.compaction import compacted

ROWS = 32
CHIP = crossloom.load("sot-mram-and", RECIPES["lenet5-caffe"].overrides)
PARTS = ("sense", "counter")
"""What the ANDs and counts of an image take: the cells' own V²·G·t depends on the weights' bits besides."""


@functools.cache
def report(bits: int, activations: int, rows: int, columns: int) -> CostReport:
    """A layer of 128 inputs and 24 outputs, pruned to so many rows and columns of so many bits."""
    torch.manual_seed(0)
    x = torch.rand(8, 128)
    config = crossloom.QuantisationConfig(input=crossloom.QuantiserConfig(bits=activations))
    module = crossloom.convert(nn.Sequential(nn.Linear(128, 24), nn.Linear(24, 2)).eval(), x[:2], config)
    admm = ADMM({"0": [Filters(columns), Columns(rows), FixedPoint(bits)], "1": [FixedPoint(8)]}, flow=None)
    admm.prepare(module)
    admm.finish(module)
    crossloom.calibrate(module, [x])
    return estimate(map_program(compacted(crossloom.compile(module, CHIP).program), CHIP))


def spent(found: CostReport) -> float:
    """Energy of the first layer's ANDs and counts, J."""
    layer = next(layer for layer in found.layers if layer.columns)
    return sum(layer.energy_by_component[part] for part in PARTS)


@given(
    bits=st.integers(2, 8), activations=st.integers(2, 8), blocks=st.integers(1, 4), columns=st.integers(1, 24)
)  # fmt: skip
@settings(max_examples=6, deadline=None)
def test_energy_is_bits_times_bits_times_kept_weights(bits: int, activations: int, blocks: int, columns: int) -> None:
    one = spent(report(8, 8, ROWS, 24))
    share = (bits / 8) * (activations / 8) * blocks * (columns / 24)
    assert spent(report(bits, activations, blocks * ROWS, columns)) == pytest.approx(share * one, rel=1e-9)


def test_the_whole_layer_follows_within_its_periphery() -> None:
    dense, sparse = report(8, 8, 128, 24), report(5, 8, ROWS, 8)
    kept = (5 / 8) * (ROWS / 128) * (8 / 24)
    ratio = sparse.layers[1].energy_j / dense.layers[1].energy_j
    assert kept < ratio < 6 * kept, "buffers and shift-and-add do not shrink as much, the arrays do"
    assert sparse.programming.energy_j < 2 * kept * dense.programming.energy_j + dense.programming.energy_j * 0.2
