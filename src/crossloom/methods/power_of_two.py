"""Power-of-two integer quantisation (CRIMP, step 1).

Inputs are symmetric, X = S_X·Q_X; weights asymmetric with one zero point a layer, W = S_W·(Q_W − Z_W); every step is a
power of two, so that

    Q_X′ = 2^(a1+a2−b1)·(Q_X ⊛ (Q_W − Z_W)) + 2^(a3−b1)·(Q_B − Z_B)

needs shifts only. The bias has S_B = S_X·S_W (a3 = a1 + a2) and Z_B = 0: it lies on the accumulator's own grid, the
finest there is, and costs one adder as any other would.

"Nearest" power of two: for weights the next one *up*, which never clips (a step rounded down clips one side unless the
zero point is centred; ours is centred as well); for inputs and values between layers the octave with the least squared
error on the calibration data, which may clip what is rare.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from crossloom.errors import InputError
from crossloom.methods.protocol import Method
from crossloom.nn import Quantiser, QuantiserConfig, WeightQuantiser, woven_layers
from crossloom.nn.quantisers import PowerOfTwo, RangeMethod


class PowerOfTwoIntegers(Method):
    """Give every quantiser of a converted network a power-of-two step. The network is calibrated afterwards.

    Args:
        bits: of activations, and of weights.
        weight_bits: of weights, where they have others.
        symmetric_weights: no zero point, for weight codes without offset (differential).
        per_channel: a step (a shift) for every output channel in place of one for the layer, where the network was
            converted so; symmetric weights only.
        weight_reach: the largest weight that a code holds, in multiples of the mean |w|, before the step becomes a
            power of two; larger ones are clipped. None: the largest there is. Where cells may be stuck, 1.5 keeps more
            than the full range does: an error of a whole digit weighs less beside weights that fill the range.
        weight_step: how a weight step becomes a power of two: `up` or `nearest` (in the logarithm).
        activations: how the range of activations is found (`mse`, `minmax` or `percentile`).
        unsigned: codes between layers have no sign, and what lies below zero is clipped: without effect behind a
            ReLU; elsewhere it puts one in, and spares the arrays the sign bit, which reads with the largest weight.

    Raises:
        InputError: bits outside 2 … 16, steps that are not rounded to powers of two, or asymmetric weights per
            channel.
    """

    name: ClassVar[str] = "power-of-two"
    requantises: ClassVar[bool] = True

    def __init__(
        self, bits: int = 8, symmetric_weights: bool = False, weight_step: PowerOfTwo = "up",
        activations: RangeMethod = "mse", unsigned: bool = False, weight_bits: int | None = None,
        per_channel: bool = False, weight_reach: float | None = None,
    ) -> None:  # fmt: skip
        for field, width in (("bits", bits), ("weight_bits", bits if weight_bits is None else weight_bits)):
            if not 2 <= width <= 16:
                raise InputError(f"power-of-two.{field}", width, "2 to 16")
        if per_channel and not symmetric_weights:
            raise InputError("power-of-two.per_channel", True, "symmetric weights: a zero point belongs to a layer")
        if weight_step not in ("up", "nearest"):
            raise InputError.choice("power-of-two.weight_step", weight_step, ("up", "nearest"))
        self.weights = QuantiserConfig(
            bits=weight_bits or bits, symmetric=symmetric_weights, power_of_two=weight_step, per_channel=per_channel
        )
        self.activations = QuantiserConfig(bits=bits, range=activations, power_of_two="nearest")
        self.unsigned = unsigned
        if weight_reach is not None and not (weight_reach > 0 and symmetric_weights):
            expected = "none, or a positive multiple of the mean |w| with symmetric weights"
            raise InputError("power-of-two.weight_reach", weight_reach, expected, "1.5")
        self.reach = weight_reach

    def prepare(self, network: nn.Module) -> None:
        """New quantisers in place of those there are; those of activations observe until `calibrate` is called."""
        for layer in woven_layers(network).values():
            per_channel = self.weights.per_channel and layer.weight_quantiser.config.per_channel
            config = self.weights.model_copy(update={"per_channel": per_channel})
            layer.weight_quantiser = WeightQuantiser(config, self.reach)
        found = {name: m for name, m in network.named_modules() if isinstance(m, Quantiser)}
        last = max((m.config.bits for m in found.values()), default=0)
        fresh: dict[Quantiser, Quantiser] = {}
        for position, (name, old) in enumerate(found.items()):
            config = self.activations
            if old.config.bits == last > self.activations.bits:  # the network's answer keeps its width
                config = config.model_copy(update={"bits": last})
            new = Quantiser(config, False if self.unsigned and position else None)
            fresh[old] = new.to(old.lowest.device)
            parent, _, leaf = name.rpartition(".")
            network.get_submodule(parent).register_module(leaf, new)
        for layer in woven_layers(network).values():
            source = layer.__dict__.get("input_quantiser")
            if source is not None:
                object.__setattr__(layer, "input_quantiser", fresh[source])
