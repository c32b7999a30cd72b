"""Row rename: rows of a core that are equal, or are made equal, are stored once.

A rename table sends every logical row to the row that is stored for it, and the inputs of rows that share one are
summed before the crossbar, or driven one after another. So rename is one more factor of P and a core with fewer
rows, for any layer kind and bit width and behind any other input transform:

    y = Q(Cᵀ z) = Q(Sᵀ (M z)),    C = Mᵀ S,    M of 0 and ±1, one entry a column.

After Weinstock et al., ORSS 2023, whose abstract gives the saving (38 of 84 rows) and not the procedure: exact,
complement and lossy rename, and their costs, are this package's reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int8, Integer

from crossloom.errors import InputError
from crossloom.mapping.row_clusters import cluster
from crossloom.weave import Factor, InputTransform, Program, WovenLayer

Access = Literal["summed", "serial"]
"""How inputs that share a row reach it.

`summed`: added up first; P x grows in bits, and with it the digits to stream. `serial`: driven one after another, so
that digits stay as they are, no adder is needed and reads take more cycles. Cost counts both. They compute the same
number; all rungs of simulation, the noisy ones too, read the sum in both cases.
"""


@dataclass(frozen=True, eq=False)
class Assignment:
    """The rename table: which stored row every row of a core is read from.

    Attributes:
        stored: per group and row, the index of the stored row; −1 for a row of zeros, which nothing is stored for.
        sign: +1, or −1 where the row is the negative of the stored one.
        rows: stored rows of one group.
    """

    stored: Integer[np.ndarray, "groups rows"]
    sign: Int8[np.ndarray, "groups rows"]
    rows: int

    def __post_init__(self) -> None:
        low, high = int(self.stored.min(initial=0)), int(self.stored.max(initial=-1))
        if low < -1 or high >= self.rows:
            raise InputError("rename.assignment", (low, high), f"stored rows from −1 to {self.rows - 1}")

    @property
    def table_bits(self) -> int:
        """Bits of the rename table: logical inputs × ⌈log₂ stored rows⌉, a sign each if any row is a negative.

        Our reasoning: the table is indexed by the logical input and holds a physical row. Dropped rows still have an
        entry, a code that no stored row uses.
        """
        codes = self.rows + int(np.any(self.stored < 0))
        return self.stored.size * (max(codes - 1, 0).bit_length() + int(np.any(self.sign < 0)))

    def matrix(self, group: int = 0) -> Integer[np.ndarray, "stored rows"]:
        """M of one group, dense: what `nn.MatrixWeave` wants of the first group's `transform`."""
        return np.asarray(self.group(group).matrix().toarray())

    def group(self, index: int) -> InputTransform:
        """M of one group as an input transform, so that a training loop can tie the rows: C = Mᵀ S."""
        return Assignment(self.stored[index : index + 1], self.sign[index : index + 1], self.rows).transform()

    def transform(self, access: Access = "summed") -> InputTransform:
        """M over all groups."""
        groups, width = self.stored.shape
        g, r = np.nonzero(self.stored >= 0)
        entries = (self.sign[g, r].astype(np.int64), (g * self.rows + self.stored[g, r], g * width + r))
        matrix: sp.csr_array = sp.csr_array(entries, shape=(groups * self.rows, groups * width))
        return InputTransform(groups * width, (Factor.of("serial" if access == "serial" else "sum", matrix),))

    def expand(self, core: Integer[np.ndarray, "groups stored columns"]) -> Integer[np.ndarray, "groups rows columns"]:
        """C = Mᵀ S: the full core that stored rows stand for."""
        kept = np.take_along_axis(core, np.maximum(self.stored, 0)[..., None], axis=1)
        return np.asarray(kept * np.where(self.stored < 0, 0, self.sign)[..., None])


@dataclass(frozen=True, eq=False)
class Renamed:
    """A layer after rename.

    Attributes:
        layer: the layer, P and core changed.
        assignment: the rename table.
        error: Σ over rows of mass × Σ |change of the row's weights|; 0 if nothing was lost.
        rows_before: rows of one group before.
    """

    layer: WovenLayer
    assignment: Assignment
    error: float
    rows_before: int

    @property
    def saving(self) -> float:
        """Fraction of the rows that are no longer stored."""
        return 1.0 - self.assignment.rows / self.rows_before


def exact(layer: WovenLayer, complement: bool = False, access: Access = "summed") -> Renamed:
    """Store equal rows once and rows of zeros not at all; every output stays what it was, bit for bit.

    A core is a box, so all groups store as many rows as the group that needs most; the others keep some equal rows
    apart.

    Args:
        layer: any woven layer.
        complement: also read a row from its negative, with the input subtracted (for ±1 weights the complement of the
            cells, y = Σx − Σcx). Rows of P x then have a sign, which is one more input digit.
        access: how inputs that share a row reach it.

    Raises:
        InputError: an unknown access, or complement rows with serial access (one cycle would need both signs).
    """
    _check(layer, access, complement)
    groups = layer.groups
    found = [_equal_rows(layer.core[g], complement) for g in range(groups)]
    target = max(max(int(stored.max(initial=-1)) + 1 for stored, _ in found), 1)
    stored = np.stack([_spread(s, target) for s, _ in found])
    sign = np.stack([s for _, s in found])
    return _renamed(layer, Assignment(stored, sign, target), _first_rows(layer.core, stored, sign, target), 0.0, access)


def lossy(
    layer: WovenLayer,
    rows: int,
    activity: Float[np.ndarray, " rows"] | None = None,
    complement: bool = False,
    access: Access = "summed",
) -> Renamed:
    """Merge rows until at most `rows` are stored in each group, at the least change of weights that is found.

    The error is Σ_r mass_r·Σ_n |C_rn − S_mn| with m the row that r is read from: the Hamming distance times the
    activation mass (twice, for ±1 weights). A merged row holds the mass-weighted median of its members, the majority
    for ±1. Rows that need not be merged are not.

    Args:
        layer: any woven layer.
        rows: stored rows of one group to reach.
        activity: mass of every row of P x, for example `row_activity` on a calibration batch; equal masses if None.
        complement: see `exact`.
        access: see `exact`.

    Raises:
        InputError: a target below 1 or above the layer's rows, masses of another length, negative or not finite.
    """
    _check(layer, access, complement)
    groups, before, _ = layer.core.shape
    if not 1 <= rows <= before:
        raise InputError(
            "rename.rows", rows, f"1 to {before} stored rows of layer {layer.name!r}", str(min(max(rows, 1), before))
        )
    mass = np.ones(groups * before) if activity is None else np.asarray(activity, np.float64)
    if mass.shape != (groups * before,) or not np.all(np.isfinite(mass)) or np.any(mass < 0):
        raise InputError(
            "rename.activity", mass.shape, f"{groups * before} finite masses of 0 or more, one for every row of P x"
        )
    lossless = exact(layer, complement, access)
    if lossless.assignment.rows <= rows:
        return lossless
    found = [cluster(layer.core[g], rows, m, complement) for g, m in enumerate(mass.reshape(groups, before))]
    assignment = Assignment(np.stack([f.labels for f in found]), np.stack([f.sign for f in found]), rows)
    return _renamed(layer, assignment, np.stack([f.centres for f in found]), sum(f.error for f in found), access)


def with_core(renamed: Renamed, core: Integer[np.ndarray, "groups stored columns"]) -> WovenLayer:
    """The renamed layer with other stored rows, for example after fine-tuning.

    Raises:
        InputError: another shape.
    """
    if core.shape != renamed.layer.core.shape:
        raise InputError("rename.core", core.shape, f"{renamed.layer.core.shape}")
    return renamed.layer.with_rows(InputTransform.identity(renamed.layer.transform.rows), core)


def row_activity(layer: WovenLayer, inputs: Integer[np.ndarray, "vectors inputs"]) -> Float[np.ndarray, " rows"]:
    """Mean |P x| of every row over a calibration batch of input codes: the mass that `lossy` weighs errors with.

    Raises:
        InputError: no vectors, or vectors of another length.
    """
    inputs = np.asarray(inputs)
    if inputs.ndim != 2 or not len(inputs) or inputs.shape[1] != layer.inputs:
        raise InputError(f"calibration of {layer.name}", inputs.shape, f"(vectors, {layer.inputs}), at least one")
    return np.asarray(np.abs(layer.transform.apply(inputs)).mean(0))


def program(
    network: Program,
    rows: Mapping[str, int] | None = None,
    layers: Iterable[str] | None = None,
    activity: Mapping[str, Float[np.ndarray, " rows"]] | None = None,
    complement: bool = False,
    access: Access = "summed",
) -> tuple[Program, dict[str, Renamed]]:
    """Rename many layers of a program.

    Args:
        network: the program.
        rows: target per layer name for lossy rename; layers not named are renamed exactly.
        layers: which layers to rename; all if None.
        activity: masses per layer name, for the lossy ones.
        complement: see `exact`.
        access: see `exact`.

    Returns:
        The program, and what was done per layer name.

    Raises:
        InputError: an unknown layer, or what `exact` and `lossy` raise.
    """
    by_name = {layer.name: layer for layer in network.layers}
    wanted = list(by_name) if layers is None else list(layers)
    for name in (*wanted, *(rows or {}), *(activity or {})):
        if name not in by_name:
            raise InputError.choice("rename.layers", name, by_name)
    done = {
        name: lossy(by_name[name], rows[name], (activity or {}).get(name), complement, access)
        if rows and name in rows
        else exact(by_name[name], complement, access)
        for name in dict.fromkeys((*wanted, *(rows or {})))
    }
    return network.replace_layers({name: renamed.layer for name, renamed in done.items()}), done


def _check(layer: WovenLayer, access: str, complement: bool) -> None:
    if access not in get_args(Access):
        raise InputError.choice("rename.access", access, get_args(Access))
    if complement and access == "serial":
        raise InputError("rename.access", access, "summed: rows read as complements need both signs in one cycle")
    if not layer.core.shape[1]:
        raise InputError("rename.layer", layer.name, "a layer with at least one row")


def _equal_rows(core: np.ndarray, complement: bool) -> tuple[np.ndarray, np.ndarray]:
    """(stored index or −1, sign) of every row; stored rows are numbered in the order in which they first appear."""
    core = np.ascontiguousarray(core)
    sign = np.ones(len(core), np.int8)
    if complement:
        first = np.take_along_axis(core, (core != 0).argmax(1)[:, None], axis=1)[:, 0]
        sign[first < 0] = -1
        core = core * sign[:, None]
    seen: dict[bytes, int] = {}
    used = core.any(1)
    stored = [seen.setdefault(row.tobytes(), len(seen)) if live else -1 for row, live in zip(core, used, strict=True)]
    return np.asarray(stored, np.int64), sign


def _spread(stored: np.ndarray, target: int) -> np.ndarray:
    """The same rows in exactly `target` classes: surplus members of shared rows, then dropped rows, move out."""
    stored = stored.copy()
    have = int(stored.max(initial=-1)) + 1
    repeated = np.ones(len(stored), bool)
    repeated[np.unique(stored, return_index=True)[1]] = False
    repeated &= stored >= 0
    movable = np.concatenate([np.flatnonzero(repeated), np.flatnonzero(stored < 0)])[: target - have]
    stored[movable] = have + np.arange(len(movable))
    return stored


def _first_rows(core: np.ndarray, stored: np.ndarray, sign: np.ndarray, target: int) -> np.ndarray:
    """S of an exact rename: the first row of every class, its sign taken off."""
    made = np.zeros((core.shape[0], target, core.shape[2]), core.dtype)
    for g in range(len(core)):
        kept, first = np.unique(stored[g], return_index=True)
        made[g, kept[kept >= 0]] = core[g, first[kept >= 0]] * sign[g, first[kept >= 0], None]
    return made


def _renamed(layer: WovenLayer, assignment: Assignment, core: np.ndarray, error: float, access: Access) -> Renamed:
    before = int(layer.core.shape[1])
    plain = assignment.rows == before and np.array_equal(assignment.stored[0], np.arange(before))
    if plain and assignment.sign.min() > 0 and np.all(assignment.stored == assignment.stored[0]):
        return Renamed(layer, assignment, error, before)
    return Renamed(layer.with_rows(assignment.transform(access), core), assignment, error, before)
