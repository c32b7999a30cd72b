"""The `integer` rung: what a perfect chip computes, as fast as the machine multiplies small integers.

On a CPU with int8 dot products the core is cut into signed bytes and multiplied by `torch._int_mm`; an unsigned
code x is fed as x − 128, and 128·Σw is added back. Elsewhere the product is a float32 or float64 GEMM, whichever
the worst case Σ|w|·max|x| proves exact. Nothing is chosen by trying.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Integer

from crossloom.mapping import LayerMapping
from crossloom.simulate.engine import Kernel, Settings, woven
from crossloom.simulate.gather import Geometry, combine, direct, transpose, unfold
from crossloom.simulate.tensor import exact_dtype, transform_rows
from crossloom.simulate.unfold import Fold
from crossloom.weave import Format, InputTransform, WovenLayer

CHUNK_BYTES = 1 << 20
"""Working set of one product: about what a core's second-level cache holds."""


def int8_products() -> bool:
    """True where torch multiplies int8 matrices with the processor's dot-product instructions."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX512", "AMX")


@dataclass(frozen=True, eq=False)
class Product:
    """acc = Σ_r W[g, n, r]·z[g, r], what is left of a layer once its input vectors are made.

    Attributes:
        selection: the input of every row, or None for all inputs in order.
        transform: what is still to be applied to the unfolded rows (rounding transforms), identity otherwise.
        weights: int64 (G, N', R).
        low, high: range of the rows.
    """

    selection: Integer[np.ndarray, " rows"] | None
    transform: InputTransform
    weights: Integer[np.ndarray, "groups columns rows"]
    low: int
    high: int

    @staticmethod
    def of(layer: WovenLayer) -> Product:
        """The cheapest exact form of a layer: pruned inputs are not fetched, a linear P is folded into the weights."""
        form, transform = layer.input_format, layer.transform
        if transform.is_identity or (len(transform.factors) == 1 and transform.factors[0].selection is not None):
            selection = None if transform.is_identity else transform.factors[0].selection
            return Product(
                selection, InputTransform.identity(transform.rows), _columns(layer.core), form.low, form.high
            )
        if transform.is_linear:
            folded = layer.effective_weight()
            identity = InputTransform.identity(layer.inputs)
            return Product(None, identity, _columns(folded), form.low, form.high)
        row = layer.row_format
        return Product(None, transform, _columns(layer.core), row.low, row.high)

    @property
    def bound(self) -> int:
        """Largest |acc| there can be."""
        reach = np.abs(self.weights).sum(2) * max(abs(self.low), abs(self.high))
        return int(reach.max(initial=0))

    @property
    def accumulator(self) -> torch.dtype:
        """int32 if every accumulator fits, else int64."""
        return torch.int32 if self.bound < 1 << 31 else torch.int64


def _columns(core: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(core.astype(np.int64).transpose(0, 2, 1))


class IntegerEngine:
    """Exact integer products."""

    rung = "integer"

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """A kernel for one layer."""
        layer = woven(target)
        product = Product.of(layer)
        if settings.device.type != "cpu":
            return _float_kernel(layer, product, settings)
        groups, columns, rows = product.weights.shape
        nonzero = np.count_nonzero(product.weights)
        small = groups > 1 and columns * rows <= 1024
        sparse = nonzero * 16 <= product.weights.size
        if small or sparse:
            return _direct_kernel(layer, product)
        return _byte_kernel(layer, product) if int8_products() else _float_kernel(layer, product, settings)


class RowSource:
    """Makes the matrix (rows, positions) of a layer's transformed inputs, any run of positions at a time."""

    def __init__(self, layer: WovenLayer, selection: np.ndarray | None, transform: InputTransform) -> None:
        self.layer, self.selection, self.transform = layer, selection, transform
        self.geometry: dict[Fold, Geometry] = {}

    def open(self, x: torch.Tensor) -> tuple[Fold, Geometry, np.ndarray]:
        """The fold, the geometry and the codes as a (B, C, H, W) array, (positions, K, 1, 1) for a linear layer."""
        fold = Fold.of(self.layer, tuple(x.shape))
        key = Fold(
            (0,), *(getattr(fold, f) for f in ("inputs", "convolution", "channels", "size", "output_size", "fill"))
        )
        if key not in self.geometry:
            self.geometry[key] = Geometry.of(fold, self.selection)
        codes = x.contiguous().numpy()
        return fold, self.geometry[key], codes.reshape(-1, fold.channels, *fold.size)

    def rows(
        self,
        codes: np.ndarray,
        fold: Fold,
        geometry: Geometry,
        first: int,
        count: int,
        room: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rows for `count` positions from `first`: in the codes' dtype, or int64 behind a transform that computes.

        `room`, of that dtype, is where unfolded rows go if given: fresh memory costs more than filling it.
        """
        if fold.convolution is None:
            z = transpose(codes.reshape(-1, fold.inputs)[first : first + count])
            z = z if self.selection is None else z[self.selection]
        else:
            size = len(geometry.rows) * count
            z = (np.empty(size, codes.dtype) if room is None else room[:size]).reshape(-1, count)
            unfold(codes, geometry.rows, geometry.shape, codes.dtype.type(fold.fill), first, z)
        for factor in self.transform.factors:
            out = np.empty((factor.matrix.shape[0], count), np.int64)
            m: sp.csr_array = factor.matrix
            combine(z, m.indptr.astype(np.int64), m.indices.astype(np.int64), m.data, factor.shift, out)
            z = out
        return z


def byte_pieces(values: np.ndarray) -> list[np.ndarray]:
    """Signed int8 pieces with Σ 2^(8j)·piece_j = values: balanced digits, lowest first."""
    pieces = []
    while True:
        low = ((values + 128) & 255) - 128
        pieces.append(low.astype(np.int8))
        values = (values - low) >> 8
        if not values.any():
            return pieces


def code_bytes(z: np.ndarray, form: Format) -> tuple[list[np.ndarray], int]:
    """Int8 pieces of codes, lowest first, and the constant that Σ 2^(8j)·piece_j falls short of them."""
    count = -(-form.bits // 8)
    if z.dtype == np.int8:
        return [z], 0
    if z.dtype == np.uint8:
        return [(z ^ 0x80).view(np.int8)], 128
    pieces, constant = [], 0
    for j in range(count):
        piece = z >> (8 * j)
        if j < count - 1 or not form.signed:
            piece, constant = (piece & 255) - 128, constant + (128 << (8 * j))
        pieces.append(piece.astype(np.int8))
    return pieces, constant


def _byte_kernel(layer: WovenLayer, product: Product) -> Kernel:
    groups, columns, rows = product.weights.shape
    source = RowSource(layer, product.selection, product.transform)
    form = Format.covering(product.low, product.high)
    wide = product.accumulator
    weights = [[torch.from_numpy(p) for p in byte_pieces(product.weights[g])] for g in range(groups)]
    totals = torch.from_numpy(product.weights.sum(2))

    def kernel(x: torch.Tensor) -> torch.Tensor:
        fold, geometry, codes = source.open(x)
        shifted = 0
        if codes.dtype == np.uint8 and product.transform.is_identity:
            codes, shifted = (codes ^ 0x80).view(np.int8), 128
            fold = replace(fold, fill=fold.fill - 128)
        out = torch.empty((groups * columns, fold.positions), dtype=wide)
        step = max(CHUNK_BYTES // (groups * rows), 64)
        image = fold.output_size[0] * fold.output_size[1]
        step = step // image * image or step  # whole images, which unfold fastest
        room = np.empty(len(geometry.rows) * min(step, fold.positions), codes.dtype)
        for first in range(0, fold.positions, step):
            count = min(step, fold.positions - first)
            pieces, constant = code_bytes(source.rows(codes, fold, geometry, first, count, room), form)
            for g in range(groups):
                target = out[g * columns : (g + 1) * columns, first : first + count]
                base: torch.Tensor = (totals[g] * (constant + shifted)).to(wide)[:, None]
                for j, weight in enumerate(weights[g]):
                    for i, piece in enumerate(pieces):
                        part = torch.from_numpy(piece[g * rows : (g + 1) * rows])
                        for k in range(0, rows, 1 << 16):
                            added = torch._int_mm(weight[:, k : k + (1 << 16)], part[k : k + (1 << 16)])
                            torch.add(base, added.to(wide) << (8 * (i + j)) if i + j else added, out=target)
                            base = target
        return columns_first(out, fold)

    return kernel


def _direct_kernel(layer: WovenLayer, product: Product) -> Kernel:
    groups, columns, rows = product.weights.shape
    source = RowSource(layer, product.selection, product.transform)
    matrix = sp.csr_array(product.weights.reshape(groups * columns, rows))
    group = np.repeat(np.arange(groups * columns) // columns, np.diff(matrix.indptr))
    index = matrix.indices.astype(np.int64) + group * rows
    dtype = np.dtype(np.int32 if product.accumulator == torch.int32 else np.int64)
    pointers, data = matrix.indptr.astype(np.int64), matrix.data.astype(dtype)

    def kernel(x: torch.Tensor) -> torch.Tensor:
        fold, geometry, codes = source.open(x)
        out = np.zeros((groups * columns, fold.positions), dtype)
        step = max(CHUNK_BYTES // (groups * rows), 64)
        for first in range(0, fold.positions, step):
            count = min(step, fold.positions - first)
            z = source.rows(codes, fold, geometry, first, count)
            direct(z.astype(dtype), pointers, index, data, out[:, first : first + count])
        return columns_first(torch.from_numpy(out), fold)

    return kernel


def _float_kernel(layer: WovenLayer, product: Product, settings: Settings) -> Kernel:
    groups, columns, rows = product.weights.shape
    dtype = exact_dtype(product.bound)
    weights = torch.from_numpy(product.weights.transpose(0, 2, 1).copy()).to(settings.device, dtype)
    selection = None if product.selection is None else torch.from_numpy(product.selection).to(settings.device)

    def kernel(x: torch.Tensor) -> torch.Tensor:
        fold = Fold.of(layer, tuple(x.shape))
        vectors = fold.vectors(x)
        out = torch.empty((len(vectors), groups * columns), dtype=product.accumulator, device=x.device)
        step = max(settings.memory_budget // (4 * 8 * max(layer.inputs + groups * (rows + columns), 1)), 1)
        for first in range(0, len(vectors), step):
            part = vectors[first : first + step]
            part = part if selection is None else part[:, selection]
            z = transform_rows(product.transform, part).to(dtype).reshape(len(part), groups, rows)
            out[first : first + step] = torch.einsum("vgr,grn->vgn", z, weights).reshape(len(part), -1).to(out.dtype)
        return fold.accumulators(out)

    return kernel


def columns_first(acc: torch.Tensor, fold: Fold) -> torch.Tensor:
    """Accumulators (columns, positions) in the layout of the layer's output, as a view."""
    if fold.convolution is None:
        return acc.T.reshape(*fold.batch, -1)
    return acc.reshape(len(acc), *fold.batch, *fold.output_size).movedim(0, 1)
