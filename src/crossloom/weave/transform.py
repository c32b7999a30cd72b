"""The input transform P: what the digital periphery does to an input vector before the crossbar sees it.

P is a product of sparse small-integer matrices. That one form covers row selection (pruning), permutation
(reorder), sums of inputs that share a row (rename) and moments Σ tᵏ·x (approximation), and products of all
of them, so that methods compose by concatenating factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Integer

from crossloom.weave.formats import Format, round_shift


@dataclass(frozen=True)
class TransformOperations:
    """Digital work of one application of P to one input vector.

    Attributes:
        adds: two-input additions, constant multiplications not counted in.
        constant_multiplies: products t·x with |t| not a power of two (a power of two is wiring).
        constant_adds: adders if every such product is built of shifts and adds in canonical signed digits.
        gathers: outputs that only pick an input (index table and multiplexer, no arithmetic).
    """

    adds: int = 0
    constant_multiplies: int = 0
    constant_adds: int = 0
    gathers: int = 0

    def __add__(self, other: TransformOperations) -> TransformOperations:
        return TransformOperations(
            self.adds + other.adds,
            self.constant_multiplies + other.constant_multiplies,
            self.constant_adds + other.constant_adds,
            self.gathers + other.gathers,
        )


def signed_digits(value: int) -> int:
    """Nonzero digits of the canonical signed-digit form of `value` (Reitwiesner 1960)."""
    value = abs(value)
    return (value ^ (3 * value)).bit_count()


@dataclass(frozen=True, eq=False)
class Factor:
    """One stage of P: z = round_half_up(M·x / 2^shift).

    Attributes:
        kind: what the stage is called in reports: `select`, `sum`, `moments` or a method's own word. `serial` is a sum
            whose terms are not added up first but driven one after another (`InputTransform.streams`).
        matrix: R × K sparse int64.
        shift: right shift after the sum, one integer a row, all 0 for an exact stage.
    """

    kind: str
    matrix: sp.csr_array
    shift: np.ndarray

    @staticmethod
    def of(kind: str, matrix: object, shift: int | Sequence[int] | np.ndarray = 0) -> Factor:
        """Build a factor from anything scipy can make a sparse matrix of.

        Raises:
            ValueError: entries that are not integers, or a negative shift.
        """
        sparse = sp.csr_array(matrix)
        if not np.array_equal(sparse.data, np.asarray(np.rint(sparse.data.real))):
            raise ValueError(f"transform factor {kind!r}: entries must be integers")
        sparse = sparse.astype(np.int64)
        sparse.eliminate_zeros()
        sparse.sort_indices()
        shifts = np.broadcast_to(np.asarray(shift, np.int64), (sparse.shape[0],)).copy()
        if np.any(shifts < 0):
            raise ValueError(f"transform factor {kind!r}: shift {shifts.min()}; expected 0 or more")
        return Factor(kind, sparse, shifts)

    @property
    def selection(self) -> np.ndarray | None:
        """The index of the one input that each row passes on unchanged, or None if the stage computes."""
        lengths = np.diff(self.matrix.indptr)
        if np.all(lengths == 1) and np.all(self.matrix.data == 1) and not self.shift.any():
            return np.asarray(self.matrix.indices, np.int64)
        return None

    def operations(self) -> TransformOperations:
        """Adders and constant multipliers of this stage, for one input vector."""
        lengths = np.diff(self.matrix.indptr)
        if self.selection is not None:
            moved = int(np.count_nonzero(self.matrix.indices != np.arange(self.matrix.shape[0])))
            return TransformOperations(gathers=moved)
        if self.kind == "serial":
            return TransformOperations(gathers=int(self.matrix.nnz))
        products = np.abs(self.matrix.data)
        hard = products[(products & (products - 1)) != 0]
        return TransformOperations(
            adds=int(np.maximum(lengths - 1, 0).sum() + np.count_nonzero(self.shift)),
            constant_multiplies=len(hard),
            constant_adds=sum(signed_digits(int(v)) - 1 for v in hard),
            gathers=int(np.count_nonzero((lengths == 1) & (self.shift == 0))),
        )

    def apply(self, x: Integer[np.ndarray, "vectors inputs"]) -> Integer[np.ndarray, "vectors rows"]:
        """The stage on a batch of integer vectors, in int64."""
        z = (self.matrix @ x.astype(np.int64).T).T
        return np.asarray(round_shift(z, self.shift) if self.shift.any() else z)

    def bounds(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest value of every row, given those of every input (exact for free inputs)."""
        plus, minus = self.matrix.maximum(0), self.matrix.minimum(0)
        lowest = plus @ low + minus @ high
        highest = plus @ high + minus @ low
        return round_shift(lowest, self.shift), round_shift(highest, self.shift)


@dataclass(frozen=True, eq=False)
class InputTransform:
    """P as a chain of factors, the first applied first.

    Attributes:
        inputs: K, the length of the input vector.
        factors: the stages; empty for the identity.
    """

    inputs: int
    factors: tuple[Factor, ...] = ()

    def __post_init__(self) -> None:
        width = self.inputs
        for factor in self.factors:
            if factor.matrix.shape[1] != width:
                raise ValueError(
                    f"transform: factor {factor.kind!r} takes {factor.matrix.shape[1]} inputs; expected {width}"
                )
            width = factor.matrix.shape[0]

    @staticmethod
    def identity(inputs: int) -> InputTransform:
        """P = I."""
        return InputTransform(inputs)

    @staticmethod
    def select(inputs: int, indices: Iterable[int]) -> InputTransform:
        """Row r of the core is fed by input indices[r]: pruning and reordering of rows."""
        chosen = np.asarray(list(indices), np.int64)
        ones = np.ones(len(chosen), np.int64)
        matrix: sp.csr_array = sp.csr_array((ones, (np.arange(len(chosen)), chosen)), shape=(len(chosen), inputs))
        return InputTransform(inputs, (Factor.of("select", matrix),))

    @staticmethod
    def sum(targets: Iterable[int], rows: int | None = None) -> InputTransform:
        """Input k is added onto core row targets[k] (−1: dropped): row rename."""
        target = np.asarray(list(targets), np.int64)
        kept = np.flatnonzero(target >= 0)
        count = int(target.max(initial=-1)) + 1 if rows is None else rows
        ones = np.ones(len(kept), np.int64)
        matrix: sp.csr_array = sp.csr_array((ones, (target[kept], kept)), shape=(count, len(target)))
        return InputTransform(len(target), (Factor.of("sum", matrix),))

    @property
    def rows(self) -> int:
        """R, the number of core rows."""
        return int(self.factors[-1].matrix.shape[0]) if self.factors else self.inputs

    @property
    def is_identity(self) -> bool:
        """True if P has no stage."""
        return not self.factors

    @property
    def is_linear(self) -> bool:
        """True if no stage rounds, so that y = Cᵀ(P x) = (Pᵀ C)ᵀ x exactly."""
        return not any(f.shift.any() for f in self.factors)

    def then(self, later: InputTransform) -> InputTransform:
        """`later` ∘ self: this transform first. Adjacent selections merge into one."""
        if later.inputs != self.rows:
            raise ValueError(f"transform: cannot feed {self.rows} rows into a transform of {later.inputs} inputs")
        factors = list(self.factors)
        for factor in later.factors:
            if factors and factors[-1].selection is not None and factor.selection is not None:
                factor = Factor.of("select", factor.matrix @ factors.pop().matrix)
            factors.append(factor)
        return InputTransform(self.inputs, tuple(factors))

    def repeated(self, groups: int) -> InputTransform:
        """The same transform for each of `groups` groups of inputs, side by side."""
        if groups == 1 or self.is_identity:
            return InputTransform(self.inputs * groups, self.factors)
        stages = [
            Factor(f.kind, sp.csr_array(sp.block_diag([f.matrix] * groups, format="csr")), np.tile(f.shift, groups))
            for f in self.factors
        ]
        return InputTransform(self.inputs * groups, tuple(stages))

    def matrix(self) -> sp.csr_array:
        """The product of all stages, R × K; float64 with the shifts as exact factors 2^−s if any, else int64."""
        product = sp.eye_array(self.inputs, dtype=np.int64, format="csr")
        for factor in self.factors:
            product = factor.matrix @ product
            if factor.shift.any():
                product = sp.diags_array(2.0**-factor.shift) @ product
        return sp.csr_array(product)

    def streams(self) -> tuple[InputTransform, ...]:
        """What the rows are driven with, one after another; Σ stream(x) = P x.

        P itself, unless it has a `serial` stage: then one transform for the first terms of that stage's sums, one for
        the second ones, and so on. Stages before it may round, stages behind it may not.

        Raises:
            ValueError: a rounding stage behind a serial one.
        """
        for i, factor in enumerate(self.factors):
            if factor.kind != "serial":
                continue
            before, after = self.factors[:i], InputTransform(int(factor.matrix.shape[0]), self.factors[i + 1 :])
            if not after.is_linear:
                raise ValueError("transform: a rounding stage behind a serial one")
            starts = factor.matrix.indptr
            turn = np.arange(factor.matrix.nnz) - np.repeat(starts[:-1], np.diff(starts))
            entries = factor.matrix.tocoo()
            found: list[InputTransform] = []
            for t in range(int(turn.max(initial=0)) + 1):
                mine = turn == t
                places = (entries.data[mine], (entries.row[mine], entries.col[mine]))
                one: sp.csr_array = sp.csr_array(places, shape=factor.matrix.shape)
                found += [
                    InputTransform(self.inputs, (*before, Factor.of("turn", one), *stream.factors))
                    for stream in after.streams()
                ]
            return tuple(found)
        return (self,)

    def apply(self, x: Integer[np.ndarray, "vectors inputs"]) -> Integer[np.ndarray, "vectors rows"]:
        """P x for a batch of integer vectors, in int64."""
        for factor in self.factors:
            x = factor.apply(x)
        return x

    def operations(self) -> TransformOperations:
        """Digital work for one input vector, all stages."""
        return sum((f.operations() for f in self.factors), TransformOperations())

    def bounds(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest value of every core row when inputs run from `low` to `high`: the bit growth."""
        lows = np.full(self.inputs, low, np.int64)
        highs = np.full(self.inputs, high, np.int64)
        if self.is_linear and self.factors:
            return Factor.of("product", self.matrix()).bounds(lows, highs)
        for factor in self.factors:
            lows, highs = factor.bounds(lows, highs)
        return lows, highs

    def row_format(self, inputs: Format) -> Format:
        """The narrowest integer format of P x: what the wordlines of this layer must stream."""
        if self.is_identity:
            return Format(inputs.bits, inputs.signed)
        lows, highs = self.bounds(inputs.low, inputs.high)
        return Format.covering(int(lows.min(initial=0)), int(highs.max(initial=0)))


def fitting_copies(rows: int, room: int) -> int:
    """How often `rows` rows fit into `room` of them: a power of two, so that a shift takes the factor out again.

    >>> fitting_copies(25, 128), fitting_copies(42, 128), fitting_copies(100, 128), fitting_copies(500, 128)
    (4, 2, 1, 1)
    """
    return 1 << (max(room // max(rows, 1), 1).bit_length() - 1)
