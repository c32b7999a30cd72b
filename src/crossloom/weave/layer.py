"""The woven layer y = Q(Cᵀ(P x)): everything that mapping, simulation, cost and export read of a matrix layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Integer

from crossloom.weave.formats import Format, Rescale
from crossloom.weave.transform import InputTransform


@dataclass(frozen=True)
class Convolution:
    """Geometry of a 2-D convolution. Pairs are (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """(top, bottom, left, right) pixels, filled with the input's zero point."""
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(H_out, W_out) of an H × W input.

        Raises:
            ValueError: the kernel does not fit the padded input.
        """
        top, bottom, left, right = self.padding
        size = []
        for length, pad, k, s, d in zip(
            (height, width), (top + bottom, left + right), self.kernel, self.stride, self.dilation, strict=True
        ):
            span = length + pad - d * (k - 1) - 1
            if span < 0:
                raise ValueError(f"convolution: a kernel of {self.kernel} does not fit an input of {height}×{width}")
            size.append(span // s + 1)
        return size[0], size[1]


@dataclass(frozen=True, eq=False)
class OutputTransform:
    """Q: bias, power-of-two or fixed-point scale, clip, and the scatter of core columns to output channels.

    For channel n fed by core column j (columns[n] = j; −1 if none, then acc = 0):
    y_n = clip(((acc_j + bias_n)·m_n + ½·2^{s_n}) >> s_n + zero_point, low, high).

    Attributes:
        bias: int64 (N,), at accumulator scale.
        rescale: accumulator scale → output scale, one factor or N.
        columns: int64 (N,), core column of every output channel, or None for the identity.
        format: of the output codes.
        low, high: the clip in output codes; a ReLU is low = zero point. None: no clip (raw accumulators).
    """

    bias: Integer[np.ndarray, " outputs"]
    rescale: Rescale
    format: Format
    low: int | None = None
    high: int | None = None
    columns: Integer[np.ndarray, " outputs"] | None = None

    def apply(self, acc: Integer[np.ndarray, "vectors columns"]) -> Integer[np.ndarray, "vectors outputs"]:
        """Q on accumulators in int64, channels last."""
        if self.columns is not None:
            padded = np.concatenate([acc, np.zeros_like(acc[:, :1])], axis=1)
            acc = padded[:, self.columns]
        y = self.rescale.apply(acc.astype(np.int64) + self.bias) + self.format.zero_point
        return y if self.low is None or self.high is None else np.clip(y, self.low, self.high)


@dataclass(frozen=True, eq=False)
class WovenLayer:
    """One convolution or linear layer, woven.

    Attributes:
        name: the layer's name in the network.
        transform: P over the whole input vector, (G·R) × (G·K), rows of one group fed by that group only.
        core: C, int32 (G, R, N'): per group R rows and N' columns. G = 1 unless the convolution is grouped.
        output: Q over all G·N' core columns.
        input_format: of the codes x. P and the crossbar see codes; the zero point is corrected in Q's bias.
        weight_bits: b_w.
        weight_zero: zero point of an asymmetric weight code (stored code = C + zero); None: the encoding's own.
        weight_scale: float64 (N,) or (1,), real value of one weight step.
        convolution: geometry, or None for a linear layer on the last axis.
    """

    name: str
    transform: InputTransform
    core: Integer[np.ndarray, "groups rows columns"]
    output: OutputTransform
    input_format: Format
    weight_bits: int
    weight_zero: int | None
    weight_scale: Float[np.ndarray, " outputs"]
    convolution: Convolution | None = None

    def __post_init__(self) -> None:
        groups, rows, columns = self.core.shape
        if self.transform.rows != groups * rows:
            raise ValueError(
                f"{self.name}: P has {self.transform.rows} rows; expected groups × core rows = {groups}×{rows}"
            )
        if self.transform.inputs % groups:
            raise ValueError(f"{self.name}: {self.transform.inputs} inputs do not divide into {groups} groups")
        outputs = len(self.output.bias)
        if self.output.columns is None and outputs != groups * columns:
            raise ValueError(f"{self.name}: Q has {outputs} channels; expected {groups * columns} core columns")
        if groups > 1 and not self.transform.is_identity:
            entries = self.transform.matrix().tocoo()
            if np.any(entries.row // rows != entries.col // (self.transform.inputs // groups)):
                raise ValueError(f"{self.name}: P mixes the inputs of different groups")
        if not self.transform.is_linear and self.input_format.zero_point:
            raise ValueError(f"{self.name}: a rounding input transform needs inputs with zero point 0")

    @property
    def groups(self) -> int:
        """G."""
        return int(self.core.shape[0])

    @property
    def inputs(self) -> int:
        """Length of the whole input vector, C_in·k_h·k_w over all groups."""
        return self.transform.inputs

    @property
    def outputs(self) -> int:
        """N, output channels over all groups."""
        return len(self.output.bias)

    @property
    def in_channels(self) -> int:
        """Input channels of the layer (of the tensor it reads)."""
        kernel = self.convolution.kernel if self.convolution else (1, 1)
        return self.inputs // (kernel[0] * kernel[1])

    @property
    def row_format(self) -> Format:
        """Format of P x, what the wordlines stream."""
        return self.transform.row_format(self.input_format)

    def effective_weight(self) -> np.ndarray:
        """W_eff = Pᵀ C as (G, K, N'): int64 where P is linear in integers, else float64."""
        groups, rows, _ = self.core.shape
        width = self.inputs // groups
        if self.transform.is_identity:
            return self.core.astype(np.int64)
        matrix = self.transform.matrix()
        blocks = [
            matrix[g * rows : (g + 1) * rows, g * width : (g + 1) * width].T @ self.core[g] for g in range(groups)
        ]
        return np.stack(blocks)

    def accumulate(self, x: Integer[np.ndarray, "vectors inputs"]) -> Integer[np.ndarray, "vectors columns"]:
        """Cᵀ(P x) in int64: the plain meaning of the layer, and the oracle of every engine."""
        groups, rows, _ = self.core.shape
        z = self.transform.apply(x).reshape(len(x), groups, rows)
        return np.asarray(np.einsum("vgr,grn->vgn", z, self.core.astype(np.int64)).reshape(len(x), -1))

    def apply(self, x: Integer[np.ndarray, "vectors inputs"]) -> Integer[np.ndarray, "vectors outputs"]:
        """Q(Cᵀ(P x)) on input codes, the input's zero point being already corrected in Q's bias."""
        return self.output.apply(self.accumulate(x))

    def with_rows(self, later: InputTransform, core: np.ndarray) -> WovenLayer:
        """The layer with one more input transform behind P and the core that goes with it."""
        return replace(self, transform=self.transform.then(later), core=core.astype(np.int32))


def zero_point_bias(transform: InputTransform, core: np.ndarray, zero_point: int) -> Integer[np.ndarray, " columns"]:
    """−Cᵀ(P·z): what Q's bias must hold so that input codes with zero point z give the product of real values."""
    groups, rows, columns = core.shape
    if zero_point == 0:
        return np.zeros(groups * columns, np.int64)
    z = transform.apply(np.full((1, transform.inputs), zero_point, np.int64)).reshape(groups, rows)
    return np.asarray(-np.einsum("gr,grn->gn", z, core.astype(np.int64)).reshape(-1))
