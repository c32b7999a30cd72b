"""Runtime-aware adaptation (CRIMP, step 5): what arrays with real cells return, in the training forward pass.

    Y = ideal + Σ_{slice s, bit b, row block d} 4^s·2^b·Round(MAC(bit_b(Q_X)[d], slice_s(Q_W)[d]·(e^θ − 1)))

with (stuck level − c) in place of c·(e^θ − 1) for a stuck cell, and the sum detached from the gradient.

*Exact* is this formula: all bits of all inputs side by side in one batched product per chunk of inputs (row blocks
are the batch, slices stand in the columns), rounded in place while the chunk is in the cache, summed over blocks and
bits by one product with their weights. *Sampled* uses Round(m) = m + r: the m add up to one ordinary product with the
weights' deviation Σ_s 4^s·c_s·(e^θ − 1), and the many r, each nearly uniform on (−½, ½) where the reads spread over
more than a step, to a normal number of the same variance. That costs one product and not 32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.cell_draws import SLICES, ArrayCells, ChipDraw, Draw, FreshDraw, Normals, levels
from crossloom.methods.protocol import Method
from crossloom.nn import Conv2d, Linear, Quantiser, woven_layers
from crossloom.weave import Field, WeightCode, fields

Reading = Literal["exact", "sampled"]
CHUNK = 1 << 20
"""Reads of one batched product: about what a core's cache holds in 32 bits."""


def allocated(
    weights: Float[Tensor, "outputs rows"], code: WeightCode, cells: ArrayCells
) -> Bool[Tensor, "down across"]:
    """Which array-sized blocks hold a weight other than 0: only those get an array."""
    height, width = cells.rows, cells.columns // code.columns
    held = F.pad(weights != 0, (0, -weights.shape[1] % height, 0, -len(weights) % width))
    return held.reshape(held.shape[0] // width, width, -1, height).any(3).any(1).T


def spread(
    blocks: Bool[Tensor, "down across"], like: Float[Tensor, "rows outputs"], code: WeightCode, cells: ArrayCells
) -> Bool[Tensor, "rows outputs"]:
    """A flag per block as one per weight."""
    width = cells.columns // code.columns
    return blocks.repeat_interleave(cells.rows, 0)[: len(like)].repeat_interleave(width, 1)[:, : like.shape[1]]


def deviations(
    weights: Float[Tensor, "outputs rows"], code: WeightCode, cells: ArrayCells, draw: Draw, place: str
) -> Float[Tensor, SLICES]:
    """What every cell reads beyond its level; 0 in blocks of zero weights, which get no array."""
    target = levels(weights, code)
    a, b = draw(target, place)
    found = torch.addcmul(b, a, target)
    blocks = allocated(weights, code, cells)
    return found if bool(blocks.all()) else found * spread(blocks, found[0], code, cells)


def summed_deviation(
    weights: Float[Tensor, "outputs rows"], code: WeightCode, cells: ArrayCells, draw: Draw, place: str
) -> Float[Tensor, "rows outputs"]:
    """Σ_s gain_s · `deviations`_s, slice by slice without ever holding all of them."""
    w = weights.T.to(torch.int16).contiguous()
    a, b = draw(weights.new_empty(1).expand(code.columns, *w.shape), place)
    parts = {"value": w + code.zero, "plus": w.clamp_min(0), "minus": (-w).clamp_min(0)}
    found = torch.zeros(w.shape, dtype=weights.dtype, device=w.device)
    for s, piece in enumerate(code.slices):
        level = ((parts[piece.part] >> piece.field.lsb) & ((1 << piece.field.width) - 1)).to(weights.dtype)
        found.add_(torch.addcmul(b[s], a[s], level), alpha=piece.gain)
    blocks = allocated(weights, code, cells)
    return found if bool(blocks.all()) else found.mul_(spread(blocks, found, code, cells))


def read_error(
    x: Float[Tensor, "vectors rows"], deviation: Float[Tensor, SLICES], gains: Sequence[int], digits: Sequence[Field],
    height: int, chunk: int = CHUNK,
) -> Float[Tensor, "vectors outputs"]:  # fmt: skip
    """The sum of rounded reads, in accumulator steps.

    Args:
        x: integer input codes; computed in `deviation`'s type.
        deviation: of every cell, level steps.
        gains: what one step read from each slice is worth.
        digits: the 1-bit fields of an input code.
        height: rows of an array.
        chunk: reads held at once.

    Returns:
        float64 where `deviation` is, else float32.
    """
    slices, rows, outputs = deviation.shape
    height = min(height, rows)
    blocks = -(-rows // height)
    cells = F.pad(deviation, (0, 0, 0, blocks * height - rows)).permute(1, 0, 2)
    cells = cells.reshape(blocks, height, slices * outputs)
    codes = F.pad(x, (0, blocks * height - rows)).to(torch.int32).contiguous()
    wide = torch.float64 if deviation.dtype == torch.float64 else torch.float32
    worth = torch.tensor([f.weight for f in digits], dtype=deviation.dtype, device=x.device).repeat(blocks)
    gain = torch.tensor(gains, dtype=wide, device=x.device)
    lsb = torch.tensor([f.lsb for f in digits], dtype=torch.int32, device=x.device)
    step = max(chunk // (blocks * len(digits) * slices * outputs), 1)
    found = torch.empty(len(x), outputs, dtype=wide, device=x.device)
    for start in range(0, len(x), step):
        part = codes[start : start + step]
        bits = (part >> lsb[:, None, None]) & 1  # (digits, vectors, blocks × height)
        planes = bits.view(len(digits) * len(part), blocks, height).transpose(0, 1).to(deviation.dtype)
        reads = torch.bmm(planes, cells).add_(0.5).floor_()
        total = worth @ reads.view(blocks * len(digits), -1)
        found[start : start + step] = torch.einsum("vsn,s->vn", total.view(len(part), slices, outputs).to(wide), gain)
    return found


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
    """

    def __init__(
        self, cells: ArrayCells, draw: Draw, place: str, training: Reading = "sampled",
        dtype: torch.dtype = torch.float32, evaluation: Reading = "exact", normals: Normals | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cells, self.draw, self.place, self.dtype = cells, draw, place, dtype
        self.reads: dict[bool, Reading] = {True: training, False: evaluation}
        self.normals = normals or Normals()
        self.active = True

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as it is: this disturbance acts on the product."""
        return weight

    @torch.no_grad()
    def error(self, layer: Conv2d | Linear, x: Tensor, weight: Tensor) -> Tensor:
        """What the arrays add to the layer's product, in real units, in the shape of the layer's output."""
        source = cast(Quantiser, layer.__dict__["input_quantiser"])
        quantiser = layer.weight_quantiser
        step, zero = quantiser.step(layer.folded()[0])
        format = source.format
        code = self.cells.code(quantiser.bits, None if quantiser.config.symmetric else int(zero))
        weights = torch.round(weight / step).flatten(1)
        step = step.reshape(-1, 1) if step.dim() else step
        digits = fields(format.bits, 1, format.signed)
        gains = [s.gain for s in code.slices]
        if self.reads[self.training] == "exact":
            found = deviations(weights.to(self.dtype), code, self.cells, self.draw, self.place)
            vectors, back = unfolded(layer, torch.round(x.float() / format.scale))
            with torch.autocast(x.device.type, enabled=False):
                added = read_error(vectors, found, gains, digits, self.cells.rows)
            return back(added * (step.reshape(-1) * format.scale).to(added.dtype)).to(weight.dtype)
        found = summed_deviation(weights, code, self.cells, self.draw, self.place)
        added = layer._apply_layer(x, (found.T * step).view_as(weight), None)
        down = allocated(weights, code, self.cells).sum(0)  # arrays that every output sums over
        per_output = down.repeat_interleave(self.cells.columns // code.columns)[: len(weights)]
        variance = sum(g * g for g in gains) * sum(f.weight**2 for f in digits) / 12
        deviation = (per_output * variance).sqrt() * step.reshape(-1) * format.scale
        shape = (1, -1) + (1,) * (added.dim() - 2) if isinstance(layer, Conv2d) else (-1,)
        return added + self.normals(added) * deviation.view(shape).to(added.dtype)

    def disturb(self, layer: Any, x: Tensor, weight: Tensor, y: Tensor) -> Tensor:
        """The product with the arrays' error; y itself while the layer is not quantised or the simulator is off."""
        source = cast(Quantiser | None, layer.__dict__.get("input_quantiser"))
        plain = source is None or source.observing or not source.enabled or not layer.weight_quantiser.enabled
        return y if plain or not self.active else y + self.error(layer, x, weight).to(y.dtype)

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

    Raises:
        InputError: an unknown draw or way of reading.
    """

    name: ClassVar[str] = "runtime-adaptation"

    def __init__(
        self, cells: ArrayCells | Mapping[str, Any] | None = None, draw: Literal["fresh", "chip"] = "fresh",
        seed: int = 0, reads: Reading = "sampled", dtype: torch.dtype = torch.float32,
        evaluation: Reading = "exact",
    ) -> None:  # fmt: skip
        if draw not in ("fresh", "chip"):
            raise InputError.choice("runtime-adaptation.draw", draw, ("fresh", "chip"))
        for field, way in (("reads", reads), ("evaluation", evaluation)):
            if way not in ("exact", "sampled"):
                raise InputError.choice(f"runtime-adaptation.{field}", way, ("exact", "sampled"))
        self.cells = ArrayCells(**cells) if isinstance(cells, Mapping) else cells or ArrayCells()
        self.reads, self.dtype, self.evaluation = reads, dtype, evaluation
        self.draw: Draw = (FreshDraw if draw == "fresh" else ChipDraw)(self.cells, seed)

    def prepare(self, network: nn.Module) -> None:
        """Put a simulator behind every layer.

        Raises:
            InputError: a grouped or woven layer, or one whose inputs have a zero point: the paper's formula has none.
        """
        normals = Normals()
        for name, layer in woven_layers(network).items():
            if (isinstance(layer, Conv2d) and layer.groups > 1) or layer.weave is not None:
                raise InputError(f"layers.{name}", "grouped or woven", "plain convolutions and linear layers")
            source = cast(Quantiser | None, layer.__dict__.get("input_quantiser"))
            if source is None or not source.config.symmetric:
                raise InputError(f"layers.{name}", "asymmetric or no input codes", "symmetric inputs")
            layer.disturbance = RuntimeSimulator(
                self.cells, self.draw, name, self.reads, self.dtype, self.evaluation, normals
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
