"""Star–mesh reduction of small tiles of cells to the ports on their edges, every tile in one core's cache.

A tile of h × w cells has ports where wires cross its edge, in the middle of a segment, in the order left (h), right
(h), bottom (w), top (w); rows count upwards from the sense amplifiers, columns rightwards from the drivers. A network
is its symmetric matrix of branch conductances; the diagonal means nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64
from numba import njit, prange

OPTIONS: dict[str, Any] = {
    "cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"},
}  # fmt: skip
"""Sums may be taken in any order: their terms are all positive."""


def reduce_tiles(
    cells: Float64[np.ndarray, "arrays rows columns"],
    left: Float64[np.ndarray, " columns"],
    right: Float64[np.ndarray, " columns"],
    bottom: Float64[np.ndarray, " rows"],
    top: Float64[np.ndarray, " rows"],
    height: int,
    width: int,
) -> Float64[np.ndarray, "arrays down across ports ports"]:
    """Every tile as branch conductances between its ports.

    Args:
        cells: cell conductances; the sides are multiples of the tile's.
        left: half segments of the wordlines to the left of every column; in the first, the drivers.
        right: half segments to the right of every column; in the last, the drivers, or 0 where the wires end.
        bottom: half segments of the bitlines below every row; in the first, the sense amplifiers.
        top: half segments above every row; in the last, the sense amplifiers, or 0 where the wires end.
        height: rows of a tile, a power of two.
        width: columns of a tile, a power of two.
    """
    made: Float64[np.ndarray, "arrays down across ports ports"] = _tiles(cells, left, right, bottom, top, height, width)
    return made


@njit(parallel=True, **OPTIONS)
def _tiles(cells, left, right, bottom, top, height, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    arrays, rows, columns = cells.shape
    down, across, ports = rows // height, columns // width, 2 * height + 2 * width
    out = np.empty((arrays, down, across, ports, ports))
    for t in prange(arrays * down * across):
        a, y, x = t // (down * across), t // across % down, t % across
        r, c = slice(y * height, (y + 1) * height), slice(x * width, (x + 1) * width)
        out[a, y, x] = _tile(cells[a, r, c], left[c], right[c], bottom[r], top[r])
    return out


@njit(**OPTIONS)
def _tile(cells, left, right, bottom, top):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """One tile: single cells, then pairs of equal blocks, side by side and on top of one another by turns."""
    down, across = cells.shape
    blocks = np.zeros((down, across, 4, 4))
    for y in range(down):
        for x in range(across):
            _cell(cells[y, x], left[x], right[x], bottom[y], top[y], blocks[y, x])
    h = w = 1
    while down * across > 1:
        sideways = across > 1 and (w <= h or down == 1)
        first, second = _joint(h, w, sideways)
        common = h if sideways else w
        if sideways:
            across, w = across // 2, 2 * w
        else:
            down, h = down // 2, 2 * h
        ports = 2 * h + 2 * w
        joined = np.empty((down, across, ports, ports))
        network = np.empty((common + ports, common + ports))
        for y in range(down):
            for x in range(across):
                network[:] = 0.0
                if sideways:
                    _add(network, blocks[y, 2 * x], first)
                    _add(network, blocks[y, 2 * x + 1], second)
                else:
                    _add(network, blocks[2 * y, x], first)
                    _add(network, blocks[2 * y + 1, x], second)
                _star_mesh(network, common)
                for a in range(ports):
                    joined[y, x, a, a] = 0.0
                    for b in range(a + 1, ports):
                        value = network[common + a, common + b]
                        joined[y, x, a, b] = value
                        joined[y, x, b, a] = value
        blocks = joined
    return blocks[0, 0]


@njit(**OPTIONS)
def _cell(g, left, right, bottom, top, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """One cell: the wordline node (left, right, cell), then the bitline node (bottom, top, cell) removed."""
    lr = lb = rb = 0.0
    total = left + right + g
    if total > 0:
        lr, lb, rb = left * (right / total), left * (g / total), right * (g / total)
    total = lb + rb + bottom + top
    if total > 0:
        out[0, 1] = lr + lb * (rb / total)
        out[0, 2], out[0, 3] = lb * (bottom / total), lb * (top / total)
        out[1, 2], out[1, 3] = rb * (bottom / total), rb * (top / total)
        out[2, 3] = bottom * (top / total)
    else:
        out[0, 1] = lr
    for a in range(1, 4):
        for b in range(a):
            out[a, b] = out[b, a]


@njit(**OPTIONS)
def _joint(h, w, sideways):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Where the ports of two h × w blocks go in the network of both, whose common ports come first."""
    ports = 2 * (h + w)
    first, second = np.empty(ports, np.int64), np.empty(ports, np.int64)
    rows, columns = np.arange(h), np.arange(w)
    left, right, bottom, top = 0, h, 2 * h, 2 * h + w
    if sideways:
        at = h
        first[left:right], second[left:right] = at + rows, rows
        first[right:bottom], second[right:bottom] = rows, at + h + rows
        first[bottom:top], second[bottom:top] = at + 2 * h + columns, at + 2 * h + w + columns
        first[top:], second[top:] = at + 2 * h + 2 * w + columns, at + 2 * h + 3 * w + columns
    else:
        at = w
        first[left:right], second[left:right] = at + rows, at + h + rows
        first[right:bottom], second[right:bottom] = at + 2 * h + rows, at + 3 * h + rows
        first[bottom:top], second[bottom:top] = at + 4 * h + columns, columns
        first[top:], second[top:] = columns, at + 4 * h + w + columns
    return first, second


@njit(**OPTIONS)
def _add(network, block, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for a in range(len(at)):
        for b in range(len(at)):
            network[at[a], at[b]] += block[a, b]


@njit(**OPTIONS)
def _star_mesh(network, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Remove the first `count` nodes, in the upper triangle; a node without branches leaves none."""
    nodes = len(network)
    for k in range(count):
        star = network[k]
        total = 0.0
        for j in range(k + 1, nodes):
            total += star[j]
        if total > 0:
            for i in range(k + 1, nodes):
                share = star[i] / total
                if share > 0:
                    mesh = network[i]
                    for j in range(i + 1, nodes):
                        mesh[j] += share * star[j]


@njit(parallel=True, **OPTIONS)
def remove_panel(stars, first, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Scale rows first … first + count − 1 of `stars` (arrays, removed, nodes) so that row_kᵀ·row_k is k's mesh.

    Rows before `first` have been removed and their meshes added to these; columns are in the order of removal, the
    nodes that stay last.
    """
    for a in prange(len(stars)):
        network = stars[a]
        nodes = network.shape[1]
        for k in range(first, first + count):
            star = network[k]
            total = 0.0
            for j in range(k + 1, nodes):
                total += star[j]
            scale = 1 / np.sqrt(total) if total > 0 else 0.0
            for j in range(k + 1):
                star[j] = 0.0
            for j in range(k + 1, nodes):
                star[j] *= scale
            for i in range(k + 1, first + count):
                share = star[i]
                if share > 0:
                    mesh = network[i]
                    for j in range(i + 1, nodes):
                        mesh[j] += share * star[j]
