"""Cells that are not what they should be, as training sees them: programming variation and stuck-at faults.

A cell of level c reads as c·e^θ, θ ~ N(0, ε²), or, if it is stuck, as level 0 or the top level. Either way the read
deviates from c by a·c + b: (a, b) = (e^θ − 1, 0), (−1, 0) or (−1, top). A draw is a pair of tensors (a, b), so that
it does not depend on the weights and can be drawn ahead of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossloom.errors import InputError
from crossloom.hardware import Chip
from crossloom.weave import WeightCode, weight_code
from crossloom.weave.encoding import EncodingName

BANK = 1 << 22
"""Cells in the bank that fresh draws are cut from."""

SLICES = "slices rows columns"


@dataclass(frozen=True)
class ArrayCells:
    """What the simulator in the training forward pass knows of an array and its cells.

    Attributes:
        rows: rows H of an array, all driven at once.
        columns: physical columns W of an array.
        cell_bits: bits of a cell.
        encoding: how weights become cells.
        epsilon: ε, the standard deviation of θ.
        stuck_hrs: share of the cells that read as level 0 whatever is written.
        stuck_lrs: share of the cells that read as the top level.
        flip: whether a column that would hold more than half of its top level holds the complement (ISAAC).

    Raises:
        InputError: a share outside 0 … 1, a negative ε, sizes below 1, or polarised cells.
    """

    rows: int = 128
    columns: int = 128
    cell_bits: int = 2
    encoding: EncodingName = "offset"
    epsilon: float = 0.1
    stuck_hrs: float = 0.0904
    stuck_lrs: float = 0.0175
    flip: bool = False

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or self.cell_bits < 1:
            raise InputError("cells.rows, columns, cell_bits", (self.rows, self.columns, self.cell_bits), "at least 1")
        if self.encoding == "polarised":
            expected = "an encoding that the simulator in training knows: offset, differential, twos_complement, binary"
            raise InputError("cells.encoding", self.encoding, expected, "differential")
        if self.epsilon < 0:
            raise InputError("cells.epsilon", self.epsilon, "0 or more")
        if min(self.stuck_hrs, self.stuck_lrs) < 0 or self.stuck_hrs + self.stuck_lrs > 1:
            raise InputError("cells.stuck", (self.stuck_hrs, self.stuck_lrs), "two shares of at most 1 together")

    @staticmethod
    def of(chip: Chip) -> ArrayCells:
        """The cells of a hardware description.

        Raises:
            InputError: a chip that this model does not cover: inputs of more than one bit a cycle, or variation that
                is not log-normal.
        """
        array, device = chip.array, chip.device
        if array.b_dac != 1:
            raise InputError("array.b_dac", array.b_dac, "1, the inputs of the runtime simulator")
        if device.variation.model not in ("lognormal", "none"):
            raise InputError("device.variation.model", device.variation.model, "lognormal or none")
        epsilon = device.variation.sigma if device.variation.model == "lognormal" else 0.0
        return ArrayCells(
            array.active_rows, array.columns, array.b_cell, array.encoding, epsilon, device.stuck_hrs, device.stuck_lrs,
            array.flip,
        )  # fmt: skip

    @property
    def top(self) -> int:
        """The highest level of a cell."""
        return (1 << self.cell_bits) - 1

    def code(self, bits: int, zero: int | None) -> WeightCode:
        """The code of `bits`-wide weights with zero point `zero` (None: the encoding's own)."""
        return weight_code(self.encoding, bits, self.cell_bits, zero if self.encoding == "offset" else None)

    def weight_columns(self, bits: int) -> int:
        """Weight columns of an array for `bits`-wide weights."""
        return self.columns // self.code(bits, None).columns


def parts(w: Int[Tensor, "..."], code: WeightCode) -> dict[str, Int[Tensor, "..."]]:
    """What the slices of a code cut: the stored value, and the positive and the negative part of a weight."""
    value = (w + 1) >> 1 if code.encoding == "binary" else w + code.zero
    return {"value": value, "plus": w.clamp_min(0), "minus": (-w).clamp_min(0)}


def levels(weights: Float[Tensor, "outputs rows"], code: WeightCode) -> Float[Tensor, SLICES]:
    """Cell levels of integer weights, slice by slice: `WeightCode.encode` on tensors."""
    stored = parts(weights.T.to(torch.int32), code)
    found = [(stored[s.part] >> s.field.lsb) & ((1 << s.field.width) - 1) for s in code.slices]
    return torch.stack(found).to(weights.dtype)


class Draw(Protocol):
    """Where a chip's cells come from."""

    def __call__(self, like: Float[Tensor, SLICES], place: str) -> tuple[Tensor, Tensor]:
        """(a, b) for cells in the shape, type and device of `like`, of the layer called `place`."""
        ...


def drawn(cells: ArrayCells, like: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """(a, b) of independent cells, from a CPU generator (None: torch's own) or, on another device, the device's."""
    device = like.device if generator is None else torch.device("cpu")
    a, b = torch.zeros(like.shape, device=device), torch.zeros(like.shape, device=device)
    if cells.epsilon:
        a = a.normal_(0, cells.epsilon, generator=generator).expm1_()
    if cells.stuck_hrs or cells.stuck_lrs:
        u = torch.rand(like.shape, device=device, generator=generator)
        a = a.masked_fill_(u < cells.stuck_hrs + cells.stuck_lrs, -1.0)
        b = b.masked_fill_((u >= cells.stuck_hrs) & (u < cells.stuck_hrs + cells.stuck_lrs), float(cells.top))
    return a.to(like), b.to(like)


class FreshDraw:
    """Other cells at every forward pass.

    Cells are cut at random places from a bank of `BANK` independent ones, which costs a copy where drawing costs
    logarithms. The bank comes from a seed and the places from torch's generator, so a resumed training draws the same.

    Args:
        cells: their statistics.
        seed: of the bank.
        bank: draw from the bank; if false every cell is drawn anew.
    """

    def __init__(self, cells: ArrayCells, seed: int = 0, bank: bool = True) -> None:
        self.cells, self.seed, self.bank = cells, seed, bank
        self._bank: tuple[Tensor, Tensor] | None = None

    def __call__(self, like: Float[Tensor, SLICES], place: str) -> tuple[Tensor, Tensor]:
        """(a, b) of new cells."""
        if not self.bank:
            return drawn(self.cells, like)
        if self._bank is None or self._bank[0].device != like.device or self._bank[0].dtype != like.dtype:
            seeded = torch.Generator().manual_seed(self.seed)
            self._bank = drawn(self.cells, torch.empty(BANK, dtype=like.dtype, device=like.device), seeded)
        where = places(like.numel())
        a, b = (cut(values, *where).view(like.shape) for values in self._bank)
        return a, b


class Normals:
    """Standard normal numbers cut at random places from a bank of `BANK`, for a copy's cost.

    Args:
        seed: of the bank; the places come from torch's generator.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._bank: Tensor | None = None

    def __call__(self, like: Tensor) -> Tensor:
        """Numbers in the shape, type and device of `like`."""
        if self._bank is None or self._bank.device != like.device or self._bank.dtype != like.dtype:
            self._bank = torch.randn(BANK, generator=torch.Generator().manual_seed(self.seed)).to(like)
        return cut(self._bank, *places(like.numel())).view(like.shape)


def places(count: int) -> tuple[int, list[int]]:
    """(count, random starts in the bank) of the runs that make up `count` numbers."""
    if count <= BANK:  # one run that does not reach the bank's end, so that no copy is made
        return count, torch.randint(0, BANK - count + 1, (1,)).tolist()
    return count, torch.randint(0, BANK, (-(-count // BANK),)).tolist()


def cut(bank: Tensor, count: int, starts: list[int]) -> Tensor:
    """`count` numbers of a bank in runs from `starts`, around its end."""
    if len(starts) == 1:
        return bank[starts[0] : starts[0] + count]
    runs = []
    for start in starts:
        size = min(count, BANK)
        runs += [bank[start : start + size], bank[: max(start + size - BANK, 0)]]
        count -= size
    return torch.cat(runs)


class ChipDraw:
    """The cells of one chip: the same at every forward pass.

    Args:
        cells: their statistics.
        seed: of the chip.
    """

    def __init__(self, cells: ArrayCells, seed: int = 0) -> None:
        self.cells, self.seed = cells, seed
        self._kept: dict[tuple[str, torch.Size], tuple[Tensor, Tensor]] = {}

    def __call__(self, like: Float[Tensor, SLICES], place: str) -> tuple[Tensor, Tensor]:
        """(a, b) of this chip's cells."""
        key = (place, like.shape)
        if key not in self._kept:
            digest = hashlib.blake2b(f"{self.seed} {place}".encode(), digest_size=7).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest))
            self._kept[key] = drawn(self.cells, torch.empty(like.shape), generator)
        a, b = self._kept[key]
        return a.to(like), b.to(like)
