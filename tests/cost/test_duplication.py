"""Copies under an area budget."""

from __future__ import annotations

import numpy as np
import pytest

from crossloom.cost import duplication_for_area, estimate
from crossloom.errors import InputError
from crossloom.mapping import balanced_duplication, map_program

from .conftest import residual_network, small_chip


def test_the_budget_is_kept_used_and_buys_throughput() -> None:
    network, chip = residual_network(np.random.default_rng(0)), small_chip()
    single = estimate(map_program(network, chip))
    budget = 2 * single.area_m2
    copies = duplication_for_area(network, chip, budget)
    mapping = map_program(network, chip, copies)
    found = estimate(mapping)
    assert found.area_m2 <= budget
    assert found.throughput > single.throughput
    more = next(
        mapping.crossbars + extra
        for extra in range(1, 1000)
        if balanced_duplication(network, chip, mapping.crossbars + extra) != copies
    )
    larger = map_program(network, chip, balanced_duplication(network, chip, more))
    assert estimate(larger).area_m2 > budget


def test_too_small_a_budget_is_an_error_and_a_huge_one_copies_every_position() -> None:
    network, chip = residual_network(np.random.default_rng(0)), small_chip()
    with pytest.raises(InputError, match="one copy of every layer"):
        duplication_for_area(network, chip, 1e-12)
    copies = duplication_for_area(network, chip, 1.0)
    assert max(copies.values()) == 36


def test_a_chip_of_fixed_size_is_not_overfilled() -> None:
    network = residual_network(np.random.default_rng(0))
    tiles = map_program(network, small_chip()).tiles + 3
    chip = small_chip(hierarchy__tiles=tiles)
    mapping = map_program(network, chip, duplication_for_area(network, chip, 1.0))
    assert mapping.tiles <= tiles
