"""Mixed precision: the widths of weights and of the codes that drive the rows, layer by layer.

Only widths change. How ranges are found, per-channel steps, powers of two and zero points stay as the quantisers have
them; a fixed step is scaled so that the range stays. Layers of one network may differ: every layer's arrays are cut for
its own width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from crossloom.errors import InputError
from crossloom.methods.cores import pruned
from crossloom.methods.level_quantiser import LevelQuantiser
from crossloom.methods.patterns import by_pattern, record
from crossloom.methods.protocol import Method
from crossloom.nn import Conv2d, Linear, Quantiser, QuantiserConfig, WeightQuantiser, woven_layers


class Widths(BaseModel):
    """The widths of one layer; none leaves what there is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    weights: int | None = Field(default=None, ge=1, le=16)
    """Bits of the core's weights; 1 is ±1."""

    activations: int | None = Field(default=None, ge=1, le=16)
    """Bits of the codes that the layer reads. A value that several layers read takes the widest that one asks for."""


class LayerBits(Method):
    """Give layers widths of their own. To follow what sets the quantisers; the network is calibrated afterwards.

    Args:
        layers: layer-name pattern → widths (or their fields); the first pattern that matches a layer decides.

    Raises:
        InputError: no patterns, an unknown field, or bits outside 1 … 16.
    """

    name: ClassVar[str] = "bits"

    def __init__(self, layers: Mapping[str, Widths | Mapping[str, Any]]) -> None:
        if not layers:
            raise InputError("bits.layers", {}, "a pattern of layer names and its widths, at least one", "{'*': …}")
        self.layers = {pattern: record(Widths, f"bits.{pattern}", given) for pattern, given in layers.items()}

    def widths(self, network: nn.Module) -> dict[str, Widths]:
        """The widths of every layer that a pattern matches.

        Raises:
            InputError: a pattern that is no layer's name.
        """
        return by_pattern("bits.layers", self.layers, woven_layers(network))

    def prepare(self, network: nn.Module) -> None:
        """Change the widths; nothing is changed if a layer refuses.

        Raises:
            InputError: ±1 for a pruned core, or a core on the levels of a constraint set, which have their own width.
        """
        found, layers = self.widths(network), woven_layers(network)
        for name, widths in found.items():
            if widths.weights is not None and isinstance(layers[name].weight_quantiser, LevelQuantiser):
                raise InputError(f"bits.{name}.weights", widths.weights, "the width in the level set that ADMM has")
            if widths.weights == 1 and pruned(layers[name]):
                raise InputError(f"bits.{name}.weights", 1, "2 bits or more: ±1 has no zero for pruned weights", "2")
        wide: dict[Quantiser, int] = {}
        for name, widths in found.items():
            layer = layers[name]
            if widths.weights is not None:
                old = layer.weight_quantiser
                layer.weight_quantiser = WeightQuantiser(_resized(old.config, widths.weights), old.reach)
                layer.weight_quantiser.to(layer.weight.device)
            source = _source(layer)
            if widths.activations is not None:
                wide[source] = max(widths.activations, wide.get(source, 0))
        for source, bits in wide.items():
            source.configure(_resized(source.config, bits), source.signed, source.lowest.device)

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """The widths of every layer: {"weights": {layer: bits}, "activations": {layer: bits}}."""
        layers = woven_layers(network)
        return {
            "weights": {name: layer.weight_quantiser.bits for name, layer in layers.items()},
            "activations": {name: _source(layer).config.bits for name, layer in layers.items()},
        }


def _source(layer: Conv2d | Linear) -> Quantiser:
    return cast(Quantiser, layer.__dict__["input_quantiser"])


def _resized(config: QuantiserConfig, bits: int) -> QuantiserConfig:
    """A configuration with another width and the same range."""
    changes: dict[str, Any] = {"bits": bits, "ternary": config.ternary and bits == 2}
    if config.fixed_step is not None:
        changes["fixed_step"] = config.fixed_step * 2.0 ** (config.bits - bits)
    if bits == 1:
        changes["symmetric"] = True
    return config.model_copy(update=changes)
