"""The network between tiles: distances in hops and the load of every link.

Tiles lie in the order of `Mapping.arrays`. On a mesh they fill a square row by row, every second row backwards, so
that tiles with successive numbers are neighbours; messages go along x first, then along y. In an H-tree four nodes
share a parent. On a bus every message takes the one link. The chip's port to the outside is at tile 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from crossloom.hardware import Hierarchy

BRANCHING = 4
"""Children of one H-tree node: an H joins four quarters."""


@dataclass(frozen=True, eq=False)
class Flows:
    """Messages between tiles, per image.

    Attributes:
        source, target: tile numbers.
        bits: carried by each.
    """

    source: Integer[np.ndarray, " flows"]
    target: Integer[np.ndarray, " flows"]
    bits: Float[np.ndarray, " flows"]

    @staticmethod
    def of(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Flows:
        """One record of many (source, target, bits); messages that stay in their tile are dropped."""
        if not parts:
            return Flows(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        source, target, bits = (np.concatenate([np.asarray(part[i]).reshape(-1) for part in parts]) for i in range(3))
        moved = (source != target) & (bits > 0)
        return Flows(source[moved].astype(np.int64), target[moved].astype(np.int64), bits[moved].astype(np.float64))

    @staticmethod
    def joined(flows: list[Flows]) -> Flows:
        """All messages of several records."""
        return Flows.of([(f.source, f.target, f.bits) for f in flows])


class FloorPlan:
    """Tiles on a network.

    Args:
        hierarchy: which network, link width and, if the chip has a fixed size, how many tiles.
        tiles: in use.
        clock: of the digital logic, Hz, where the network has none of its own.
    """

    def __init__(self, hierarchy: Hierarchy, tiles: int, clock: float) -> None:
        self.kind = hierarchy.network
        self.tiles = max(tiles, hierarchy.tiles or 1, 1)
        self.side = math.isqrt(self.tiles - 1) + 1
        self.depth = 0
        while BRANCHING**self.depth < self.tiles:
            self.depth += 1
        self.clock = hierarchy.network_clock or clock
        self.bandwidth = hierarchy.link_bits * self.clock

    def position(self, tile: Integer[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) of tiles on the mesh."""
        y, x = np.divmod(tile, self.side)
        return np.where(y % 2 == 1, self.side - 1 - x, x), y

    def hops(self, flows: Flows) -> Integer[np.ndarray, " flows"]:
        """Routers that each message passes on its way, not counting the one it starts at."""
        if self.kind == "bus":
            return np.ones(len(flows.bits), np.int64)
        if self.kind == "mesh":
            (x0, y0), (x1, y1) = self.position(flows.source), self.position(flows.target)
            return np.asarray(np.abs(x0 - x1) + np.abs(y0 - y1))
        climbed = np.zeros(len(flows.bits), np.int64)
        for level in range(self.depth):
            climbed += flows.source // BRANCHING**level != flows.target // BRANCHING**level
        return 2 * climbed

    def bit_hops(self, flows: Flows) -> float:
        """Σ bits × hops."""
        return float(flows.bits @ self.hops(flows))

    def busiest_link(self, flows: Flows) -> float:
        """Bits on the link that carries most of them: the bound that contention sets."""
        if not len(flows.bits):
            return 0.0
        if self.kind == "bus":
            return float(flows.bits.sum())
        return self._busiest_mesh(flows) if self.kind == "mesh" else self._busiest_tree(flows)

    def _busiest_tree(self, flows: Flows) -> float:
        worst = 0.0
        for level in range(self.depth):
            up, down = flows.source // BRANCHING**level, flows.target // BRANCHING**level
            crossing = up != down
            for ends in (up, down):
                if crossing.any():
                    worst = max(worst, float(np.bincount(ends[crossing], flows.bits[crossing]).max()))
        return worst

    def _busiest_mesh(self, flows: Flows) -> float:
        (x0, y0), (x1, y1) = self.position(flows.source), self.position(flows.target)
        worst = 0.0
        # One wire each way between neighbours: rightwards and leftwards at row y0, then down and up at column x1.
        for line, start, stop in ((y0, x0, x1), (x1, y0, y1)):
            for forward in (True, False):
                goes = stop > start if forward else stop < start
                if not goes.any():
                    continue
                low, high = np.minimum(start, stop)[goes], np.maximum(start, stop)[goes]
                load = np.zeros((self.side, self.side + 1))
                np.add.at(load, (line[goes], low), flows.bits[goes])
                np.add.at(load, (line[goes], high), -flows.bits[goes])
                worst = max(worst, float(load.cumsum(1).max()))
        return worst

    def time(self, flows: Flows, hop_latency: float) -> float:
        """Seconds until all messages have arrived: the busiest link, then the longest way of the last flit."""
        if not len(flows.bits):
            return 0.0
        return self.busiest_link(flows) / self.bandwidth + float(self.hops(flows).max()) * hop_latency
