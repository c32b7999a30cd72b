"""Hops and link loads equal those of messages that walk link by link."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cost.floorplan import BRANCHING, FloorPlan, Flows
from crossloom.hardware import Hierarchy


def plan(network: str, used: int, **more: object) -> FloorPlan:
    return FloorPlan(Hierarchy(arrays_per_macro=1, macros_per_tile=1, network=network, **more), used, 1e9)


def walk_mesh(plan: FloorPlan, source: int, target: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Links of one message, one step at a time."""
    (x, y), (x1, y1) = (tuple(int(v) for v in plan.position(np.array(t))) for t in (source, target))
    links = []
    while (x, y) != (x1, y1):
        step = (x + (1 if x1 > x else -1), y) if x != x1 else (x, y + (1 if y1 > y else -1))
        links.append(((x, y), step))
        x, y = step
    return links


def walk_tree(source: int, target: int) -> list[tuple[str, int, int]]:
    """Links of one message: up from the source and down to the target until they meet."""
    links, level = [], 0
    while source != target:
        links += [("up", level, source), ("down", level, target)]
        source, target, level = source // BRANCHING, target // BRANCHING, level + 1
    return links


flows_of = st.lists(st.tuples(st.integers(0, 22), st.integers(0, 22), st.integers(1, 1000)), min_size=1, max_size=30)


def build(messages: list[tuple[int, int, int]]) -> Flows:
    columns = [np.array(column) for column in zip(*messages, strict=True)]
    return Flows.of([(columns[0], columns[1], columns[2])])


@given(flows_of)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("network", ["mesh", "h_tree", "bus"])
def test_hops_and_busiest_link(network: str, messages: list[tuple[int, int, int]]) -> None:
    made = plan(network, 23)
    loads: Counter[object] = Counter()
    total = 0
    for source, target, bits in messages:
        if network == "bus":
            links: list[object] = ["bus"] if source != target else []
        else:
            links = list(walk_mesh(made, source, target) if network == "mesh" else walk_tree(source, target))
        total += bits * len(links)
        for link in links:
            loads[link] += bits
    flows = build(messages)
    assert made.bit_hops(flows) == total
    assert made.busiest_link(flows) == max(loads.values(), default=0)


def test_successive_tiles_are_neighbours_on_the_mesh() -> None:
    made = plan("mesh", 23)
    flows = build([(t, t + 1, 1) for t in range(22)])
    assert set(made.hops(flows).tolist()) == {1}


def test_a_fixed_chip_keeps_its_size() -> None:
    assert plan("mesh", 3, tiles=168).side == 13
    assert plan("mesh", 0).tiles == 1


def test_time_is_the_busiest_link_and_the_longest_way() -> None:
    made = plan("mesh", 9, link_bits=8)
    flows = build([(0, 2, 80), (1, 2, 160)])
    assert made.time(flows, 5e-9) == pytest.approx(240 / 8e9 + 2 * 5e-9)
    assert made.time(Flows.of([]), 5e-9) == 0
