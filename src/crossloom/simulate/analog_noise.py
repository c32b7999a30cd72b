"""Random reads without a random number per cell: one Gaussian per column read, found by its name.

Independent noise of cells adds to one Gaussian per read with variance σ²·Σ x²G², so that is what is drawn. The
Gaussian of a read is (a[i + j] + b[k + j])/√2 in lane j of 32 columns (in the order of `lane_of`), with a and b two
fixed tables of shuffled normal quantiles and i, k taken from a hash of (seed, chip, layer, copy, array, row group,
columns, digit; image, position). It depends on nothing else: not on batch, thread, device or order. Its marginal is
normal to within the tables' 2^11 quantiles. Two reads of one column draw the same value of a table with probability
2^−11, of both tables with 2^−22. The tables are that small so that they stay in the first-level cache beside the sums
that are looked up there; neighbouring entries are uncorrelated by construction (`_white`).

On the narrow grid every step is an integer or a single float32 operation in a stated order, so every engine and
device gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int16, UInt64
from scipy.special import ndtri

from crossloom.simulate.devices import generator

LANES = 32
"""Columns that share one hash."""
POOL = 1 << 11
"""Entries of one table."""
UNIT = 4096
"""Sum of two entries that stands for one standard deviation."""
LOUDEST = 4095
"""Largest variance on the narrow grid: amplitudes 512·√v then fit 16 bits."""
ROOT_SCALE = 1.0 + 2.0**-10
"""Centres the error of `amplitudes`, which is then within ±10⁻³ relative (and one unit)."""
_MAGIC = 0x5F3759DF
GOLDEN = 0x9E3779B97F4A7C15
MIX_1, MIX_2, MIX_3 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93


def _white(values: Int16[np.ndarray, " entries"], rng: np.random.Generator) -> Int16[np.ndarray, " entries"]:
    """The values shuffled such that their cyclic autocorrelation vanishes at every lag.

    A shuffle leaves correlations of 1/√entries between neighbours. The spectrum is made flat and the values put back in
    the order of what comes out, again and again (Schreiber and Schmitz 1996).
    """
    x = rng.permutation(values)
    for _ in range(100):
        spectrum = np.fft.rfft(x - x.mean())
        flat = np.fft.irfft(spectrum / np.maximum(np.abs(spectrum), 1e-9), len(x))
        x = np.sort(values)[np.argsort(np.argsort(flat))]
    return np.asarray(x)


@cache
def pools() -> Int16[np.ndarray, "2 entries"]:
    """The two tables, each repeated by `LANES` entries at its end: normal quantiles times UNIT/√2, shuffled."""
    quantiles = ndtri((np.arange(POOL) + 0.5) / POOL)
    values = np.rint(quantiles / quantiles.std() * (UNIT / np.sqrt(2))).astype(np.int16)
    both = np.stack([_white(values, generator(0, "normal quantiles", i)) for i in range(2)])
    return np.ascontiguousarray(np.concatenate([both, both[:, :LANES]], axis=1))


def mix(z: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_2)
    return np.asarray(z ^ (z >> np.uint64(31)))


def lane_of(columns: int, slices: int) -> np.ndarray:
    """Where each physical column of an array lies among the lanes: slice by slice, so that outputs are neighbours."""
    c = np.arange(columns)
    return np.asarray((c % slices) * (columns // slices) + c // slices)


def place_keys(seed: int, names: tuple[str | int, ...], count: int) -> UInt64[np.ndarray, " count"]:
    """The keys of the reads of one array that differ in row group, columns or digit, numbered in that order."""
    base = generator(seed, *names, "read noise").integers(0, 1 << 63, dtype=np.uint64)
    with np.errstate(over="ignore"):
        return mix(base + np.uint64(GOLDEN) * np.arange(1, count + 1, dtype=np.uint64))


def vector_keys(first: int, count: int, per_image: int, first_image: int) -> UInt64[np.ndarray, " count"]:
    """The keys of `count` input vectors from number `first` of a batch whose first image is number `first_image`."""
    image, position = np.divmod(np.arange(first, first + count, dtype=np.uint64), np.uint64(per_image))
    name = ((image + np.uint64(first_image)) << np.uint64(32)) + position
    with np.errstate(over="ignore"):
        return mix(name * np.uint64(GOLDEN) + np.uint64(MIX_3))


def _shifted(z: torch.Tensor, by: int) -> torch.Tensor:
    return (z >> by) & ((1 << (64 - by)) - 1)


def normals(place: torch.Tensor, vectors: torch.Tensor, columns: int, tables: torch.Tensor) -> torch.Tensor:
    """Gaussians of one read of every column, times `UNIT`: int64 (V, columns).

    Args:
        place: int64 (chunks of 32 columns,), `place_keys` of this row group and digit.
        vectors: int64 (V,), `vector_keys`.
        columns: how many columns are read.
        tables: `pools`, int64, on the same device.
    """
    h = vectors[:, None] ^ place[None, :]
    h = (h ^ _shifted(h, 32)) * _signed(MIX_3)
    h = h ^ _shifted(h, 32)
    lane = torch.arange(LANES, device=h.device)
    a = tables[0][(h & (POOL - 1))[..., None] + lane]
    b = tables[1][(_shifted(h, 32) & (POOL - 1))[..., None] + lane]
    return (a + b).reshape(len(vectors), -1)[:, :columns]


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


@dataclass(frozen=True, eq=False)
class GroupNoise:
    """Variance v of the reads of one row group of one array, an integer from 0 to `LOUDEST` on the narrow grid.

    v = clip(constant + active·n + linear·a + quadratic·a² + Σ x²·squares + table(|a|)², 0, LOUDEST), a the read in
    grid units and n the number of active rows, in units of `Plan.noise_unit`² grid units². Terms that are None or 0
    are left out; `narrow_variances` says how each is rounded.

    Attributes:
        constant, quadratic: of all columns.
        linear, active: float64 (columns,) or None.
        squares: float64 (rows, columns), or None.
        table: float64 (2, points): |a| and σ, or None.
    """

    constant: float = 0.0
    quadratic: float = 0.0
    linear: Float[np.ndarray, " columns"] | None = None
    active: Float[np.ndarray, " columns"] | None = None
    squares: Float[np.ndarray, "rows columns"] | None = None
    table: Float[np.ndarray, "2 points"] | None = None

    def factors(self, columns: int, rows: int) -> tuple[int, int, Int16[np.ndarray, "2 columns"]]:
        """The constant and, over 2^15, the factors of h²/2^15, of h and of n·2^`active_shift`(rows), h = ⌊a/2⌋."""
        scale = (1 << 15) / (1 << active_shift(rows))
        pair = np.zeros((2, columns))
        if self.linear is not None:
            pair[0] = self.linear * (1 << 16)
        if self.active is not None:
            pair[1] = self.active * scale
        return (
            round(self.constant),
            min(round(self.quadratic * (1 << 32)), 32767),
            pair.clip(-32767, 32767).round().astype(np.int16),
        )


def active_shift(rows: int) -> int:
    """How far a count of up to `rows` active rows is shifted up to fill 15 bits."""
    return max(15 - rows.bit_length(), 0)


def rounded_product(a: torch.Tensor, b: torch.Tensor | int) -> torch.Tensor:
    """⌊a·b/2^15 + ½⌋ in int64."""
    return (a * b + (1 << 14)) >> 15


def narrow_variances(
    a: torch.Tensor, noise: GroupNoise, active: torch.Tensor, squares: torch.Tensor | None, rows: int
) -> torch.Tensor:
    """v of reads a (V, columns) with `active` (V,) of `rows` rows on and Σ x²·squares where the law needs it, int64."""
    constant, quadratic, pair = noise.factors(a.shape[1], rows)
    linear, slope = (torch.from_numpy(f.astype(np.int64)).to(a.device) for f in pair)
    half = a >> 1
    v = constant + rounded_product((active << active_shift(rows))[:, None], slope) + rounded_product(half, linear)
    if quadratic:
        v = v + rounded_product(rounded_product(half, half), quadratic)
    if squares is not None:
        v = v + squares
    if noise.table is not None:
        sigma = np.interp(a.abs().cpu().numpy(), *noise.table)
        v = v + torch.from_numpy(np.rint(sigma**2).astype(np.int64)).to(a.device)
    return v.clamp(0, LOUDEST)


def amplitudes(v: torch.Tensor) -> torch.Tensor:
    """512·√v / ROOT_SCALE cut to an integer, int64, for integers v: Lomont's reciprocal root and one Newton step."""
    wide = (v << 16).to(torch.float32)
    y = (_MAGIC - (wide.view(torch.int32) >> 1)).view(torch.float32)
    w = wide * y
    return (w * (3.0 - w * y)).to(torch.int64)


def noisy_narrow(a: torch.Tensor, v: torch.Tensor, gaussians: torch.Tensor, factor: int, bias: int) -> torch.Tensor:
    """Reads on the narrow grid with noise: a + gaussians·amplitude/2^16·factor/2^15, a − bias staying in 16 bits."""
    noise = rounded_product((gaussians * amplitudes(v)) >> 16, factor)
    return (a - bias + noise).clamp(-32768, 32767) + bias


def noisy_wide(
    a: torch.Tensor, noise: GroupNoise, active: torch.Tensor, squares: torch.Tensor | None, gaussians: torch.Tensor
) -> torch.Tensor:
    """Reads on the wide grid with noise, in float64, rounded to the grid; the noise is stated in grid units."""
    value = a.to(torch.float64)
    v = torch.full_like(value, noise.constant) + noise.quadratic * value**2
    if noise.active is not None:
        v += torch.from_numpy(noise.active).to(a.device) * active.to(torch.float64)[:, None]
    if noise.linear is not None:
        v += torch.from_numpy(noise.linear).to(a.device) * value
    if squares is not None:
        v += squares
    if noise.table is not None:
        v += torch.from_numpy(np.interp(a.abs().cpu().numpy(), *noise.table) ** 2).to(a.device)
    return a + (gaussians.to(torch.float64) / UNIT * v.clamp_min(0).sqrt()).round().to(torch.int64)
