"""What arrays of imperfect cells add to a product of integers: which blocks have an array, what their cells read
beyond their level, and the sum of rounded reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from crossloom.methods.cell_draws import SLICES, ArrayCells, Draw, levels, parts
from crossloom.weave import Field, WeightCode

CHUNK = 1 << 20
"""Reads of one batched product: about what a core's cache holds in 32 bits."""


def allocated(
    weights: Float[Tensor, "outputs rows"], code: WeightCode, cells: ArrayCells
) -> Bool[Tensor, "down across"]:
    """Which array-sized blocks hold a weight other than 0: only those get an array."""
    height, width = cells.rows, cells.columns // code.columns
    held = F.pad(weights != 0, (0, -weights.shape[1] % height, 0, -len(weights) % width))
    return held.reshape(held.shape[0] // width, width, -1, height).any(3).any(1).T


def spread(
    blocks: Bool[Tensor, "down across"], like: Float[Tensor, "rows outputs"], code: WeightCode, cells: ArrayCells
) -> Bool[Tensor, "rows outputs"]:
    """A flag per block as one per weight."""
    width = cells.columns // code.columns
    return blocks.repeat_interleave(cells.rows, 0)[: len(like)].repeat_interleave(width, 1)[:, : like.shape[1]]


def flipped(level: Float[Tensor, "rows outputs"], cells: ArrayCells) -> Bool[Tensor, "rows outputs"]:
    """Which cells hold top − level: whole columns of an array whose levels are more than half of what they could be."""
    height, rows = cells.rows, len(level)
    sums = F.pad(level, (0, 0, 0, -rows % height)).view(-1, height, level.shape[1]).sum(1)
    counts = torch.full((len(sums), 1), float(height), device=level.device)
    counts[-1] = rows - (len(sums) - 1) * height
    return (sums * 2 > cells.top * counts).repeat_interleave(height, 0)[:rows]


def read_beyond(
    level: Float[Tensor, "..."], a: Tensor, b: Tensor, flips: Bool[Tensor, "..."] | None, cells: ArrayCells
) -> Float[Tensor, "..."]:
    """a·c + b of what cells hold, as it counts in the column's sum: with the other sign where the column is flipped."""
    if flips is None:
        return torch.addcmul(b, a, level)
    held = torch.where(flips, cells.top - level, level)
    found = torch.addcmul(b, a, held)
    return torch.where(flips, -found, found)


def deviations(
    weights: Float[Tensor, "outputs rows"], code: WeightCode, cells: ArrayCells, draw: Draw, place: str
) -> Float[Tensor, SLICES]:
    """What every cell reads beyond its level; 0 in blocks of zero weights, which get no array."""
    target = levels(weights, code)
    a, b = draw(target, place)
    flips = torch.stack([flipped(level, cells) for level in target]) if cells.flip else None
    found = read_beyond(target, a, b, flips, cells)
    blocks = allocated(weights, code, cells)
    return found if bool(blocks.all()) else found * spread(blocks, found[0], code, cells)


def summed_deviation(
    weights: Float[Tensor, "outputs rows"], code: WeightCode, cells: ArrayCells, draw: Draw, place: str
) -> Float[Tensor, "rows outputs"]:
    """Σ_s gain_s · `deviations`_s, slice by slice without ever holding all of them."""
    w = weights.T.to(torch.int16).contiguous()
    a, b = draw(weights.new_empty(1).expand(code.columns, *w.shape), place)
    stored = parts(w, code)
    found = torch.zeros(w.shape, dtype=weights.dtype, device=w.device)
    for s, piece in enumerate(code.slices):
        level = ((stored[piece.part] >> piece.field.lsb) & ((1 << piece.field.width) - 1)).to(weights.dtype)
        flips = flipped(level, cells) if cells.flip else None
        found.add_(read_beyond(level, a[s], b[s], flips, cells), alpha=piece.gain)
    blocks = allocated(weights, code, cells)
    return found if bool(blocks.all()) else found.mul_(spread(blocks, found, code, cells))


def read_error(
    x: Float[Tensor, "vectors rows"], deviation: Float[Tensor, SLICES], gains: Sequence[int], digits: Sequence[Field],
    height: int, chunk: int = CHUNK,
) -> Float[Tensor, "vectors outputs"]:  # fmt: skip
    """The sum of rounded reads, in accumulator steps.

    Args:
        x: integer input codes; computed in `deviation`'s type.
        deviation: of every cell, level steps.
        gains: what one step read from each slice is worth.
        digits: the 1-bit fields of an input code.
        height: rows of an array.
        chunk: reads held at once.

    Returns:
        float64 where `deviation` is, else float32.
    """
    slices, rows, outputs = deviation.shape
    height = min(height, rows)
    blocks = -(-rows // height)
    cells = F.pad(deviation, (0, 0, 0, blocks * height - rows)).permute(1, 0, 2)
    cells = cells.reshape(blocks, height, slices * outputs)
    codes = F.pad(x, (0, blocks * height - rows)).to(torch.int32).contiguous()
    wide = torch.float64 if deviation.dtype == torch.float64 else torch.float32
    worth = torch.tensor([f.weight for f in digits], dtype=deviation.dtype, device=x.device).repeat(blocks)
    gain = torch.tensor(gains, dtype=wide, device=x.device)
    lsb = torch.tensor([f.lsb for f in digits], dtype=torch.int32, device=x.device)
    step = max(chunk // (blocks * len(digits) * slices * outputs), 1)
    found = torch.empty(len(x), outputs, dtype=wide, device=x.device)
    for start in range(0, len(x), step):
        part = codes[start : start + step]
        bits = (part >> lsb[:, None, None]) & 1  # (digits, vectors, blocks × height)
        planes = bits.view(len(digits) * len(part), blocks, height).transpose(0, 1).to(deviation.dtype)
        reads = torch.bmm(planes, cells).add_(0.5).floor_()
        total = worth @ reads.view(blocks * len(digits), -1)
        found[start : start + step] = torch.einsum("vsn,s->vn", total.view(len(part), slices, outputs).to(wide), gain)
    return found


def sections(groups: int, outputs: int, rows: int, code: WeightCode, cells: ArrayCells) -> list[tuple[int, int]]:
    """The runs (start, stop) of groups that share arrays: small groups lie along one array's diagonal, as the mapping
    packs them.

    Args:
        groups: of the convolution.
        outputs: of one group.
        rows: core rows of one group.
        code: of the weights; ±1 cells hold no 0, so that such groups cannot share an array.
        cells: the array.
    """
    packed = min(cells.rows // max(rows, 1), cells.columns // code.columns // max(outputs, 1), groups)
    packed = 1 if code.encoding == "binary" else max(packed, 1)
    return [(start, min(start + packed, groups)) for start in range(0, groups, packed)]
