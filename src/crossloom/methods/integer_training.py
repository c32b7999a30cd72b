"""Integer training: a forward pass of integers only, after Weinstock et al., ORSS 2023 (IRR).

Weights are b-bit integers times one power of two for the whole network's layers, ±1 for one bit; activations are
clip(⌊z/2^s + ½⌋, 0, 2^b − 1) of a layer's accumulator z with one shift s a layer; there is no bias and no batch norm;
the last layer's raw accumulators are the answer, and the loss acts on them. The latent weights live in [−1, 1] and get
straight-through gradients (Hubara et al., Quantized Neural Networks, JMLR 18, 2018).

The paper's abstract gives the bits (1-bit weights, 2-bit activations) and the accuracy. Shifts, loss and optimiser are
this file's own choices, each an option.

Batch norms are folded into the latent weights before they go, so that the sizes of the channels stay what they were.
Where two values are added (residual networks), what the addition reads keeps its sign; all steps are powers of two, so
the addition is one of shifted integers. A trained network can keep what it computes (`pretrained`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.methods.cores import clip, cores, pruned
from crossloom.methods.graph_values import added, answer
from crossloom.methods.protocol import Method
from crossloom.nn import Conv2d, Linear, Quantiser, QuantiserConfig, WeightQuantiser, woven_layers
from crossloom.nn.quantisers import RangeMethod, least_error_step, to_power_of_two

LossName = Literal["cross-entropy", "margin", "squared"]
Shifts = Literal["fitted", "learnt"] | Mapping[str, int]

INPUT_NORMALISATION = 31.5 / 255, 64 / 255
"""(mean, deviation) that makes a pixel p the 2-bit code ⌊p/64⌋: half up, ⌊(p/255 − mean)/deviation + ½⌋."""


class IntegerTraining(Method):
    """Make a converted network integer-only and train it as one.

    Call `prepare` after `crossloom.convert` and before `calibrate`; train with `loss()` and `callbacks()`.

    Args:
        weights: bits of a weight, 1 to 8; 1 is ±1.
        activations: bits of an activation, 1 to 8, unsigned.
        inputs: bits of the network's input; as `activations` if None.
        shifts: `fitted` to the least error on the calibration images, `learnt` in training from there (Esser et al.,
            LSQ, ICLR 2020, kept to powers of two), or given as {layer: s}; layers not named are fitted.
        loss: on the raw integers z: `cross-entropy` of z/temperature; `margin`, the mean over the wrong classes j of
            max(0, margin − (z_y − z_j))/temperature; `squared`, the mean of ((z − t)/temperature)² with t = +margin
            for the right class and −margin for the others.
        temperature: T above.
        margin: above, in units of z.
        residuals: bits of values that only additions read, signed where the data are; no crossbar sees them.
        input_step: `one`: the images are the codes, unsigned; `fitted`: a power of two and a sign from the calibration
            images, for networks that want normalised ones.
        pretrained: keep what a trained network computes, as far as integers can: every layer's step is the power of
            two of least error in place of weights spread over [−1, 1], and the shifts of batch norms and biases stay,
            as integers on the accumulators' grid. Ours; the paper trains from nothing and has neither.

    Raises:
        InputError: bits outside 1…8, an unknown loss or shift rule, a temperature or margin that is not positive.
    """

    name: ClassVar[str] = "integer-training"
    requantises: ClassVar[bool] = True
    lasting: ClassVar[bool] = True

    def __init__(
        self,
        weights: int = 1,
        activations: int = 2,
        inputs: int | None = None,
        shifts: Shifts = "fitted",
        loss: LossName = "cross-entropy",
        temperature: float = 8.0,
        margin: float = 16.0,
        residuals: int = 8,
        input_step: Literal["one", "fitted"] = "one",
        pretrained: bool = False,
    ) -> None:
        inputs = activations if inputs is None else inputs
        widths = {"weights": weights, "activations": activations, "inputs": inputs, "residuals": residuals}
        for field, bits in widths.items():
            if not 1 <= bits <= 8:
                raise InputError(f"{self.name}.{field}", bits, "1 to 8 bits", str(min(max(bits, 1), 8)))
        if loss not in get_args(LossName):
            raise InputError.choice(f"{self.name}.loss", loss, get_args(LossName))
        if isinstance(shifts, str) and shifts not in ("fitted", "learnt"):
            raise InputError.choice(f"{self.name}.shifts", shifts, ("fitted", "learnt", "{layer: shift}"))
        if input_step not in ("one", "fitted"):
            raise InputError.choice(f"{self.name}.input_step", input_step, ("one", "fitted"))
        for field, value in (("temperature", temperature), ("margin", margin)):
            if not value > 0:
                raise InputError(f"{self.name}.{field}", value, "a positive number")
        self.weights, self.activations, self.inputs = weights, activations, inputs
        self.shifts, self.kind, self.temperature, self.margin = shifts, loss, temperature, margin
        self.residuals, self.input_step, self.pretrained = residuals, input_step, pretrained
        self.network: nn.Module | None = None

    @property
    def weight_config(self) -> QuantiserConfig:
        """Fixed steps: ±1, or 2^(1−b) for codes in [−(2^(b−1) − 1), 2^(b−1) − 1]."""
        return QuantiserConfig(bits=self.weights, range="fixed", fixed_step=2.0 ** (1 - self.weights))

    def prepare(self, network: nn.Module) -> None:
        """Fold batch norms, drop biases, fix the weights' steps, and set every activation quantiser.

        Raises:
            InputError: ±1 weights on a pruned network; a shift given for a layer that is not there, or behind one
                without a given shift.
        """
        layers, activations = woven_layers(network), activation_quantisers(network)
        given = {} if isinstance(self.shifts, str) else dict(self.shifts)
        makers = {layer_of(path): name for name in layers for path in activations if layer_of(path) == flat(name)}
        for name in given:
            if name not in makers.values():
                raise InputError.choice(f"{self.name}.shifts", name, list(makers.values()))
        for name, twins in cores(network).items():
            if self.weights == 1 and pruned(twins[0]):
                expected = f"2 bits or more: {name!r} has pruned weights, and ±1 has no zero to keep them at"
                raise InputError(f"{self.name}.weights", 1, expected, "2")
        for twins in cores(network).values():
            self._integers(twins)
        added_to, result = added(network), answer(network)
        for path, quantiser in activations.items():
            maker, bits = makers.get(layer_of(path)), self.activations
            signed: bool | None = False
            if quantiser is result:  # what is no layer's accumulator keeps its width and its sign
                signed, bits = None, quantiser.config.bits
            elif path in added_to and not (bits == 1 and not added_to[path]):
                signed, bits = None, self.residuals if added_to[path] else bits
            method: RangeMethod = "learnt" if self.shifts == "learnt" else "mse"
            config = QuantiserConfig(bits=bits, range=method, power_of_two="nearest")
            if layer_of(path) == "input_codes":
                signed, config = False, QuantiserConfig(bits=self.inputs, range="fixed", fixed_step=1.0)
                if self.input_step == "fitted":
                    signed, config = None, QuantiserConfig(bits=self.inputs, range="mse", power_of_two="nearest")
            elif maker in given:
                layer = layers[maker]
                before: Quantiser = layer.__dict__["input_quantiser"]
                if before.config.fixed_step is None:
                    raise InputError(f"{self.name}.shifts", given, f"shifts of all layers before {maker} too")
                step = before.config.fixed_step * weight_step(layer) * 2.0 ** given[maker]
                config = config.model_copy(update={"range": "fixed", "fixed_step": step, "power_of_two": "off"})
            quantiser.configure(config, signed=signed, device=next(network.parameters()).device)
        self.network = network

    @torch.no_grad()
    def _integers(self, layers: Sequence[Conv2d | Linear]) -> None:
        """Make integers of the layers that share a weight: their norms folded, their step fixed."""
        first = layers[0]
        biases = [layer.folded()[1] for layer in layers]
        scales = [scale for layer in layers if (scale := layer.norm_scale()) is not None]
        if scales:  # layers that share weights but not norms: the mean of the norms' scales
            first.weight.mul_(torch.stack(scales).mean(0).view(-1, *[1] * (first.weight.dim() - 1)))
        core = first.latent().detach()
        live = core[core != 0]
        if self.pretrained:
            config = self.weight_config.model_copy(update={"fixed_step": self._least_error(live)})
        else:  # the same signs and order of sizes, spread over [−1, 1]
            config = self.weight_config
            spread = live.std() if live.numel() > 1 else live.abs().sum()
            first.weight.div_(3 * spread.clamp_min(1e-12))
        for layer, bias in zip(layers, biases, strict=True):
            layer.norm = None
            layer.bias = nn.Parameter(bias.clone()) if self.pretrained and bias is not None else None
            layer.weight_quantiser = WeightQuantiser(config).to(first.weight.device)
        clip(first)

    def _least_error(self, weights: Float[Tensor, " live"]) -> float:
        """The power-of-two step of least squared error for the weights that are not 0."""
        if not weights.numel():
            return self.weight_config.fixed_step or 1.0
        if self.weights == 1:
            return float(to_power_of_two(weights.abs().mean().double(), "nearest"))
        top = (1 << (self.weights - 1)) - 1
        return least_error_step(weights.double(), float(weights.abs().max()) / top, -top, top, "nearest")

    def callbacks(self) -> Sequence[Any]:
        """The clip of the latent weights to what their codes can hold after every step, [−1, 1] if spread so."""
        from crossloom.methods.clipping import ClipLatents

        return (ClipLatents(),)

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """(logits, labels) → scalar, on the raw integers z = logits / step of the last accumulator."""

        def of_integers(logits: Float[Tensor, "B classes"], labels: Int64[Tensor, " B"]) -> Tensor:
            z = logits / self.accumulator_step()
            if self.kind == "cross-entropy":
                return F.cross_entropy(z / self.temperature, labels)
            right = F.one_hot(labels, z.shape[1]).bool()
            if self.kind == "margin":
                short = (self.margin - (z.gather(1, labels[:, None]) - z)).clamp_min(0) / self.temperature
                return short[~right].mean()
            target = torch.where(right, self.margin, -self.margin)
            return ((z - target) / self.temperature).square().mean()

        return of_integers

    def accumulator_step(self) -> float:
        """The real value of one unit of the answer: of the last layer's accumulators, or of the codes that answer.

        Raises:
            InputError: `prepare` was not called.
        """
        if self.network is None:
            raise InputError(self.name, "not prepared", "prepare(network) before its loss is used")
        last = answer(self.network)
        if isinstance(last, Quantiser):
            return float(last.step().detach())
        assert isinstance(last, (Conv2d, Linear))
        source: Quantiser = last.__dict__["input_quantiser"]
        return float(source.step().detach()) * weight_step(last)

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """The shift of every activation: {"shifts": {layer: s}, "weight_bits": …, "activation_bits": …}."""
        found = {}
        after = {layer_of(path): quantiser for path, quantiser in activation_quantisers(network).items()}
        for name, layer in woven_layers(network).items():
            if flat(name) in after:
                unit = float(layer.__dict__["input_quantiser"].step().detach()) * weight_step(layer)
                found[name] = round(math.log2(float(after[flat(name)].step().detach()) / unit))
        return {"shifts": found, "weight_bits": self.weights, "activation_bits": self.activations}


def weight_step(layer: Conv2d | Linear) -> float:
    """The real value of one step of a layer's weights."""
    return float(layer.weight_quantiser.step(layer.folded()[0])[0].detach())


def activation_quantisers(network: nn.Module) -> dict[str, Quantiser]:
    """The quantisers of values between layers, by path, in the order of the graph."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Quantiser)}


def flat(name: str) -> str:
    """A layer's name as its quantiser has it."""
    return name.replace(".", "_")


def layer_of(path: str) -> str:
    """What makes the value of a quantiser, by the quantiser's path."""
    return path.removeprefix("quantisers.")
