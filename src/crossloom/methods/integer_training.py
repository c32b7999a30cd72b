"""Integer training: a forward pass of integers only, after Weinstock et al., ORSS 2023 (IRR).

Weights are b-bit integers times one power of two for the whole network's layers, ±1 for one bit; activations are
clip(⌊z/2^s + ½⌋, 0, 2^b − 1) of a layer's accumulator z with one shift s a layer; there is no bias and no batch norm;
the last layer's raw accumulators are the answer, and the loss acts on them. The latent weights live in [−1, 1] and get
straight-through gradients (Hubara et al., Quantized Neural Networks, JMLR 18, 2018).

The paper's abstract gives the bits (1-bit weights, 2-bit activations) and the accuracy. Shifts, loss and optimiser are
this file's own choices, each an option.
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
from crossloom.methods.protocol import Method
from crossloom.nn import Quantiser, QuantiserConfig, WeightQuantiser, woven_layers

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

    Raises:
        InputError: bits outside 1…8, an unknown loss or shift rule, a temperature or margin that is not positive.
    """

    name: ClassVar[str] = "integer-training"

    def __init__(
        self,
        weights: int = 1,
        activations: int = 2,
        inputs: int | None = None,
        shifts: Shifts = "fitted",
        loss: LossName = "cross-entropy",
        temperature: float = 8.0,
        margin: float = 16.0,
    ) -> None:
        inputs = activations if inputs is None else inputs
        for field, bits in (("weights", weights), ("activations", activations), ("inputs", inputs)):
            if not 1 <= bits <= 8:
                raise InputError(f"{self.name}.{field}", bits, "1 to 8 bits", str(min(max(bits, 1), 8)))
        if loss not in get_args(LossName):
            raise InputError.choice(f"{self.name}.loss", loss, get_args(LossName))
        if isinstance(shifts, str) and shifts not in ("fitted", "learnt"):
            raise InputError.choice(f"{self.name}.shifts", shifts, ("fitted", "learnt", "{layer: shift}"))
        for field, value in (("temperature", temperature), ("margin", margin)):
            if not value > 0:
                raise InputError(f"{self.name}.{field}", value, "a positive number")
        self.weights, self.activations, self.inputs = weights, activations, inputs
        self.shifts, self.kind, self.temperature, self.margin = shifts, loss, temperature, margin
        self.network: nn.Module | None = None

    @property
    def weight_config(self) -> QuantiserConfig:
        """Fixed steps: ±1, or 2^(1−b) for codes in [−(2^(b−1) − 1), 2^(b−1) − 1]."""
        return QuantiserConfig(bits=self.weights, range="fixed", fixed_step=2.0 ** (1 - self.weights))

    def prepare(self, network: nn.Module) -> None:
        """Drop biases and batch norms, fix the weights' steps, and set every activation quantiser.

        Raises:
            InputError: a layer with a quantiser of its own kind that cannot be integer (named), or a shift given for
                a layer that is not there.
        """
        layers, activations = woven_layers(network), activation_quantisers(network)
        given = {} if isinstance(self.shifts, str) else dict(self.shifts)
        makers = {layer_of(path): name for name in layers for path in activations if layer_of(path) == flat(name)}
        for name in given:
            if name not in makers.values():
                raise InputError.choice(f"{self.name}.shifts", name, list(makers.values()))
        for layer in layers.values():
            layer.bias, layer.norm = None, None
            layer.weight_quantiser = WeightQuantiser(self.weight_config).to(layer.weight.device)
            with torch.no_grad():  # the same signs and order of sizes, spread over [−1, 1]
                layer.weight.div_(3 * layer.weight.std().clamp_min(1e-12)).clamp_(-1, 1)
        for path, quantiser in activations.items():
            config = QuantiserConfig(
                bits=self.activations, range="learnt" if self.shifts == "learnt" else "mse", power_of_two="nearest"
            )
            maker = makers.get(layer_of(path))
            if layer_of(path) == "input_codes":
                config = QuantiserConfig(bits=self.inputs, range="fixed", fixed_step=1.0)
            elif maker in given:
                before: Quantiser = layers[maker].__dict__["input_quantiser"]
                if before.config.fixed_step is None:
                    raise InputError(f"{self.name}.shifts", given, f"shifts of all layers before {maker} too")
                step = before.config.fixed_step * 2.0 ** (1 - self.weights + given[maker])
                config = QuantiserConfig(bits=self.activations, range="fixed", fixed_step=step)
            quantiser.configure(config, signed=False, device=next(network.parameters()).device)
        self.network = network

    def callbacks(self) -> Sequence[Any]:
        """The clip of the latent weights to [−1, 1] after every step."""
        from crossloom.methods.clipping import ClipLatents

        return (ClipLatents(1.0),)

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
        """The real value of one unit of the last layer's accumulators.

        Raises:
            InputError: `prepare` was not called.
        """
        if self.network is None:
            raise InputError(self.name, "not prepared", "prepare(network) before its loss is used")
        last = list(woven_layers(self.network).values())[-1]
        source: Quantiser = last.__dict__["input_quantiser"]
        return float(source.step().detach()) * 2.0 ** (1 - self.weights)

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """The shift of every activation: {"shifts": {layer: s}, "weight_bits": …, "activation_bits": …}."""
        found = {}
        after = {layer_of(path): quantiser for path, quantiser in activation_quantisers(network).items()}
        for name, layer in woven_layers(network).items():
            if flat(name) in after:
                unit = float(layer.__dict__["input_quantiser"].step().detach()) * 2.0 ** (1 - self.weights)
                found[name] = round(math.log2(float(after[flat(name)].step().detach()) / unit))
        return {"shifts": found, "weight_bits": self.weights, "activation_bits": self.activations}


def activation_quantisers(network: nn.Module) -> dict[str, Quantiser]:
    """The quantisers of values between layers, by path, in the order of the graph."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Quantiser)}


def flat(name: str) -> str:
    """A layer's name as its quantiser has it."""
    return name.replace(".", "_")


def layer_of(path: str) -> str:
    """What makes the value of a quantiser, by the quantiser's path."""
    return path.removeprefix("quantisers.")
