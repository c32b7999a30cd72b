"""One mapped layer as index arrays: which block holds which rows and columns, in which macro and tile.

Arrays that hold the same run of core rows form a *band*; those that hold the same run of core columns a *stripe*.
Bands share inputs, stripes share sums: every count of data moved is a count over (macro, band) or (macro, stripe).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Integer

from crossloom.mapping import Block, LayerMapping, Mapping


@dataclass(frozen=True, eq=False)
class Geometry:
    """A layer's blocks by number.

    Attributes:
        mapped: the layer.
        band, stripe: of each block.
        bands, stripes: one block of each band and each stripe.
        macro: of each copy's blocks, numbered over the chip.
        tile: of each copy's blocks.
    """

    mapped: LayerMapping
    band: Integer[np.ndarray, " blocks"]
    stripe: Integer[np.ndarray, " blocks"]
    bands: tuple[Block, ...]
    stripes: tuple[Block, ...]
    macro: Integer[np.ndarray, "copies blocks"]
    tile: Integer[np.ndarray, "copies blocks"]

    @cached_property
    def band_rows(self) -> Integer[np.ndarray, " bands"]:
        """Array rows of each band."""
        return np.array([_length(b.groups) * _length(b.rows) for b in self.bands], np.int64)

    @cached_property
    def stripe_columns(self) -> Integer[np.ndarray, " stripes"]:
        """Core columns of each stripe."""
        return np.array([_length(b.groups) * _length(b.columns) for b in self.stripes], np.int64)

    @cached_property
    def rows(self) -> Integer[np.ndarray, " blocks"]:
        """Array rows used by each block."""
        return np.asarray(self.band_rows[self.band])

    @cached_property
    def columns(self) -> Integer[np.ndarray, " blocks"]:
        """Physical columns used by each block."""
        return np.asarray(self.stripe_columns[self.stripe] * self.mapped.code.columns)

    @cached_property
    def windows(self) -> Integer[np.ndarray, " blocks"]:
        """Row groups of each block, read one after another."""
        return -(-self.rows // self.mapped.array.active_rows)

    @cached_property
    def reads(self) -> Integer[np.ndarray, " blocks"]:
        """Reads of each block for one input vector; windows that a stream has no row for are known and left out."""
        mapped = self.mapped
        if len(mapped.streams) == 1:
            return np.asarray(self.windows * len(mapped.drives))
        fed = [np.diff(stream.matrix().indptr) > 0 for stream in mapped.streams]
        height = mapped.array.active_rows
        bands = [
            sum(
                int(rows[start : start + height].any())
                for rows in (stream[mapped.core_rows(block)] for stream in fed)
                for start in range(0, len(rows), height)
            )
            for block in self.bands
        ]
        return np.asarray(np.array(bands, np.int64)[self.band] * len(mapped.stream_digits))

    @cached_property
    def instances(self) -> dict[str, int]:
        """Arrays, macros and tiles that hold the layer, all copies; a tile may hold other layers too."""
        return {"array": self.macro.size, "macro": len(np.unique(self.macro)), "tile": len(np.unique(self.tile))}

    @cached_property
    def band_groups(self) -> int:
        """Groups of the layer that have at least one band."""
        return len({g for b in self.bands for g in range(*b.groups)})

    @cached_property
    def macro_rows(self) -> int:
        """Σ over one copy's macros of the different core rows each of them is fed with."""
        macro, bands = self.macro[0], max(len(self.bands), 1)
        return int(self.band_rows[np.unique(macro * bands + self.band) % bands].sum())

    @cached_property
    def macro_columns(self) -> int:
        """Σ over one copy's macros of the different core columns each of them makes sums for."""
        macro, stripes = self.macro[0], max(len(self.stripes), 1)
        return int(self.stripe_columns[np.unique(macro * stripes + self.stripe) % stripes].sum())

    @cached_property
    def live(self) -> Bool[np.ndarray, " outputs"]:
        """Output channels that arrays make; the others are constants."""
        layer = self.mapped.layer
        made = np.zeros(layer.groups * layer.core.shape[2] + 1, bool)
        for block in self.stripes:
            made[self.mapped.core_columns(block)] = True
        made[-1] = False
        columns = np.arange(layer.outputs) if layer.output.columns is None else layer.output.columns
        return np.asarray(made[columns])

    @cached_property
    def channels(self) -> Integer[np.ndarray, " stripes"]:
        """Output channels that each stripe feeds (a core column may feed several)."""
        layer = self.mapped.layer
        if layer.output.columns is None:
            return self.stripe_columns
        fed = layer.output.columns[layer.output.columns >= 0]
        per_column = np.bincount(fed, minlength=layer.groups * layer.core.shape[2])
        return np.array([per_column[self.mapped.core_columns(b)].sum() for b in self.stripes], np.int64)

    @cached_property
    def support(self) -> Bool[np.ndarray, "bands inputs"]:
        """Elements of the input vector that each band's rows of P x are made of."""
        transform = self.mapped.layer.transform
        found = np.zeros((len(self.bands), transform.inputs), bool)
        matrix = None if transform.is_identity else transform.matrix()
        for i, block in enumerate(self.bands):
            rows = self.mapped.core_rows(block)
            found[i, rows if matrix is None else matrix[rows].indices] = True
        return found

    @cached_property
    def input_channels(self) -> Bool[np.ndarray, "bands channels"]:
        """Input channels that each band reads from."""
        return np.asarray(self.support.reshape(len(self.bands), self.mapped.layer.in_channels, -1).any(2))

    def output_share(self) -> dict[int, float]:
        """Which fraction of the output channels is finished on which tile: the last one of every stripe's chain."""
        share: dict[int, float] = {}
        outputs, copies = self.mapped.layer.outputs, self.mapped.copies
        for tiles in self.tile:
            for stripe in range(len(self.stripes)):
                last = int(tiles[self.stripe == stripe].max())
                share[last] = share.get(last, 0.0) + float(self.channels[stripe]) / outputs / copies
        constants = 1.0 - sum(share.values())
        if constants > 1e-12:
            home = int(self.tile.max(initial=0))
            share[home] = share.get(home, 0.0) + constants
        return share

    def chains(self) -> list[tuple[int, int, int, int]]:
        """(copy, from tile, to tile, core columns): partial sums pass from tile to tile and end in the last."""
        found: list[tuple[int, int, int, int]] = []
        for copy, tiles in enumerate(self.tile):
            if len(tiles) == 0 or tiles.min() == tiles.max():
                continue
            for stripe in range(len(self.stripes)):
                chain = np.unique(tiles[self.stripe == stripe])
                columns = int(self.stripe_columns[stripe])
                found += [(copy, int(a), int(b), columns) for a, b in pairwise(chain)]
        return found

    def tiles_of_band(self) -> Integer[np.ndarray, "pairs two"]:
        """(tile, band) pairs over all copies, each once."""
        copies = np.broadcast_to(self.band, self.tile.shape)
        pairs = np.stack([self.tile.reshape(-1), copies.reshape(-1)], axis=1)
        return np.unique(pairs, axis=0)


def _length(run: tuple[int, int]) -> int:
    return run[1] - run[0]


def geometries(mapping: Mapping) -> dict[str, Geometry]:
    """The geometry of every layer, placed as `Mapping.arrays` says."""
    per_tile = mapping.chip.hierarchy.macros_per_tile
    places: dict[str, list[tuple[int, int]]] = {name: [] for name in mapping.layers}
    for array in mapping.arrays:
        places[array.layer].append((array.tile * per_tile + array.macro, array.tile))
    found = {}
    for name, mapped in mapping.layers.items():
        bands: dict[object, int] = {}
        stripes: dict[object, int] = {}
        band_of: list[int] = []
        stripe_of: list[int] = []
        band_blocks: list[Block] = []
        stripe_blocks: list[Block] = []
        for block in mapped.blocks:
            band = bands.setdefault((block.groups, block.rows), len(bands))
            stripe = stripes.setdefault((block.groups, block.columns), len(stripes))
            band_blocks += [block] if band == len(band_blocks) else []
            stripe_blocks += [block] if stripe == len(stripe_blocks) else []
            band_of.append(band)
            stripe_of.append(stripe)
        placed = np.array(places[name], np.int64).reshape(mapped.copies, len(mapped.blocks), 2)
        found[name] = Geometry(
            mapped, np.array(band_of, np.int64), np.array(stripe_of, np.int64), tuple(band_blocks),
            tuple(stripe_blocks), placed[:, :, 0], placed[:, :, 1],
        )  # fmt: skip
    return found
