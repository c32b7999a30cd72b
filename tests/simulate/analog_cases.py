"""Layers and chips that the analog tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from crossloom.hardware import Chip, load
from crossloom.mapping import LayerMapping, cut
from crossloom.simulate import Settings, engine
from crossloom.simulate.analog_chip import AnalogChip, Clock, Conditions
from crossloom.weave import Convolution, Format, InputTransform, OutputTransform, Rescale, WovenLayer

PERFECT = {
    "device.variation": {"model": "none"}, "device.read_noise": 0.0, "device.stuck_hrs": 0.0, "device.stuck_lrs": 0.0,
}  # fmt: skip


def layer_of(
    core: np.ndarray,
    bits: int = 8,
    inputs: Format | None = None,
    convolution: Convolution | None = None,
    name: str = "layer",
) -> WovenLayer:
    groups, rows, columns = core.shape
    return WovenLayer(
        name=name,
        transform=InputTransform.identity(groups * rows),
        core=core.astype(np.int32),
        output=OutputTransform(np.zeros(groups * columns, np.int64), Rescale(), Format(32, True)),
        input_format=inputs or Format(8, False),
        weight_bits=bits,
        weight_zero=None,
        weight_scale=np.ones(1),
        convolution=convolution,
    )


def random_core(rng: np.random.Generator, shape: tuple[int, int, int], bits: int, encoding: str) -> np.ndarray:
    if bits == 1:
        return rng.integers(0, 2, shape) * 2 - 1
    top = (1 << (bits - 1)) - 1
    return rng.integers(-top - (encoding not in ("differential", "polarised")), top + 1, shape)


def chip_of(**fields: Any) -> Chip:
    """crimp-isaac with perfect cells and the given fields (dots as double underscores)."""
    overrides: dict[str, Any] = {**PERFECT, "array.flip": False}
    return load("crimp-isaac", overrides={**overrides, **{k.replace("__", "."): v for k, v in fields.items()}})


def array_of(rows: int, columns: int, **fields: Any) -> Chip:
    return chip_of(
        array__rows=rows,
        array__active_rows=fields.pop("active", rows),
        array__columns=columns,
        array__columns_per_adc=fields.pop("per_adc", 1),
        **{k if "__" in k else f"array__{k}": v for k, v in fields.items()},
    )


def run(
    mapping: LayerMapping, chip: AnalogChip | None, x: np.ndarray, name: str = "analog", first_image: int = 0, **kw: Any
) -> np.ndarray:
    settings = Settings(analog=chip, clock=Clock(first_image), **kw)
    return engine(name).prepare(mapping, settings)(torch.from_numpy(x)).numpy()


__all__ = ["AnalogChip", "Conditions", "array_of", "chip_of", "cut", "layer_of", "random_core", "run"]
