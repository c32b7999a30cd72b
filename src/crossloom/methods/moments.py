"""The training face of moments: coefficients of polynomials as a layer's core, and how they stand for weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossloom.methods.polynomials import Run
from crossloom.weave import Factor, InputTransform


def per_group(x: Float[Tensor, "outputs rows"], matrices: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """x with every group's values multiplied by its run's matrix from the right: one small product a run.

    In the matrices' type under autocast, too: bfloat16 has not the bits of an integer basis.
    """
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return per_group(x, matrices, counts)
    x = x.to(matrices[0].dtype)
    runs = x.split([groups * len(matrix) for matrix, groups in zip(matrices, counts, strict=True)], 1)
    parts = [(run.reshape(-1, len(m)) @ m).view(len(x), -1) for run, m in zip(runs, matrices, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class _Blocks(nn.Module):
    """Block-diagonal matrices, kept as one small block a run; no part of the state dict."""

    def __init__(self, blocks: list[np.ndarray], counts: list[int]) -> None:
        super().__init__()
        self.counts = counts
        for i, block in enumerate(blocks):
            self.register_buffer(f"block{i}", torch.from_numpy(block), persistent=False)

    def multiply(self, x: Tensor) -> Tensor:
        blocks = [self.get_buffer(f"block{i}").to(x.dtype) for i in range(len(self.counts))]
        return per_group(x, blocks, self.counts)


class ChangeOfBasis(_Blocks):
    """Shaping: coefficients in the orthonormal basis → coefficients of the integer rows.

    Args:
        groups: the layer's runs.
    """

    def __init__(self, groups: tuple[Run, ...]) -> None:
        super().__init__([run.change for run in groups], [run.groups for run in groups])

    def forward(self, weight: Float[Tensor, "outputs rows"]) -> Float[Tensor, "outputs rows"]:
        """A·L."""
        return self.multiply(weight)

    @property
    def mixes(self) -> bool:
        """Whether a coefficient of the core comes from several of A; else (orthogonal rows) masks commute with it."""
        blocks = [self.get_buffer(f"block{i}") for i in range(len(self.counts))]
        return any(float((b - b.diag().diag()).abs().max()) > 1e-9 * float(b.abs().max()) for b in blocks)

    def inverse(self, core: Float[Tensor, "outputs rows"]) -> Float[Tensor, "outputs rows"]:
        """The A of a core A·L."""
        blocks = [torch.linalg.inv(self.get_buffer(f"block{i}").double()) for i in range(len(self.counts))]
        return per_group(core.double(), blocks, self.counts).to(core.dtype)


class Moments(_Blocks):
    """The weave: coefficients of the integer rows for weights, moments for inputs.

    Args:
        groups: the layer's runs.
    """

    def __init__(self, groups: tuple[Run, ...]) -> None:
        super().__init__([run.scaled for run in groups], [run.groups for run in groups])
        self.runs = groups

    def expand(self, core: Float[Tensor, "outputs rows"]) -> Float[Tensor, "outputs inputs"]:
        """W = C·P."""
        return self.multiply(core)

    def transform(self, groups: int) -> InputTransform:
        """P: one factor, moments of every group, with the right shifts of rounded moments."""
        blocks: list[sp.csr_array] = []
        shifts = []
        for run in self.runs:
            block = sp.csr_array(run.rows << np.maximum(run.exponents, 0)[:, None])
            blocks.append(sp.csr_array(sp.kron(sp.eye_array(run.groups, dtype=np.int64), block)))
            shifts.append(np.tile(np.maximum(-run.exponents, 0), run.groups))
        matrix = sp.csr_array(sp.block_diag(blocks, format="csr"))
        one = InputTransform(matrix.shape[1], (Factor.of("moments", matrix, np.concatenate(shifts)),))
        return one.repeated(groups)


def projected(weight: Float[Tensor, "outputs inputs"], groups: tuple[Run, ...]) -> Float[Tensor, "outputs rows"]:
    """Least squares: the coefficients A = W·Φᵀ of the nearest approximation in the orthonormal basis."""
    bases = [torch.from_numpy(run.orthonormal.T.copy()) for run in groups]
    counts = [run.groups for run in groups]
    return per_group(weight.double(), [b.to(weight.device) for b in bases], counts).to(weight.dtype)


def randomised(
    weight: Float[Tensor, "outputs inputs"], groups: tuple[Run, ...], generator: torch.Generator
) -> Float[Tensor, "outputs rows"]:
    """Normal coefficients with which the approximated weights have the weights' mean square."""
    deviation = float(weight.double().square().mean().sqrt())
    parts = [
        torch.randn(len(weight), run.groups * len(run.rows), generator=generator, dtype=torch.float64)
        * (deviation * math.sqrt(run.rows.shape[1] / len(run.rows)))
        for run in groups
    ]
    return torch.cat(parts, 1).to(weight)
