"""What an engine is, and how one is found.

An engine turns one woven layer into a kernel, a function from input codes to accumulators; Q and all digital nodes
are the executor's, the same on every rung. A package adds an engine by an entry point in the group
`crossloom.engines`; this package's own are registered the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Protocol

import torch

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping
from crossloom.simulate.adc import Adc, array_adc
from crossloom.simulate.analog_chip import AnalogChip, Clock
from crossloom.simulate.calibration import Calibration
from crossloom.weave import WovenLayer

GROUP = "crossloom.engines"

Kernel = Callable[[torch.Tensor], torch.Tensor]
"""Codes (B, C, H, W) or (B, …, K) on the settings' device → integer accumulators (B, G·N', H', W') or (B, …, G·N')."""


@dataclass(frozen=True)
class Settings:
    """What an engine is told besides the layer.

    Attributes:
        device: where codes live.
        memory_budget: bytes that a kernel may use for its working space.
        shortcut: if false, no slice, digit or converter is left out even where it cannot change the result.
        calibration: converters of layers under the `calibrated` range policy.
        analog: the chip to simulate on the analog rung.
        clock: the number of the next image, which read noise depends on.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory_budget: int = 512 << 20
    shortcut: bool = True
    calibration: Calibration | None = None
    analog: AnalogChip | None = None
    clock: Clock = field(default_factory=Clock)

    def converter(self, mapping: LayerMapping) -> Adc:
        """The converter of a layer: calibrated if the array says so, else from the array's own policy.

        Raises:
            InputError: the policy is `calibrated` and no record holds the layer.
        """
        if mapping.array.adc_range != "calibrated":
            return array_adc(mapping.array)
        if self.calibration is None:
            raise InputError("calibration", None, "a calibration record, since array.adc_range is calibrated")
        return self.calibration.of(mapping.layer.name)


class Engine(Protocol):
    """A way to compute accumulators.

    Attributes:
        rung: the rung of the ladder whose meaning it has (DESIGN §2).
    """

    rung: str

    def prepare(self, target: LayerMapping | WovenLayer, settings: Settings) -> Kernel:
        """Everything that does not depend on data, done once; then the kernel."""


def mapped(target: LayerMapping | WovenLayer, engine: str) -> LayerMapping:
    """The target as a mapped layer.

    Raises:
        InputError: it is a bare woven layer.
    """
    if isinstance(target, WovenLayer):
        raise InputError(
            "engine", engine, f"a mapping for layer {target.name!r}: this rung needs arrays, not a program"
        )
    return target


def woven(target: LayerMapping | WovenLayer) -> WovenLayer:
    """The woven layer of a target, mapped or not."""
    return target if isinstance(target, WovenLayer) else target.layer


def _own() -> dict[str, Callable[[], Engine]]:
    from crossloom.simulate.analog import AnalogEngine
    from crossloom.simulate.analog_reference import AnalogReferenceEngine
    from crossloom.simulate.analog_tensor import AnalogTensorEngine
    from crossloom.simulate.crossbar import CrossbarEngine
    from crossloom.simulate.integer import IntegerEngine
    from crossloom.simulate.parasitic_engine import ParasiticEngine
    from crossloom.simulate.reference import ReferenceEngine
    from crossloom.simulate.tensor import TensorEngine

    found: dict[str, Callable[[], Engine]] = {
        "integer": IntegerEngine,
        "crossbar": CrossbarEngine,
        "reference": ReferenceEngine,
        "tensor": TensorEngine,
        "analog": AnalogEngine,
        "analog-tensor": AnalogTensorEngine,
        "analog-reference": AnalogReferenceEngine,
        "parasitic": ParasiticEngine,
    }
    return found


@cache
def engines() -> dict[str, Callable[[], Engine]]:
    """Every engine by name: this package's and those of installed packages."""
    found = _own()
    for point in entry_points(group=GROUP):
        if point.name not in found:
            found[point.name] = point.load()
    return found


def engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        InputError: no such engine.
    """
    if name not in engines():
        raise InputError.choice("engine", name, engines())
    return engines()[name]()
