"""Runtime-aware adaptation (CRIMP, step 5): what arrays with real cells return, in the training forward pass.

    Y = ideal + Σ_{slice s, bit b, row block d} 4^s·2^b·Round(MAC(bit_b(Q_X)[d], slice_s(Q_W)[d]·(e^θ − 1)))

with (stuck level − c) in place of c·(e^θ − 1) for a stuck cell, and the sum detached from the gradient.

*Exact* is this formula: all bits of all inputs side by side in one batched product per chunk of inputs (row blocks
are the batch, slices stand in the columns), rounded in place while the chunk is in the cache, summed over blocks and
bits by one product with their weights. *Sampled* uses Round(m) = m + r: the m add up to one ordinary product with the
weights' deviation Σ_s 4^s·c_s·(e^θ − 1), and the many r, each nearly uniform on (−½, ½) where the reads spread over
more than a step, to a normal number of the same variance. That costs no product, where the formula has 32 besides.

A woven layer's cells hold the core C and its rows are driven with the digits of P x; what the cells deviate by is
expanded through P like the core itself. Groups lie on arrays as the mapping puts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.cell_draws import ArrayCells, ChipDraw, Draw, FreshDraw, Normals
from crossloom.methods.cell_reads import allocated, deviations, read_error, sections, summed_deviation
from crossloom.methods.protocol import Method
from crossloom.methods.sampled_reads import SampledError, deviating
from crossloom.nn import Conv2d, Linear, Quantiser, woven_layers
from crossloom.nn.layers import Weave
from crossloom.weave import Field, WeightCode, fields, fitting_copies

Reading = Literal["exact", "sampled"]


def unfolded(layer: Conv2d | Linear, x: Tensor) -> tuple[Float[Tensor, "vectors rows"], Callable[[Tensor], Tensor]]:
    """The input vectors of a layer, and the way from their outputs to the layer's output tensor."""
    if isinstance(layer, Linear):
        return x.reshape(-1, x.shape[-1]), lambda y: y.view(*x.shape[:-1], -1)
    padded = F.pad(x, layer._reversed_padding_repeated_twice)
    vectors = F.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)
    span = layer.dilation[0] * (layer.kernel_size[0] - 1) + 1
    height = (padded.shape[2] - span) // layer.stride[0] + 1

    def back(y: Tensor) -> Tensor:
        return y.view(len(x), -1, y.shape[1]).transpose(1, 2).reshape(len(x), y.shape[1], height, -1)

    return vectors.transpose(1, 2).reshape(-1, vectors.shape[1]), back


@dataclass(frozen=True)
class Driven:
    """What a layer's rows are driven with.

    Attributes:
        groups: of the convolution, 1 for a linear layer.
        digits: the 1-bit fields in which P x is streamed.
        matrix: P of one group, or None for the identity; exact in its type.
    """

    groups: int
    digits: tuple[Field, ...]
    matrix: Float[Tensor, "rows inputs"] | None

    @staticmethod
    def of(layer: Conv2d | Linear, source: Quantiser) -> Driven:
        """For a layer whose input comes from the quantiser `source`."""
        form, matrix = source.format, None
        if layer.weave is not None:
            transform = cast(Weave, layer.weave).transform(1)
            form = transform.row_format(form)
            exact = torch.float32 if form.bits < 24 else torch.float64
            matrix = torch.from_numpy(transform.matrix().toarray()).to(layer.weight.device, exact)
        groups = layer.groups if isinstance(layer, Conv2d) else 1
        return Driven(groups, fields(form.bits, 1, form.signed), matrix)

    def rows(self, vectors: Float[Tensor, "vectors inputs"]) -> Float[Tensor, "vectors groups rows"]:
        """P x of integer input vectors."""
        x = vectors.view(len(vectors), self.groups, -1)
        return x if self.matrix is None else x.to(self.matrix.dtype) @ self.matrix.T


@dataclass(frozen=True)
class Run:
    """Groups that share arrays, and what these hold.

    Attributes:
        groups: first and one past the last.
        core: integers of the weights, a group's on the diagonal, copies beside each other.
        step: what one is worth in each output, real units.
        copies: of every row.
        code: of the weights.
        place: name, for draws.
    """

    groups: tuple[int, int]
    core: Float[Tensor, "outputs rows"]
    step: Float[Tensor, "outputs 1"]
    copies: int
    code: WeightCode
    place: str


class RuntimeSimulator(nn.Module):
    """A layer's disturbance that adds what real cells add to its product.

    Args:
        cells: the array and its cells.
        draw: where cells come from.
        place: name of the layer, for draws.
        training: how reads are computed in training mode.
        dtype: of the exact reads: float64 for comparison with the engines, bfloat16 where the machine multiplies it
            faster (reads then carry an error of 2^-9, far below ε).
        evaluation: how reads are computed in evaluation mode.
        normals: where sampled reads take their rounding from, which simulators may share.
        copies: whether rows that an array has idle hold copies of the others (`crossloom.mapping.idle_rows`).
    """

    def __init__(
        self, cells: ArrayCells, draw: Draw, place: str, training: Reading = "sampled",
        dtype: torch.dtype = torch.float32, evaluation: Reading = "exact", normals: Normals | None = None,
        copies: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cells, self.draw, self.place, self.dtype, self.copies = cells, draw, place, dtype, copies
        self.reads: dict[bool, Reading] = {True: training, False: evaluation}
        self.normals = normals or Normals()
        self.active = True
        self._core: Tensor | None = None
        self._kept: tuple[tuple[Any, ...], Driven] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The quantised core as it is: this disturbance acts on the product, and keeps what the cells hold."""
        self._core = weight.detach()
        return weight

    def _driven(self, layer: Conv2d | Linear, source: Quantiser) -> Driven:
        """`Driven.of`, made once for a weave and a format."""
        key = (layer.weave, source.format.bits, source.format.signed, layer.weight.device)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, Driven.of(layer, source)
        return self._kept[1]

    def product(
        self, layer: Conv2d | Linear, x: Tensor, weight: Tensor, bias: Tensor | None, divisor: Tensor | None
    ) -> Tensor:
        """The product with the arrays' error; without it while the layer is not quantised or the simulator is off.

        See `crossloom.nn.layers.Reads.product`.
        """
        source = cast(Quantiser | None, layer.__dict__.get("input_quantiser"))
        if source is None or source.observing or not source.enabled:
            return layer._apply_layer(x, weight, bias)
        if not layer.weight_quantiser.enabled or not self.active:
            return layer._apply_layer(x, weight, bias)
        if self.reads[self.training] == "sampled" and self._driven(layer, source).groups == 1:
            with torch.no_grad():
                (run,), driven = self._runs(layer, divisor)
                error = self._sampled(layer, driven, run)
            return deviating(layer, x, weight, bias, error, self.normals)
        # With groups no weight holds a sampled error: cells are driven by the neighbours' inputs too, in shared arrays.
        y = layer._apply_layer(x, weight, bias)
        return y + self.error(layer, x, divisor).to(y.dtype)

    @torch.no_grad()
    def error(self, layer: Conv2d | Linear, x: Tensor, divisor: Tensor | None = None) -> Tensor:
        """What the arrays add to the layer's product, in real units, in the shape of the layer's output.

        Args:
            layer: whose effective weight was computed last with this simulator in it.
            x: its input, on the grid of its input quantiser.
            divisor: of every output, that the error is divided by; None: 1.
        """
        runs, driven = self._runs(layer, divisor)
        if self.reads[self.training] == "sampled":
            return self._sum(layer, x, runs, driven)
        format = cast(Quantiser, layer.__dict__["input_quantiser"]).format
        vectors, back = unfolded(layer, torch.round(x.float() / format.scale))
        rows, found = driven.rows(vectors + format.zero_point), []
        for run in runs:
            cells = deviations(run.core.to(self.dtype), run.code, self.cells, self.draw, run.place)
            with torch.autocast(x.device.type, enabled=False):
                held = rows[:, slice(*run.groups)].flatten(1).repeat(1, run.copies)
                gains = [s.gain for s in run.code.slices]
                read = read_error(held, cells, gains, driven.digits, self.cells.rows)
            found.append(read * (run.step.reshape(-1) * (format.scale / run.copies)).to(read.dtype))
        return back(torch.cat(found, 1)).to(x.dtype)

    def _runs(self, layer: Conv2d | Linear, divisor: Tensor | None) -> tuple[list[Run], Driven]:
        """What the layer's arrays hold, steps over the divisor, and what their rows are driven with."""
        assert self._core is not None, "the layer's effective weight comes first"
        source, quantiser = cast(Quantiser, layer.__dict__["input_quantiser"]), layer.weight_quantiser
        step, zero = quantiser.step(layer.folded()[0])
        driven = self._driven(layer, source)
        code = self.cells.code(quantiser.bits, None if quantiser.config.symmetric else int(zero))
        weights = torch.round(self._core / step).flatten(1).unflatten(0, (driven.groups, -1))
        groups, outputs, height = weights.shape
        steps = step.reshape(-1, 1).expand(groups * outputs, 1)
        steps = steps if divisor is None else steps / divisor.detach().reshape(-1, 1)
        copies = fitting_copies(height, self.cells.rows) if self.copies and groups == 1 else 1
        shared = sections(groups, outputs, height, code, self.cells)
        return [
            Run(
                (a, b), torch.block_diag(*weights[a:b]).repeat(1, copies), steps[a * outputs : b * outputs], copies,
                code, self.place if len(shared) == 1 else f"{self.place}[{a}]",
            )
            for a, b in shared
        ], driven  # fmt: skip

    def _sum(self, layer: Conv2d | Linear, x: Tensor, runs: list[Run], driven: Driven) -> Tensor:
        """The sampled errors of all runs, one output after another."""
        added = [self._sampled(layer, driven, run).error(layer, x, run.groups, self.normals) for run in runs]
        return torch.cat(added, 1) if isinstance(layer, Conv2d) else added[0]

    def _sampled(self, layer: Conv2d | Linear, driven: Driven, run: Run) -> SampledError:
        """The error of one run of groups, drawn but for its rounding."""
        format = cast(Quantiser, layer.__dict__["input_quantiser"]).format
        held = summed_deviation(run.core, run.code, self.cells, self.draw, run.place)
        found = held.unflatten(0, (run.copies, -1)).mean(0).T * run.step
        if layer.weave is not None:
            groups = found.reshape(len(found) * (run.groups[1] - run.groups[0]), -1)
            found = cast(Weave, layer.weave).expand(groups).reshape(len(found), -1)
        shift = found.sum(1) * (format.zero_point * format.scale) if format.zero_point else None
        down = allocated(run.core, run.code, self.cells).sum(0)  # arrays that every output sums over
        per_output = down.repeat_interleave(self.cells.columns // run.code.columns)[: len(found)]
        variance = sum(s.gain**2 for s in run.code.slices) * sum(f.weight**2 for f in driven.digits) / 12
        deviation = (per_output * variance).sqrt() * run.step.reshape(-1) * (format.scale / run.copies)
        kernel = layer.kernel_size if isinstance(layer, Conv2d) else ()
        return SampledError(found.reshape(len(found), -1, *kernel), shift, deviation)

    def extra_repr(self) -> str:
        """The code, ε and how training reads."""
        reads = f"training={self.reads[True]}, evaluation={self.reads[False]}"
        return f"{self.cells.encoding}, epsilon={self.cells.epsilon}, {reads}"


def simulators(network: nn.Module) -> list[RuntimeSimulator]:
    """The runtime simulators of a network."""
    return [m for m in network.modules() if isinstance(m, RuntimeSimulator)]


class RuntimeAdaptation(Method):
    """Train through the runtime simulator, so that the weights learn to live with real cells.

    Args:
        cells: the array and its cells, or the fields of `ArrayCells`.
        draw: `fresh` cells at every step, or those of one `chip`.
        seed: of the chip, or of the bank that fresh cells are cut from.
        reads: `sampled` or `exact` reads in training.
        dtype: of the exact reads.
        evaluation: `exact`, or `sampled` where a training's log is all that it is for.
        copies: whether the chip will have copies of rows in idle rows (the mapping pass `repeat`), which err less.

    Raises:
        InputError: an unknown draw or way of reading.
    """

    name: ClassVar[str] = "runtime-adaptation"

    def __init__(
        self, cells: ArrayCells | Mapping[str, Any] | None = None, draw: Literal["fresh", "chip"] = "fresh",
        seed: int = 0, reads: Reading = "sampled", dtype: torch.dtype = torch.float32,
        evaluation: Reading = "exact", copies: bool = False,
    ) -> None:  # fmt: skip
        if draw not in ("fresh", "chip"):
            raise InputError.choice("runtime-adaptation.draw", draw, ("fresh", "chip"))
        for field, way in (("reads", reads), ("evaluation", evaluation)):
            if way not in ("exact", "sampled"):
                raise InputError.choice(f"runtime-adaptation.{field}", way, ("exact", "sampled"))
        self.cells = ArrayCells(**cells) if isinstance(cells, Mapping) else cells or ArrayCells()
        self.reads, self.dtype, self.evaluation, self.copies = reads, dtype, evaluation, copies
        self.draw: Draw = (FreshDraw if draw == "fresh" else ChipDraw)(self.cells, seed)

    def prepare(self, network: nn.Module) -> None:
        """Put a simulator behind every layer.

        Raises:
            InputError: a layer whose input has no codes, or whose input transform rounds: what the chip computes is
                then not the product that training computes, and the error's ideal part is not known.
        """
        normals = Normals()
        for name, layer in woven_layers(network).items():
            if layer.__dict__.get("input_quantiser") is None:
                raise InputError(f"layers.{name}", "no input codes", "a quantised input")
            if layer.weave is not None and not cast(Weave, layer.weave).transform(1).is_linear:
                raise InputError(
                    f"layers.{name}", "rounded moments", "exact moments (approximation with growth: none, or enough)"
                )
            layer.disturbance = RuntimeSimulator(
                self.cells, self.draw, name, self.reads, self.dtype, self.evaluation, normals, self.copies
            )

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Take the simulators out again."""
        for layer in woven_layers(network).values():
            if isinstance(layer.disturbance, RuntimeSimulator):
                layer.disturbance = None
        return {"epsilon": self.cells.epsilon, "encoding": self.cells.encoding}


def mean_deviation(epsilon: float) -> float:
    """E[e^θ − 1] = e^{ε²/2} − 1: the part of the error that the paper's height rule H < 2/(3·(…)) is about."""
    return math.expm1(epsilon**2 / 2)
