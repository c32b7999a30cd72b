"""A network compiled for a chip: the object that is simulated, costed, saved and exported.

chip = crossloom.compile(model, hardware="crimp-isaac", calibration=loader)
chip.accuracy(test_loader, rung="crossbar")
print(chip.cost().table())
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, fx, nn

from crossloom.errors import InputError
from crossloom.frontend import QuantisationConfig, calibrate, convert, lower, quantisers
from crossloom.hardware import Chip, load, loads
from crossloom.mapping import Mapping as ChipMapping
from crossloom.mapping import map_program
from crossloom.nn import QuantiserConfig
from crossloom.weave import Program, load_program, save_program

if TYPE_CHECKING:
    from crossloom.cost import CostReport
    from crossloom.simulate import Calibration, Conditions, Executor

Rung = Literal["float", "integer", "crossbar", "analog", "parasitic"]
RUNGS: tuple[Rung, ...] = ("float", "integer", "crossbar")
"""The rungs on which every chip of a design computes the same."""
CHIP_RUNGS: tuple[Rung, ...] = ("analog", "parasitic")
"""The rungs on which each chip has its own cells and converters, drawn from a seed."""
Batches = Iterable[Any]


@dataclass(frozen=True)
class Accuracy:
    """A measured accuracy.

    Attributes:
        rung: of the fidelity ladder.
        value: fraction of images whose largest output is the right class; the mean over the chips.
        images: how many were tried.
        chips: the value of every chip, on the rungs where chips differ.
    """

    rung: Rung
    value: float
    images: int
    chips: tuple[float, ...] = ()

    @property
    def spread(self) -> float:
        """Standard deviation from chip to chip (unbiased); 0 for one chip."""
        return statistics.stdev(self.chips) if len(self.chips) > 1 else 0.0

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        over = f" ± {100 * self.spread:.2f} over {len(self.chips)} chips" if self.chips else ""
        return f"{100 * self.value:.2f} %{over} ({self.rung}, {self.images} images)"


def quantisation_for(chip: Chip, **changes: Any) -> QuantisationConfig:
    """The quantisation that a chip asks for: its bits, and powers of two where it has no multipliers.

    Steps of powers of two are rounded up for weights, so that no weight is clipped, and to the least error for
    activations.

    Args:
        chip: the hardware.
        changes: fields of `QuantisationConfig` to set otherwise.
    """
    two = chip.precision.power_of_two
    defaults: dict[str, Any] = {
        "weights": QuantiserConfig(
            bits=chip.precision.weights,
            per_channel=True,
            range="mse" if two else "minmax",
            power_of_two="up" if two else "off",
        ),
        "activations": QuantiserConfig(
            bits=chip.precision.inputs, range="mse", power_of_two="nearest" if two else "off"
        ),
        "input": QuantiserConfig(bits=chip.precision.inputs, power_of_two="up" if two else "off"),
    }
    return QuantisationConfig(**{**defaults, **changes})


class CompiledChip:
    """An integer program placed on a chip.

    Args:
        mapping: the placed program.
        module: the network it came from, for the `float` rung; None after loading from disk.
        converters: the layers' converter ranges, for chips whose range policy is `calibrated`.
    """

    def __init__(
        self, mapping: ChipMapping, module: nn.Module | None = None, converters: Calibration | None = None
    ) -> None:
        self.mapping = mapping
        self.module = module
        self.converters = converters
        self._executors: dict[tuple[str, str], Executor] = {}

    @property
    def program(self) -> Program:
        """The integer program."""
        return self.mapping.program

    @property
    def hardware(self) -> Chip:
        """The chip's description."""
        return self.mapping.chip

    @property
    def crossbars(self) -> int:
        """Arrays allocated."""
        return self.mapping.crossbars

    @property
    def hash(self) -> str:
        """SHA-256, hex, of the program, the chip and the duplication: everything its numbers come from."""
        digest = hashlib.sha256(self.hardware.hash.encode())
        for node in self.program.nodes:
            digest.update(f"{type(node).__name__} {node.name} {node.inputs} {node.shape} {node.format}".encode())
        for name, layer in self.mapping.layers.items():
            digest.update(f"{name} {layer.copies}".encode())
            output = layer.layer.output
            for array in (layer.layer.core, output.bias, output.rescale.multiplier, output.rescale.shift):
                digest.update(array.tobytes())
            for factor in layer.layer.transform.factors:
                for array in (factor.matrix.data, factor.matrix.indices, factor.matrix.indptr, factor.shift):
                    digest.update(array.tobytes())
        if self.converters is not None:
            digest.update(json.dumps(self.converters.to_dict(), sort_keys=True).encode())
        return digest.hexdigest()

    def executor(
        self, rung: Rung = "crossbar", device: str = "cpu", *, seed: int = 0, chip: int = 0,
        conditions: Conditions | None = None,
    ) -> Executor:  # fmt: skip
        """The engine of a rung. Those of the exact rungs are prepared once and kept.

        Args:
            rung: `integer`, `crossbar`, `analog` or `parasitic`.
            device: where to compute.
            seed: of the batch of chips, on the rungs where chips differ.
            chip: which chip of the batch.
            conditions: time after programming, reference, read noise, … (`crossloom.simulate.Conditions`).
        """
        from crossloom.simulate import Executor

        if rung in CHIP_RUNGS:
            return Executor(
                self.mapping, rung=rung, device=device, calibration=self.converters, seed=seed, chip_index=chip,
                conditions=conditions,
            )  # fmt: skip
        if rung not in RUNGS or rung == "float":
            raise InputError.choice("rung", rung, (*RUNGS[1:], *CHIP_RUNGS))
        key = (rung, device)
        if key not in self._executors:
            self._executors[key] = Executor(self.mapping, rung=rung, device=device, calibration=self.converters)
        return self._executors[key]

    def logits(self, x: Tensor, rung: Rung = "crossbar", device: str = "cpu", **chip: Any) -> Tensor:
        """Real outputs (B, classes) for real inputs (B, …).

        Args:
            x: the inputs.
            rung: of the ladder.
            device: where to compute.
            chip: `seed`, `chip` and `conditions`, as for `executor`.

        Raises:
            InputError: the `float` rung of a chip loaded from disk, which has no float network any more.
        """
        if rung == "float":
            if self.module is None:
                raise InputError("rung", rung, "another rung: a chip loaded from disk holds no float network")
            self.module.eval()
            with torch.no_grad():
                result: Tensor = self.module(x)
            return result
        return self.executor(rung, device, **chip).logits(x)

    def accuracy(
        self, batches: Batches, rung: Rung = "crossbar", limit: int | None = None, device: str = "cpu", *,
        chips: int = 1, seed: int = 0, conditions: Conditions | None = None,
        tick: Callable[[int], None] = lambda done: None,
    ) -> Accuracy:  # fmt: skip
        """Top-1 accuracy over (input, target) batches.

        Args:
            batches: a data loader, or any iterable of (input, target).
            rung: `float` (as trained), `integer` (a perfect chip), `crossbar` (slices, digits and ADC), `analog`
                (real cells and converters) or `parasitic` (and real wires).
            limit: stop after this many images.
            device: where to compute.
            chips: how many chips are drawn, on the rungs where chips differ.
            seed: of their draw.
            conditions: of those rungs (`crossloom.simulate.Conditions`).
            tick: called after every batch with the images done so far, each counted once a chip.

        Raises:
            InputError: no images, or fewer than one chip.
        """
        from crossloom.simulate.analog_chips import chip_accuracy, first_images

        if chips < 1:
            raise InputError("chips", chips, "at least 1 chip")
        if rung in CHIP_RUNGS:
            made = chip_accuracy(
                self.mapping, batches, chips, seed, conditions, rung=rung, limit=limit, device=device,
                calibration=self.converters, tick=tick,
            )  # fmt: skip
            return Accuracy(rung, made.mean, made.images, made.values)
        right = images = 0
        for x, target in first_images(batches, limit):
            right += int((self.logits(x, rung, device).argmax(1).cpu() == target.cpu()).sum())
            images += len(x)
            tick(images)
        if images == 0:
            raise InputError("batches", "no images", "at least one image")
        return Accuracy(rung, right / images, images)

    def cost(self, activity: Any = None) -> CostReport:
        """Area, energy and latency; see `crossloom.cost.estimate`."""
        from crossloom.cost import estimate

        return estimate(self.mapping, activity)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the compiled chip to one safetensors file, atomically."""
        copies = {name: layer.copies for name, layer in self.mapping.layers.items()}
        converters = None if self.converters is None else self.converters.to_dict()
        extra = {"hardware": self.hardware.to_yaml(), "copies": copies, "converters": converters, "hash": self.hash}
        save_program(self.program, path, extra)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> CompiledChip:
        """Read a compiled chip.

        Raises:
            InputError: no such file, or one that is damaged, truncated or not a compiled chip.
        """
        from crossloom.simulate import Calibration

        try:
            program, extra = load_program(path)
            mapping = map_program(program, loads(extra["hardware"]), extra["copies"])
            record = extra.get("converters")
            chip = CompiledChip(mapping, None, None if record is None else Calibration.from_dict(record))
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("chip", str(path), f"a chip file written by crossloom ({error})") from error
        if chip.hash != extra.get("hash"):
            raise InputError("chip", str(path), "a chip file whose content matches its hash; this one was changed")
        return chip

    def __repr__(self) -> str:
        return f"CompiledChip({self.program.name!r} on {self.hardware.name!r}: {self.crossbars} crossbars)"


def _batches(calibration: Any, count: int) -> list[Tensor]:
    """The first batches of inputs of whatever the user gave: a tensor, or batches with or without targets."""
    if calibration is None:
        raise InputError("calibration", None, "a tensor or batches of real inputs, to set the activation steps")
    given = [calibration] if isinstance(calibration, Tensor) else calibration
    batches = [b[0] if isinstance(b, (tuple, list)) else b for b, _ in zip(given, range(count), strict=False)]
    if not batches:
        raise InputError("calibration", "no batches", "at least one batch")
    return batches


def compile(
    model: nn.Module,
    hardware: str | os.PathLike[str] | Chip = "crimp-isaac",
    calibration: Tensor | Batches | None = None,
    *,
    quantisation: QuantisationConfig | None = None,
    overrides: Mapping[str, Any] | Iterable[str] | None = None,
    duplication: Mapping[str, int] | None = None,
    calibration_batches: int = 4,
    name: str | None = None,
    classes: Iterable[str] = (),
) -> CompiledChip:
    """Compile a PyTorch network for a chip.

    Args:
        model: any supported classifier, or a network from `convert` that was calibrated and perhaps trained.
        hardware: a preset's name, a hardware file, or a `Chip`.
        calibration: real inputs, as a tensor or as batches (tensors or (input, target) pairs), from which the
            activation steps are set. Needed unless `model` is already quantised; always needed where the chip's
            converter ranges are calibrated.
        quantisation: bits and ranges; by default what the chip asks for.
        overrides: hardware fields to change, `{"array.b_adc": 6}` or `["array.b_adc=6"]`.
        duplication: copies per layer name.
        calibration_batches: how many batches to calibrate with.
        name: of the network, for reports.
        classes: names of the outputs.

    Raises:
        InputError: the network, the data or the hardware cannot be used; the message says what and why.
    """
    chip = hardware if isinstance(hardware, Chip) else load(hardware)
    if overrides:
        chip = chip.override(overrides)
    if isinstance(model, fx.GraphModule) and quantisers(model):
        module = model
    else:
        batches = _batches(calibration, calibration_batches)
        module = convert(model, batches[0][:2], quantisation or quantisation_for(chip))
        calibrate(module, batches)
    mapping = map_program(lower(module, name or type(model).__name__, tuple(classes)), chip, duplication)
    converters = None
    if chip.array.adc_range == "calibrated":
        from crossloom.simulate import calibrate_converters

        converters = calibrate_converters(mapping, torch.cat(_batches(calibration, calibration_batches)))
    return CompiledChip(mapping, model, converters)
