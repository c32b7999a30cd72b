"""Joining reduced regions of a crossbar, two at a time, until only its terminals are left.

Every step removes the nodes on the common edge of two regions by matrix products over a whole batch of arrays. The
conductances between two inputs or two outputs are never formed: all of them are held at given voltages.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from jaxtyping import Float64

from crossloom.simulate.parasitic_tiles import remove_panel

LEFT, RIGHT, BOTTOM, TOP = range(4)

PANEL = 32
"""Nodes removed between two matrix products: enough to keep these efficient, few enough to leave them the work."""


@dataclass(frozen=True, eq=False)
class Region:
    """A rectangle of cells as branch conductances between its inner ports and the array's terminals.

    Attributes:
        sides: inner ports on the left, right, bottom and top edge; 0 at the edge of the array.
        size: (rows, columns) of cells.
        ports: between inner ports, in the order of `sides`; the diagonal means nothing.
        inputs: from inner ports to the sources of the region's rows (no columns where it touches no driver).
        outputs: from inner ports to the sense amplifiers of the region's columns, likewise.
        through: from sources to sense amplifiers.
    """

    sides: tuple[int, int, int, int]
    size: tuple[int, int]
    ports: Float64[np.ndarray, "arrays ports ports"]
    inputs: Float64[np.ndarray, "arrays ports inputs"]
    outputs: Float64[np.ndarray, "arrays ports outputs"]
    through: Float64[np.ndarray, "arrays inputs outputs"]

    def slices(self) -> list[slice]:
        """The ports of each side."""
        return _slices(self.sides)


def _slices(sizes: tuple[int, ...]) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(accumulate(sizes, initial=0))]


def reduce_regions(
    tiles: Float64[np.ndarray, "arrays down across ports ports"],
    height: int,
    width: int,
    both_driven: bool,
    both_sensed: bool,
) -> Float64[np.ndarray, "arrays inputs outputs"]:
    """Conductances between the sources and the sense amplifiers of every array; rows count upwards from the latter.

    Args:
        tiles: as `reduce_tiles` gives them.
        height: rows of a tile.
        width: columns of a tile.
        both_driven: the right end of every row is the same source as the left end; otherwise it is open.
        both_sensed: likewise the top end of every column.
    """
    _, down, across, *_ = tiles.shape
    grid = [
        [
            _region(
                tiles[:, y, x],
                (height, width),
                (x == 0, x == across - 1, y == 0, y == down - 1),
                (both_driven, both_sensed),
            )
            for x in range(across)
        ]
        for y in range(down)
    ]
    while len(grid) > 1 or len(grid[0]) > 1:
        rows, columns = grid[0][0].size
        if len(grid[0]) > 1 and (columns <= rows or len(grid) == 1):
            grid = [_pairs(line, sideways=True) for line in grid]
        else:
            lines = [_pairs(list(line), sideways=False) for line in zip(*grid, strict=True)]
            grid = [list(line) for line in zip(*lines, strict=True)]
    return grid[0][0].through


def _pairs(line: list[Region], sideways: bool) -> list[Region]:
    """Neighbours joined two by two; the last of an odd number stays."""
    joined = [join(a, b, sideways) for a, b in zip(line[::2], line[1::2], strict=False)]
    return joined + line[2 * len(joined) :]


def _region(
    tile: Float64[np.ndarray, "arrays ports ports"],
    size: tuple[int, int],
    at_edge: tuple[bool, bool, bool, bool],
    both: tuple[bool, bool],
) -> Region:
    """A tile as a region: ports at the array's edge become terminals, or vanish where the wire ends open."""
    height, width = size
    sides = _slices((height, height, width, width))
    spans = [range(s.start, s.stop) for s, edge in zip(sides, at_edge, strict=True) if not edge]
    inner = np.array([i for span in spans for i in span], np.int64)
    sources = [sides[LEFT]] * at_edge[LEFT] + [sides[RIGHT]] * (at_edge[RIGHT] and both[0])
    sinks = [sides[BOTTOM]] * at_edge[BOTTOM] + [sides[TOP]] * (at_edge[TOP] and both[1])
    arrays, rows, columns = len(tile), height * bool(sources), width * bool(sinks)
    inputs, outputs = np.zeros((arrays, len(inner), rows)), np.zeros((arrays, len(inner), columns))
    through = np.zeros((arrays, rows, columns))
    for source in sources:
        inputs += tile[:, inner, source]
    for sink in sinks:
        outputs += tile[:, inner, sink]
        for source in sources:
            through += tile[:, source, sink]
    free = tuple(0 if edge else s.stop - s.start for s, edge in zip(sides, at_edge, strict=True))
    left, right, bottom, top = free
    return Region((left, right, bottom, top), size, tile[:, inner[:, None], inner], inputs, outputs, through)


def join(first: Region, second: Region, sideways: bool) -> Region:
    """One region of two: `second` lies to the right of `first`, or above it."""
    meet = (RIGHT, LEFT) if sideways else (TOP, BOTTOM)
    parts = (first, second)
    kept = [[0 if side == m else p.sides[side] for side in range(4)] for p, m in zip(parts, meet, strict=True)]
    left, right, bottom, top = (a + b for a, b in zip(*kept, strict=True))
    sides = (left, right, bottom, top)
    _, rows, columns = zip(*(p.through.shape for p in parts), strict=True)
    inputs, sources = _terminals(rows, shared=sideways)
    outputs, sinks = _terminals(columns, shared=not sideways)
    common, ports, arrays = first.sides[meet[0]], sum(sides), len(first.ports)

    stars = np.zeros((arrays, common, common + ports + inputs + outputs))
    own, port, source_part, sink_part = np.split(stars, np.cumsum([common, ports, inputs]), axis=2)
    moves = [_moves(p, k, sides, i == 1, kept[0]) for i, (p, k) in enumerate(zip(parts, kept, strict=True))]
    for part, side, move, source, sink in zip(parts, meet, moves, sources, sinks, strict=True):
        edge = part.slices()[side]
        own += part.ports[:, edge, edge]
        for here, there in move:
            port[:, :, there] += part.ports[:, edge, here]
        source_part[:, :, source] += part.inputs[:, edge]
        sink_part[:, :, sink] += part.outputs[:, edge]
    _remove(stars)

    turned = np.swapaxes(port, 1, 2)
    (height, width), (height_too, width_too) = first.size, second.size
    made = Region(
        sides,
        (height, width + width_too) if sideways else (height + height_too, width),
        turned @ port,
        turned @ source_part,
        turned @ sink_part,
        np.swapaxes(source_part, 1, 2) @ sink_part,
    )
    for part, move, source, sink in zip(parts, moves, sources, sinks, strict=True):
        for here, there in move:
            for here_too, there_too in move:
                made.ports[:, there, there_too] += part.ports[:, here, here_too]
            made.inputs[:, there, source] += part.inputs[:, here]
            made.outputs[:, there, sink] += part.outputs[:, here]
        made.through[:, source, sink] += part.through
    return made


def _terminals(counts: tuple[int, ...], shared: bool) -> tuple[int, tuple[slice, slice]]:
    """How many terminals two regions have together, and which of them are whose."""
    first, second = counts
    start = 0 if shared else first
    return max(first, start + second), (slice(0, first), slice(start, start + second))


def _moves(
    part: Region, kept: list[int], sides: tuple[int, ...], is_second: bool, before: list[int]
) -> list[tuple[slice, slice]]:
    """Slices of the part's remaining ports, and where they go among the ports of the whole."""
    moves = []
    for here, there, count, ahead in zip(part.slices(), _slices(sides), kept, before, strict=True):
        if count:
            start = there.start + (ahead if is_second else 0)
            moves.append((here, slice(start, start + count)))
    return moves


def _remove(stars: Float64[np.ndarray, "arrays removed nodes"]) -> None:
    """Remove the first nodes, whose branches the rows are: afterwards rowsᵀ·rows are the branches they leave."""
    removed = stars.shape[1]
    for first in range(0, removed, PANEL):
        count = min(PANEL, removed - first)
        if first:
            done = stars[:, :first]
            factor = np.swapaxes(done[:, :, first : first + count], 1, 2)
            stars[:, first : first + count, first:] += factor @ done[:, :, first:]
        remove_panel(stars, first, count)
