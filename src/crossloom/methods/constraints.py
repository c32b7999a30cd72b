"""Constraint sets of weights, each with its exact Euclidean projection: the P of "W ∈ P and W ∈ Q".

A weight is (N, C, k_h, k_w) or (N, K); its matrix on the chip is its transpose, so an output is a column of cells and
an input position (c, i, j) a row. `project` gives a nearest point of the set in the Frobenius norm; of several nearest
points it takes one by a fixed rule, so that projecting twice changes nothing. Level sets (Q) are in
`crossloom.methods.levels`. Every structure here is closed under zeroing and every level set holds 0, so projecting on
one structure after another, and on the levels last, ends in all of them.

Sources: Yuan et al., arXiv 1908.11691 (filters, columns); FORMS, ISCA 2021 (fragments of one sign); Mishra et al.,
arXiv 2104.08378 (N:M).
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossloom.errors import InputError


class Constraint(ABC):
    """A closed set of weights with an exact projection.

    Attributes:
        name: the word in recipes.
    """

    name: ClassVar[str]

    @property
    def convex(self) -> bool:
        """Whether the set is convex; then the projection is non-expansive."""
        return False

    @abstractmethod
    def project(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """A nearest point of the set, in the weight's shape and type."""

    def of(self, weight: Float[Tensor, "outputs ..."]) -> Constraint:
        """The set for a layer whose weight is this one when training begins; itself unless it depends on that."""
        return self

    def bounds(self, weight: Float[Tensor, "outputs ..."]) -> tuple[Tensor, Tensor] | None:
        """Between which values what is not zero can be moved without leaving the set; None: between any.

        Both broadcast to the weight's shape; zeros stay zeros.
        """
        return None

    def contains(self, weight: Float[Tensor, "outputs ..."]) -> bool:
        """Whether the weight lies in the set, exactly."""
        return torch.equal(self.project(weight), weight)

    def spec(self) -> dict[str, Any]:
        """What a recipe says of the set; `constraint` makes it again."""
        takes = inspect.signature(type(self).__init__).parameters
        return {"set": self.name} | {name: getattr(self, name) for name in takes if name in vars(self)}

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not isinstance(v, Tensor))
        return f"{type(self).__name__}({shown})"


class Groups(Constraint):
    """At most α of the groups into which a weight is cut are not zero; those of largest Frobenius norm are kept.

    Args:
        keep: α, as a count (an int) or as a fraction of the groups, rounded, at least one (a float in (0, 1]).
        multiple: α is rounded up to a multiple of this (an array's rows or columns), as far as there are groups.

    Raises:
        InputError: no group kept, more than all, or a multiple below 1.
    """

    def __init__(self, keep: float, multiple: int = 1) -> None:
        counted = isinstance(keep, int) and not isinstance(keep, bool)
        if not (keep >= 1 if counted else 0 < keep <= 1):
            nearest = "1" if counted or not keep > 0 else "1.0"
            raise InputError(f"{self.name}.keep", keep, "a count of at least 1, or a fraction in (0, 1]", nearest)
        if multiple < 1:
            raise InputError(f"{self.name}.multiple", multiple, "at least 1", "1")
        self.keep, self.multiple = keep, multiple

    @abstractmethod
    def labels(self, shape: tuple[int, ...]) -> Int64[Tensor, "..."]:
        """The number of the group of every element; broadcasts to `shape`."""

    def kept(self, groups: int) -> int:
        """How many of `groups` groups stay."""
        count = self.keep if isinstance(self.keep, int) else max(1, math.floor(self.keep * groups + 0.5))
        return min(groups, -(-count // self.multiple) * self.multiple)

    def mask(self, weight: Float[Tensor, "outputs ..."]) -> Bool[Tensor, "outputs ..."]:
        """True where a group is kept. Of equal norms the first group counts."""
        labels = self.labels(tuple(weight.shape)).to(weight.device)
        groups = int(labels.max()) + 1
        energy = weight.detach().double().square()
        norms = energy.new_zeros(groups).index_add_(0, labels.expand(weight.shape).reshape(-1), energy.reshape(-1))
        flags = torch.zeros(groups, dtype=torch.bool, device=weight.device)
        flags[norms.sort(descending=True, stable=True).indices[: self.kept(groups)]] = True
        return flags[labels].expand(weight.shape)

    def project(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """See `Constraint.project`."""
        return weight.detach() * self.mask(weight)


def _along(shape: tuple[int, ...], axis: int) -> Int64[Tensor, "..."]:
    """The index along one axis, shaped for broadcasting."""
    return torch.arange(shape[axis]).view([-1 if a == axis else 1 for a in range(len(shape))])


class Filters(Groups):
    """At most α output channels (columns of cells)."""

    name: ClassVar[str] = "filters"

    def labels(self, shape: tuple[int, ...]) -> Int64[Tensor, "..."]:
        """See `Groups.labels`."""
        return _along(shape, 0)


class Channels(Groups):
    """At most α input channels: of a linear layer, inputs."""

    name: ClassVar[str] = "channels"

    def labels(self, shape: tuple[int, ...]) -> Int64[Tensor, "..."]:
        """See `Groups.labels`."""
        return _along(shape, 1)


class Columns(Groups):
    """At most α filter shapes: positions (c, i, j), the same for every filter. On the chip they are rows.

    The literature of pruning writes a filter as a row of its matrix and calls these columns.
    """

    name: ClassVar[str] = "columns"

    def labels(self, shape: tuple[int, ...]) -> Int64[Tensor, "..."]:
        """See `Groups.labels`."""
        return torch.arange(math.prod(shape[1:])).view(1, *shape[1:])


class Unstructured(Groups):
    """At most α weights."""

    name: ClassVar[str] = "unstructured"

    def labels(self, shape: tuple[int, ...]) -> Int64[Tensor, "..."]:
        """See `Groups.labels`."""
        return torch.arange(math.prod(shape)).view(shape)


class Blocks(Groups):
    """At most α array-sized blocks: a block of zeros gets no array.

    Args:
        keep, multiple: as for `Groups`.
        rows: core rows (input positions) of an array.
        columns: weight columns (outputs) of an array.

    Raises:
        InputError: as for `Groups`, or a shape below 1.
    """

    name: ClassVar[str] = "blocks"

    def __init__(self, keep: float, rows: int = 32, columns: int = 32, multiple: int = 1) -> None:
        super().__init__(keep, multiple)
        for field, value in (("rows", rows), ("columns", columns)):
            if value < 1:
                raise InputError(f"blocks.{field}", value, "at least 1", "1")
        self.rows, self.columns = rows, columns

    def labels(self, shape: tuple[int, ...]) -> Int64[Tensor, "..."]:
        """See `Groups.labels`."""
        inputs = math.prod(shape[1:])
        bands = math.ceil(inputs / self.rows)
        across = torch.arange(shape[0])[:, None] // self.columns * bands
        return (across + torch.arange(inputs)[None, :] // self.rows).view(shape)


class NM(Constraint):
    """At most n of every m consecutive inputs of an output are not zero; those of largest magnitude are kept.

    Args:
        n: weights kept of m.
        m: length of a run; the last run of a row may be shorter.

    Raises:
        InputError: not 1 ≤ n ≤ m.
    """

    name: ClassVar[str] = "n:m"

    def __init__(self, n: int, m: int) -> None:
        if not 1 <= n <= m:
            raise InputError("n:m.n", n, f"1 to m = {m}", str(min(max(n, 1), max(m, 1))))
        self.n, self.m = n, m

    def project(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """See `Constraint.project`."""
        runs = _runs(weight.detach(), self.m)
        order = runs.abs().sort(dim=2, descending=True, stable=True).indices
        mask = torch.zeros_like(runs, dtype=torch.bool).scatter_(2, order[:, :, : self.n], True)
        return _joined(runs * mask, weight)


class Polarised(Constraint):
    """The weights of a fragment (m consecutive rows of one column of cells) share one sign.

    Arrays of polarised cells (`array.encoding: polarised`) then store magnitudes and one sign a fragment, in half the
    columns of pairs of cells. The nearest such fragment drops the side with the smaller energy. With `signs` given the
    set is a convex cone.

    Args:
        rows: m: the array's `active_rows`.
        signs: +1 or −1 of every fragment, (N, ⌈rows that count/m⌉); None: chosen by the projection.
        used: the rows that count, (K,), or `left`: those that are not zero when training begins; None: all. Rows that
            an earlier step has pruned take no cells, so that fragments run over the others.

    Raises:
        InputError: m below 1, signs other than ±1, or another word for rows.
    """

    name: ClassVar[str] = "fragments"

    def __init__(
        self,
        rows: int = 8,
        signs: Float[Tensor, "outputs fragments"] | None = None,
        used: Bool[Tensor, " rows"] | Literal["left"] | None = None,
    ) -> None:
        if isinstance(used, str) and used != "left":
            raise InputError.choice("fragments.used", used, ["left"])
        if rows < 1:
            raise InputError("fragments.rows", rows, "at least 1", "1")
        if signs is not None and not bool((signs.abs() == 1).all()):
            raise InputError("fragments.signs", "other values", "+1 or −1 for every fragment")
        self.rows, self.signs, self.used = rows, signs, used

    @property
    def convex(self) -> bool:
        """True with given signs."""
        return self.signs is not None

    def of(self, weight: Float[Tensor, "outputs ..."]) -> Polarised:
        """With the rows that are left."""
        if not isinstance(self.used, str):
            return self
        return Polarised(self.rows, self.signs, (weight.detach() != 0).any(0).flatten())

    def _used(self, weight: Tensor) -> Tensor:
        """Which rows count."""
        used = self.of(weight).used
        everything = torch.ones(math.prod(weight.shape[1:]), dtype=torch.bool)
        return (used if isinstance(used, Tensor) else everything).to(weight.device)

    def project(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """See `Constraint.project`."""
        return weight.detach().clamp(*self.bounds(weight))

    def bounds(self, weight: Float[Tensor, "outputs ..."]) -> tuple[Tensor, Tensor]:
        """0 on one side in every fragment, none on the other; rows that do not count have none."""
        flat, used = weight.detach().flatten(1), self._used(weight)
        runs = _runs(flat[:, used], self.rows)
        if self.signs is None:
            wide = runs.double()
            positive = wide.clamp_min(0).square().sum(2) >= wide.clamp_max(0).square().sum(2)
        else:
            positive = self.signs.to(weight.device) > 0
        held = _joined(positive[:, :, None].expand_as(runs), flat[:, used])
        low, high = torch.full_like(flat, -math.inf), torch.full_like(flat, math.inf)
        low[:, used], high[:, used] = low[:, used].masked_fill(held, 0), high[:, used].masked_fill(~held, 0)
        return low.view(weight.shape), high.view(weight.shape)


class Support(Constraint):
    """Zero wherever a mask says so: a linear subspace.

    Args:
        mask: True where weights are free, in the weight's shape.
    """

    name: ClassVar[str] = "support"

    def __init__(self, mask: Bool[Tensor, "outputs ..."]) -> None:
        self.mask = mask

    @property
    def convex(self) -> bool:
        """True."""
        return True

    def project(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """See `Constraint.project`."""
        return weight.detach() * self.mask.to(weight.device)


class Window(Constraint):
    """Every weight between two bounds: what a pair of cells can reach.

    Args:
        low, high: the bounds, low ≤ 0 ≤ high.

    Raises:
        InputError: bounds that do not hold 0.
    """

    name: ClassVar[str] = "window"

    def __init__(self, low: float, high: float) -> None:
        if not low <= 0 <= high:
            raise InputError("window.low, high", (low, high), "low ≤ 0 ≤ high", f"({min(low, 0)}, {max(high, 0)})")
        self.low, self.high = low, high

    @property
    def convex(self) -> bool:
        """True."""
        return True

    def project(self, weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
        """See `Constraint.project`."""
        return weight.detach().clamp(self.low, self.high)

    def bounds(self, weight: Float[Tensor, "outputs ..."]) -> tuple[Tensor, Tensor]:
        """The two bounds."""
        return weight.new_tensor(self.low), weight.new_tensor(self.high)


def _runs(weight: Tensor, length: int) -> Float[Tensor, "outputs runs length"]:
    """The rows of the weight's matrix cut into runs, the last one filled up with zeros."""
    flat = weight.flatten(1)
    padded = F.pad(flat, (0, -flat.shape[1] % length))
    return padded.view(len(flat), -1, length)


def _joined(runs: Float[Tensor, "outputs runs length"], weight: Tensor) -> Float[Tensor, "outputs ..."]:
    """The inverse of `_runs`, in the shape of `weight`."""
    return runs.flatten(1)[:, : math.prod(weight.shape[1:])].reshape(weight.shape)


def intersected(sets: Iterable[Constraint], weight: Float[Tensor, "outputs ..."]) -> Float[Tensor, "outputs ..."]:
    """A point in all of the sets: the projections one after another, in the order given (structures first)."""
    for one in sets:
        weight = one.project(weight)
    return weight


def constraint_types() -> dict[str, type[Constraint]]:
    """All sets by name."""
    from crossloom.methods.levels import DeviceLevels, FixedPoint, PowerOfTwo

    known: tuple[type[Constraint], ...] = (
        Filters, Channels, Columns, Blocks, Polarised, NM, Unstructured, Window, FixedPoint, PowerOfTwo, DeviceLevels,
    )  # fmt: skip
    return {cls.name: cls for cls in known}


def constraint(spec: Constraint | Mapping[str, Any]) -> Constraint:
    """A set from what a recipe says, such as `{"set": "columns", "keep": 0.2}`; a set is given back as it is.

    Raises:
        InputError: an unknown set, options that it does not take, or values out of range.
    """
    if isinstance(spec, Constraint):
        return spec
    options = dict(spec)
    name, known = options.pop("set", None), constraint_types()
    if name not in known:
        raise InputError.choice("constraint.set", name, known)
    try:
        return known[name](**options)
    except TypeError as error:
        raise InputError(f"constraint.{name}", options, f"options that it takes ({error})") from error
