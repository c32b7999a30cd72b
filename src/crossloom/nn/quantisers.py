"""Quantisers: real tensors ↔ integer codes, with straight-through gradients.

Rounding is half up, ⌊x/s + ½⌋, the rounding of the integer program, so that what is trained is what runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.nn import fused
from crossloom.weave import Format

RangeMethod = Literal["minmax", "percentile", "mse", "learnt", "fixed"]
PowerOfTwo = Literal["off", "nearest", "up"]
SAMPLES = 1 << 16
"""Values kept of each calibration batch for percentiles and errors."""
CACHED = 1 << 17
"""Values that all operations on them pass over before the next ones are read: they stay in a core's cache."""


class QuantiserConfig(BaseModel):
    """How one kind of tensor is quantised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: int = Field(8, ge=1, le=16)
    """Width of a code. 1-bit weights are ±1, 2-bit weights with `ternary` are −1, 0, 1."""

    range: RangeMethod = "minmax"
    """How the step is found: the extremes; a `percentile` of |x|; least squared error (`mse`); a trained parameter
    (`learnt`, Esser et al., Learned Step Size Quantization, ICLR 2020), started from the least error; or given
    (`fixed`)."""

    fixed_step: float | None = Field(None, gt=0)
    """The step, for `fixed` and for nothing else."""

    percentile: float = Field(99.99, gt=50, le=100)
    """Per cent of values inside the range, for `percentile`."""

    per_channel: bool = False
    """One step per output channel (weights only)."""

    symmetric: bool = True
    """Zero point 0 (in the middle). Tensors that are never negative are unsigned either way."""

    power_of_two: PowerOfTwo = "off"
    """Steps rounded to 2^n: `nearest` in the logarithm (may clip), `up` (never clips), or not at all."""

    ternary: bool = False
    """Two-bit weights restricted to −1, 0, 1 (Li et al., Ternary Weight Networks, 2016)."""

    @model_validator(mode="after")
    def _fixed(self) -> QuantiserConfig:
        if (self.range == "fixed") != (self.fixed_step is not None):
            raise ValueError("range 'fixed' goes with a fixed_step, and a fixed_step with range 'fixed'")
        return self


class _Round(torch.autograd.Function):
    """⌊x + ½⌋ with the gradient of the identity."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class _FakeQuantise(torch.autograd.Function):
    """(clip(⌊x/s + ½⌋ + z, low, high) − z)·s; the gradient passes inside the range and stops outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
        if fused.suits(x, scale):
            made, inside = fused.quantised(x, scale, zero, low, high, ctx.needs_input_grad[0])
        else:
            wide = x.to(torch.promote_types(x.dtype, torch.float32))  # as the one pass does: eight bits are too few
            codes = torch.floor(wide / scale + 0.5) + zero
            kept = codes.clamp(low, high)
            made, inside = ((kept - zero) * scale).to(x.dtype), kept == codes
        if inside is not None:
            ctx.save_for_backward(inside)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return fused.passed(gradient, inside), None, None, None, None


class _LearntFakeQuantise(torch.autograd.Function):
    """⌊clip(x/s, low, high) + ½⌋·s with a gradient for the step as well (Esser et al. 2020, eq. 3), times `gain`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, gain: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.low, ctx.high, ctx.gain = low, high, gain
        made = torch.empty_like(x)
        for part, out in pieces(scale, x, made):
            torch.div(part, scale, out=out).clamp_(low, high).add_(0.5).floor_().mul_(scale)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        exact = torch.promote_types(x.dtype, torch.float32)
        passed, slope = torch.empty_like(x), torch.zeros((), dtype=exact, device=x.device)
        for part, given, out in pieces(scale, x, gradient.to(x.dtype), passed):
            at = part / scale
            clipped = at.clamp(ctx.low, ctx.high)
            inside = clipped == at
            slope += clipped.add_(0.5).floor_().sub_(at.mul_(inside)).mul_(given).sum(dtype=exact)
            torch.mul(given, inside, out=out)
        return passed, (slope * ctx.gain).to(scale.dtype).reshape(scale.shape), None, None, None


def pieces(scale: Tensor, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Tensors of one shape in pieces that a core's cache holds, where one step serves all of their values and they
    lie alike in a CPU's memory; otherwise whole.
    """
    first = next(t for t in tensors if t is not None)
    if first.numel() <= CACHED or scale.numel() > 1 or first.device.type != "cpu":
        yield tensors
        return
    order = sorted(range(first.dim()), key=first.stride, reverse=True)
    alike = all(t is None or (t.stride() == first.stride() and t.device == first.device) for t in tensors)
    if not alike or not first.permute(order).is_contiguous():
        yield tensors
        return
    flat = [None if t is None else t.permute(order).reshape(-1).split(CACHED) for t in tensors]
    for index in range(math.ceil(first.numel() / CACHED)):
        yield tuple(None if f is None else f[index] for f in flat)


def round_half_up(x: Tensor) -> Tensor:
    """⌊x + ½⌋ with a straight-through gradient."""
    rounded: Tensor = _Round.apply(x)
    return rounded


def to_power_of_two(scale: Tensor, mode: PowerOfTwo) -> Tensor:
    """`scale` (positive) rounded to a power of two; the gradient is that of the identity."""
    if mode == "off":
        return scale
    exponent = torch.log2(scale.detach().double())
    rounded = torch.round(exponent) if mode == "nearest" else torch.ceil(exponent - 1e-9)
    return scale + (torch.exp2(rounded).to(scale.dtype) - scale).detach()


@dataclass(frozen=True)
class Quantised:
    """A tensor as integers: value = scale·(codes − zero_point).

    Attributes:
        codes: int64, the tensor's shape.
        scale: float64, one element, or one per channel of axis 0.
        zero_point: int.
        bits: width of a code.
    """

    codes: Tensor
    scale: Tensor
    zero_point: int
    bits: int


class Quantiser(nn.Module):
    """Fake quantisation of activations: float in, float on the grid out.

    A quantiser first observes (`observing` true: the input passes unchanged and its range is noted), then, after
    `calibrate()`, quantises. Tensors that were never negative get unsigned codes with zero point 0; others signed
    symmetric codes, or unsigned ones with a zero point if `symmetric` is false.

    Args:
        config: how.
        signed: force the sign of the codes; None: as observed.

    Attributes:
        enabled: if false, values pass unchanged (a float pass of a calibrated network).
    """

    scale: Tensor
    zero_point: Tensor
    lowest: Tensor
    highest: Tensor
    ready: Tensor
    unsigned: Tensor

    def __init__(self, config: QuantiserConfig, signed: bool | None = None) -> None:
        super().__init__()
        self.configure(config, signed)

    def configure(self, config: QuantiserConfig, signed: bool | None = None, device: Any = None) -> None:
        """Begin anew, observing, with another configuration: for methods that decide about a network's quantisers."""
        self.config = config
        self.signed = signed
        self.enabled = True
        self.observing = True
        self._samples: list[Tensor] = []
        for name in ("scale", "zero_point", "lowest", "highest", "ready", "unsigned"):
            self._parameters.pop(name, None)
            self._buffers.pop(name, None)
        scale = torch.ones((), device=device)
        if config.range == "learnt":
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("lowest", torch.full((), math.inf, device=device))
        self.register_buffer("highest", torch.full((), -math.inf, device=device))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool, device=device))
        self.register_buffer("unsigned", torch.zeros((), dtype=torch.bool, device=device))

    @property
    def format(self) -> Format:
        """The integer format of the output.

        Raises:
            InputError: nothing was calibrated yet.
        """
        if not bool(self.ready):
            raise InputError("quantiser", "not calibrated", "calibrate(module, loader) to have run first")
        unsigned = bool(self.unsigned)
        return Format(self.config.bits, not unsigned, self.step().double().item(), int(self.zero_point))

    def step(self) -> Tensor:
        """The step in use, a scalar tensor; differentiable where it is learnt."""
        return to_power_of_two(self.scale.abs().clamp_min(1e-12), self.config.power_of_two)

    def observe(self, x: Tensor) -> None:
        """Take note of the range of x."""
        flat = x.detach().reshape(-1).float()
        if not bool(torch.isfinite(flat).all()):
            raise InputError("activations", "NaN or infinity", "finite numbers in every layer")
        self.lowest = torch.minimum(self.lowest, flat.min())
        self.highest = torch.maximum(self.highest, flat.max())
        if self.config.range != "minmax":
            self._samples.append(flat[:: max(1, flat.numel() // SAMPLES)].clone())

    def calibrate(self) -> None:
        """Set sign, step and zero point from what was observed, and begin to quantise.

        Raises:
            InputError: nothing was observed.
        """
        if not bool(torch.isfinite(self.lowest)):
            raise InputError("calibration", "no data", "at least one batch to have been observed")
        low, high, bits = float(self.lowest), float(self.highest), self.config.bits
        unsigned = low >= 0 if self.signed is None else not self.signed
        if self.config.fixed_step is not None:
            scale = self.config.fixed_step
        elif not unsigned and not self.config.symmetric and self.config.power_of_two == "off":
            low, high = min(low, 0.0), max(high, 0.0)
            scale = max(high - low, 1e-12) / ((1 << bits) - 1)
            self.zero_point = torch.tensor(min(max(round(-low / scale), 0), (1 << bits) - 1), device=self.lowest.device)
            unsigned = True
        else:
            top = (1 << bits) - 1 if unsigned else max((1 << (bits - 1)) - 1, 1)
            reach = max(high, -low if not unsigned else 0.0)
            # Of a value that is always 0 any step is right; 1 keeps the ratios to its neighbours' steps in range.
            scale = self._fit(max(reach, 1e-12) / top, unsigned) if reach > 0 else 1.0
            self.zero_point = torch.zeros_like(self.zero_point)
        self.unsigned = torch.tensor(unsigned, device=self.lowest.device)
        with torch.no_grad():
            self.scale.fill_(scale)
        self.ready = torch.ones_like(self.ready)
        self.observing = False
        self._samples.clear()

    def _fit(self, widest: float, unsigned: bool) -> float:
        """The step for symmetric codes: `widest` covers everything seen."""
        if self.config.range == "minmax":
            return widest
        samples = torch.cat(self._samples).double()
        bits = self.config.bits
        low, high = (0, (1 << bits) - 1) if unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        if self.config.range == "percentile":
            rank = max(1, math.ceil(samples.numel() * self.config.percentile / 100))
            return max(float(samples.abs().kthvalue(rank).values) / max(high, 1), 1e-12)
        return least_error_step(samples, widest, low, high, self.config.power_of_two)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """A calibrated state dict makes a calibrated quantiser."""
        super()._load_from_state_dict(*args, **kwargs)
        self.observing = not bool(self.ready)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Observe, or quantise."""
        if self.observing:
            self.observe(x)
            return x
        if not self.enabled:
            return x
        bits, unsigned = self.config.bits, bool(self.unsigned)
        low, high = (0, (1 << bits) - 1) if unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        if self.config.range == "learnt" and torch.is_grad_enabled():
            zero = int(self.zero_point)
            gain = 1.0 / math.sqrt(max(x.numel() / max(x.shape[0], 1), 1) * max(high, 1))
            learnt: Tensor = _LearntFakeQuantise.apply(x, self.step(), low - zero, high - zero, gain)
            return learnt
        quantised: Tensor = _FakeQuantise.apply(x, self.step().detach(), self.zero_point, low, high)
        return quantised

    def extra_repr(self) -> str:
        """Bits and range method."""
        return f"bits={self.config.bits}, range={self.config.range}"


def candidate_ratios(power_of_two: PowerOfTwo) -> Tensor:
    """Fractions of the widest step that a least-error search tries: 1 … 1/16, fine, or whole octaves."""
    count = 5 if power_of_two != "off" else 33
    return torch.logspace(0, -4, count, base=2, dtype=torch.float64)


def least_error_step(x: Tensor, widest: float, low: int, high: int, power_of_two: PowerOfTwo = "off") -> float:
    """The step between widest/16 and widest with the least squared quantisation error of the samples x."""
    best, best_error = widest, math.inf
    for candidate in widest * candidate_ratios(power_of_two):
        step = float(to_power_of_two(candidate, power_of_two))
        error = float(((x / step + 0.5).floor().clamp(low, high) * step - x).square().sum())
        if error < best_error:
            best, best_error = step, error
    return best


def _squared_errors(rows: Tensor, steps: Tensor, top: int) -> Tensor:
    """The squared error of every candidate step [candidates, rows] on every row; compiled where it can be."""
    if rows.device.type == "cpu" and rows.dtype == torch.float32:
        from crossloom.nn.least_error import squared_errors

        return torch.from_numpy(squared_errors(rows.contiguous().numpy(), steps.contiguous().numpy(), top))
    codes = [(rows / step[:, None]).add_(0.5).floor_().clamp_(-top, top).mul_(step[:, None]) for step in steps]
    return torch.stack([(code - rows).square_().sum(1) for code in codes])


class WeightQuantiser(nn.Module):
    """Fake quantisation of weights; channels are axis 0. The step follows the weights at every call.

    * 1 bit: sign(w)·α with α = mean |w| (Rastegari et al., XNOR-Net, 2016), gradient inside |w| ≤ 1.
    * ternary: −α, 0, α with threshold 0.7·mean |w| (Li et al. 2016, eq. 6).
    * otherwise symmetric codes −(2^(b−1)−1) … 2^(b−1)−1 (the code −2^(b−1) is not used, so that every encoding
      can hold them), or asymmetric ones with one zero point for the tensor.

    Args:
        config: how. `per_channel` gives one step for every index of axis 0.
        reach: the largest weight that a code holds at least, in multiples of the mean |w| of weights that are not 0,
            of the tensor or of the channel; larger ones are clipped. None: as `config.range` says. Without effect on
            ±1, ternary, asymmetric, learnt and fixed weights.
    """

    scale: Tensor

    def __init__(self, config: QuantiserConfig, reach: float | None = None) -> None:
        super().__init__()
        if reach is not None and not reach > 0:
            raise InputError("weights.reach", reach, "a positive multiple of the mean |w|, or none", "1.5")
        self.reach = reach
        if config.per_channel and not config.symmetric:
            raise InputError("weights.per_channel", True, "false with asymmetric weights (one zero point a layer)")
        if config.ternary and config.bits != 2:
            raise InputError("weights.bits", config.bits, "2 for ternary weights")
        self.config = config
        self.enabled = True
        if config.range == "learnt":
            self.scale = nn.Parameter(torch.zeros(()))

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.config.bits

    def _reduce(self, w: Tensor, how: Literal["amax", "mean"]) -> Tensor:
        """A statistic of w per tensor, or per channel with the shape kept for broadcasting."""
        flat = w.detach().reshape(w.shape[0] if self.config.per_channel else 1, -1)
        value = flat.abs().mean(1) if how == "mean" else torch.linalg.vector_norm(flat, math.inf, dim=1)
        return value.view(-1, *[1] * (w.dim() - 1)) if self.config.per_channel else value[0]

    def step(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(step, zero point) for the weights w; the step broadcasts against w."""
        zero = torch.zeros((), dtype=w.dtype, device=w.device)
        if self.config.fixed_step is not None:
            return torch.full((), self.config.fixed_step, dtype=w.dtype, device=w.device), zero
        if self.bits == 1 or self.config.ternary:
            mean = self._reduce(w, "mean")
            if self.config.ternary:
                kept = w.detach().abs() > 0.7 * mean
                dims = tuple(range(1, w.dim())) if self.config.per_channel else tuple(range(w.dim()))
                count = kept.sum(dims, keepdim=self.config.per_channel).clamp_min(1)
                mean = (w.detach().abs() * kept).sum(dims, keepdim=self.config.per_channel) / count
            return to_power_of_two(mean.clamp_min(1e-12), self.config.power_of_two), zero
        if not self.config.symmetric:
            low, high = w.detach().min().clamp_max(0), w.detach().max().clamp_min(0)
            step = ((high - low) / ((1 << self.bits) - 1)).clamp_min(1e-12)
            step = to_power_of_two(step, self.config.power_of_two)
            # Centred: rounding the step up leaves room, and the zero point shares it between both sides.
            zero = torch.floor((((1 << self.bits) - 1) - (high + low) / step) / 2 + 0.5)
            return step, zero.clamp(0, (1 << self.bits) - 1)
        top = (1 << (self.bits - 1)) - 1
        if self.config.range == "learnt":
            if float(self.scale.detach()) == 0.0:
                with torch.no_grad():
                    self.scale.fill_(
                        least_error_step(w.detach().double().reshape(-1), float(w.abs().max()) / top, -top, top)
                    )
            return to_power_of_two(self.scale.abs().clamp_min(1e-12), self.config.power_of_two), zero
        widest = self._reduce(w, "amax")
        if self.reach is not None:
            share = self._reduce((w.detach() != 0).to(w.dtype), "mean")
            widest = torch.minimum(widest, self.reach * self._reduce(w, "mean") / share.clamp_min(1e-12))
        widest = (widest / top).clamp_min(1e-12)
        if self.config.range == "minmax":
            return to_power_of_two(widest, self.config.power_of_two), zero
        return to_power_of_two(self._fit(w.detach(), widest, top), self.config.power_of_two), zero

    def _fit(self, w: Tensor, widest: Tensor, top: int) -> Tensor:
        """Percentile or least-error steps, per channel or for the tensor."""
        rows = w.reshape(w.shape[0], -1) if self.config.per_channel else w.reshape(1, -1)
        if self.config.range == "percentile":
            rank = max(1, math.ceil(rows.shape[1] * self.config.percentile / 100))
            found = rows.abs().kthvalue(rank, dim=1).values / top
        else:
            ratios = candidate_ratios(self.config.power_of_two).to(w)
            steps = torch.stack(
                [to_power_of_two(widest.reshape(-1) * ratio, self.config.power_of_two) for ratio in ratios]
            )
            found = widest.reshape(-1) * ratios[_squared_errors(rows, steps, top).argmin(0)]
        return found.clamp_min(1e-12).reshape(widest.shape)

    def forward(
        self, w: Float[Tensor, "outputs ..."], grid: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "outputs ..."]:
        """The weights on the grid, with straight-through gradients; `grid` is `step(w)` where it is known already."""
        if not self.enabled:
            return w
        step, zero = grid or self.step(w)
        if self.bits == 1:
            sign = torch.where(w >= 0, 1.0, -1.0).to(w.dtype)
            inside = w.clamp(-1, 1)
            return (sign * step - inside).detach() + inside
        if self.config.ternary:
            return (self._ternary(w) * step - w).detach() + w
        low, high = self._codes()
        if self.config.range == "learnt" and torch.is_grad_enabled():
            gain = 1.0 / math.sqrt(w.numel() * high)
            learnt: Tensor = _LearntFakeQuantise.apply(w, step, low, high, gain)
            return learnt
        quantised: Tensor = _FakeQuantise.apply(w, step.detach(), zero, low, high)
        return quantised

    def _codes(self) -> tuple[int, int]:
        top = (1 << (self.bits - 1)) - 1
        return (-top, top) if self.config.symmetric else (0, (1 << self.bits) - 1)

    def _ternary(self, w: Tensor) -> Tensor:
        return torch.sign(w) * (w.abs() > 0.7 * self._reduce(w, "mean"))

    def quantise(self, w: Float[Tensor, "outputs ..."]) -> Quantised:
        """The same grid as integers. With symmetric codes the zero point is 0; ±1 and ternary codes are −1, 0, 1."""
        w = w.detach()
        step, zero = self.step(w)
        step = step.detach()
        if self.bits == 1:
            codes = torch.where(w >= 0, 1.0, -1.0)
        elif self.config.ternary:
            codes = self._ternary(w)
        else:
            low, high = self._codes()
            codes = torch.div(w, step).add_(0.5).floor_().add_(zero).clamp_(low, high)
        return Quantised(codes.long(), step.double().reshape(-1), int(zero), self.bits)

    def extra_repr(self) -> str:
        """Bits, range method, granularity."""
        grain = "channel" if self.config.per_channel else "tensor"
        reach = "" if self.reach is None else f", reach={self.reach}"
        return f"bits={self.config.bits}, range={self.config.range}{reach}, per {grain}"
