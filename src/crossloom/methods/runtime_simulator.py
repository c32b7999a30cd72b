"""Runtime-aware adaptation (CRIMP, step 5): what arrays with real cells return, in the training forward pass.

    Y = ideal + Σ_{slice s, bit b, row block d} 4^s·2^b·Round(MAC(bit_b(Q_X)[d], slice_s(Q_W)[d]·(e^θ − 1)))

with (stuck level − c) in place of c·(e^θ − 1) for a stuck cell, and the sum detached from the gradient.

*Exact* is this formula: all bits of all inputs side by side in one batched product per chunk of inputs (row blocks
are the batch, slices stand in the columns), rounded in place while the chunk is in the cache, summed over blocks and
bits by one product with their weights. *Sampled* uses Round(m) = m + r: the m add up to one ordinary product with the
weights' deviation Σ_s 4^s·c_s·(e^θ − 1), and the many r, each nearly uniform on (−½, ½) where the reads spread over
more than a step, to a normal number of the same variance. That costs one product and not 32.

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

    @torch.no_grad()
    def error(self, layer: Conv2d | Linear, x: Tensor) -> Tensor:
        """What the arrays add to the layer's product, in real units, in the shape of the layer's output.

        Args:
            layer: whose effective weight was computed last with this simulator in it.
            x: its input, on the grid of its input quantiser.
        """
        assert self._core is not None, "the layer's effective weight comes first"
        source, quantiser = cast(Quantiser, layer.__dict__["input_quantiser"]), layer.weight_quantiser
        step, zero = quantiser.step(layer.folded()[0])
        format, driven = source.format, self._driven(layer, source)
        code = self.cells.code(quantiser.bits, None if quantiser.config.symmetric else int(zero))
        weights = torch.round(self._core / step).flatten(1).unflatten(0, (driven.groups, -1))
        steps = step.reshape(-1, 1).expand(weights[..., 0].numel(), 1)
        groups, outputs, height = weights.shape
        runs = sections(groups, outputs, height, code, self.cells)
        copies = fitting_copies(height, self.cells.rows) if self.copies and groups == 1 else 1
        cores = [torch.block_diag(*weights[slice(*run)]).repeat(1, copies) for run in runs]
        steps_of = [steps[a * outputs : b * outputs] for a, b in runs]
        places = [self.place if len(runs) == 1 else f"{self.place}[{a}]" for a, _ in runs]
        if self.reads[self.training] == "sampled":
            parts = zip(runs, cores, steps_of, places, strict=True)
            sampled = [self._sampled(layer, x, code, driven, copies, *part) for part in parts]
            return torch.cat(sampled, 1) if isinstance(layer, Conv2d) else sampled[0]
        vectors, back = unfolded(layer, torch.round(x.float() / format.scale))
        rows = driven.rows(vectors + format.zero_point)
        added = []
        for (a, b), core, place in zip(runs, cores, places, strict=True):
            found = deviations(core.to(self.dtype), code, self.cells, self.draw, place)
            with torch.autocast(x.device.type, enabled=False):
                gains = [s.gain for s in code.slices]
                held = rows[:, a:b].flatten(1).repeat(1, copies)
                added.append(read_error(held, found, gains, driven.digits, self.cells.rows))
        total = (torch.cat(added, 1) if len(added) > 1 else added[0]) / copies
        return back(total * (steps.reshape(-1) * format.scale).to(total.dtype)).to(self._core.dtype)

    def _sampled(
        self, layer: Conv2d | Linear, x: Tensor, code: WeightCode, driven: Driven, copies: int, run: tuple[int, int],
        core: Float[Tensor, "outputs rows"], step: Float[Tensor, "outputs 1"], place: str,
    ) -> Tensor:  # fmt: skip
        """The sampled error of the groups of one run."""
        format = cast(Quantiser, layer.__dict__["input_quantiser"]).format
        held = summed_deviation(core, code, self.cells, self.draw, place)
        found = held.unflatten(0, (copies, -1)).mean(0).T * step
        if layer.weave is not None:
            groups = found.reshape(len(found) * (run[1] - run[0]), -1)
            found = cast(Weave, layer.weave).expand(groups).reshape(len(found), -1)
        shift = found.sum(1) * (format.zero_point * format.scale) if format.zero_point else None
        if isinstance(layer, Conv2d):
            width = layer.in_channels // layer.groups
            part = x[:, run[0] * width : run[1] * width] if layer.groups > 1 else x
            kernels = found.view(len(found), -1, *layer.kernel_size)
            added = F.conv2d(part, kernels, shift, layer.stride, layer.padding, layer.dilation)
        else:
            added = F.linear(x, found, shift)
        down = allocated(core, code, self.cells).sum(0)  # arrays that every output sums over
        per_output = down.repeat_interleave(self.cells.columns // code.columns)[: len(core)]
        variance = sum(s.gain**2 for s in code.slices) * sum(f.weight**2 for f in driven.digits) / 12
        deviation = (per_output * variance).sqrt() * step.reshape(-1) * (format.scale / copies)
        shape = (1, -1) + (1,) * (added.dim() - 2) if isinstance(layer, Conv2d) else (-1,)
        return added + self.normals(added) * deviation.view(shape).to(added.dtype)

    def disturb(self, layer: Any, x: Tensor, weight: Tensor, y: Tensor) -> Tensor:
        """The product with the arrays' error; y itself while the layer is not quantised or the simulator is off."""
        source = cast(Quantiser | None, layer.__dict__.get("input_quantiser"))
        plain = source is None or source.observing or not source.enabled or not layer.weight_quantiser.enabled
        return y if plain or not self.active else y + self.error(layer, x).to(y.dtype)

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
