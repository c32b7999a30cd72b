"""Self-compensation of one programmed chip: our own schemes, for no publication says how.

*Gain and offset.* After programming, a calibration batch runs through the chip layer by layer. Every column's
accumulators are fitted to what they should be, t ≈ g·a + o, and the fit goes into Q: the offset into the bias, the
gain into the factor where the datapath has one (`multiplier`), else its nearest power of two into the shift. The mean
gain e^{ε²/2} of log-normal variation goes the same way. No hardware is added.

What they should be is the ideal accumulator, or, for a network hardened on noisy chips, the mean over other chips:
such a network expects the mean error of its cells and is thrown off by its absence.

*Spare cells.* An array whose core rows do not fill it has rows to spare. The input rows with the worst residuals
Σ_n a_k·(w_real − w)² are driven once more on a spare row that holds −residual. In the algebra that is one more row of
P that selects the same input, and no adder. (A spare column would need one.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int8

from crossloom.errors import InputError
from crossloom.mapping import LayerMapping, Mapping
from crossloom.simulate.analog_chip import AnalogChip, program_block, slice_gains
from crossloom.simulate.devices import Key, faults
from crossloom.simulate.digital import apply_output, evaluate, quantise, stored
from crossloom.simulate.engine import Settings, engine
from crossloom.simulate.integer import IntegerEngine
from crossloom.weave import Input, InputTransform, OutputTransform, Program, Rescale, Woven, WovenLayer


def stuck_cells(mapping: LayerMapping, chip: AnalogChip, copy: int = 0) -> list[Int8[np.ndarray, "rows columns"]]:
    """What a test of the chip finds: the fault code of every cell, a map per block of the layer."""
    found = []
    for index, block in enumerate(mapping.blocks):
        key = Key(chip.seed, chip.index, (mapping.layer.name, copy, index))
        shape = mapping.cells(block).levels.shape
        found.append(faults(shape, chip.device.stuck_hrs, chip.device.stuck_lrs, key.generator("faults")))
    return found


def residuals(mapping: LayerMapping, chip: AnalogChip, copy: int = 0) -> Float[np.ndarray, "rows columns"]:
    """What every weight of a layer came out as, less what it should be, in weight steps; one group."""
    found = np.zeros(mapping.layer.core.shape[1:])
    for index, block in enumerate(mapping.blocks):
        made = program_block(mapping, index, copy, chip)
        gains = np.repeat(slice_gains(mapping, made.signs), mapping.array.active_rows, 0)[: len(made.weights)]
        extra = (made.weights - mapping.cells(block).levels) * gains
        found[slice(*block.rows), slice(*block.columns)] = extra.reshape(len(extra), -1, mapping.code.columns).sum(2)
    return found


# -- gain and offset ------------------------------------------------------------------------------------------------


class _Stream:
    """One chip, or the ideal one, running a program node by node on a batch."""

    def __init__(self, mapping: Mapping, chip: AnalogChip | None) -> None:
        self.mapping, self.chip = mapping, chip
        self.codes: dict[str, torch.Tensor] = {}

    def accumulators(self, node: Woven) -> torch.Tensor:
        """Of a woven node, channels where its output has them."""
        layer = self.mapping.layers[node.layer.name]
        x = self.codes[node.inputs[0]]
        if self.chip is None:
            return IntegerEngine().prepare(layer, Settings())(x)
        return engine("analog").prepare(layer, Settings(analog=self.chip))(x)

    def close(self, node: Woven, acc: torch.Tensor, output: OutputTransform) -> None:
        """Apply Q."""
        axis = -1 if node.layer.convolution is None else 1
        self.codes[node.name] = apply_output(output, acc, axis, stored(node))

    def step(self, node: object, x: torch.Tensor) -> None:
        """A digital node."""
        if isinstance(node, Input):
            self.codes[node.name] = quantise(node, x)
            return
        program = self.mapping.program
        forms = [source.format for source in program.sources(node)]  # type: ignore[arg-type]
        inputs = [self.codes[name] for name in node.inputs]  # type: ignore[attr-defined]
        self.codes[node.name] = evaluate(node, inputs, forms)  # type: ignore[arg-type, attr-defined]


def _vectors(acc: torch.Tensor, axis: int) -> Float[np.ndarray, "vectors columns"]:
    return np.asarray(acc.movedim(axis, -1).reshape(-1, acc.shape[axis]).double().numpy())


def _fitted(
    output: OutputTransform, acc: np.ndarray, target: np.ndarray, multiplier: bool, last: bool
) -> OutputTransform:
    """Q with the fit target ≈ g·acc + o of every core column folded in; (vectors, columns) each."""
    mean, wanted = acc.mean(0), target.mean(0)
    spread = ((acc - mean) ** 2).sum(0)
    gain = np.where(spread > 0, ((acc - mean) * (target - wanted)).sum(0) / np.maximum(spread, 1e-9), 1.0)
    gain = np.clip(gain, 0.25, 4.0)
    if last:
        gain = np.ones_like(gain)  # raw accumulators: nothing scales them
    elif not multiplier:
        gain = 2.0 ** np.rint(np.log2(gain))
    offset = wanted - gain * mean
    columns = np.arange(len(gain)) if output.columns is None else output.columns
    at = np.maximum(columns, 0)
    g, o = np.where(columns >= 0, gain[at], 1.0), np.where(columns >= 0, offset[at], 0.0)
    bias = np.floor((output.bias + o) / g + 0.5).astype(np.int64)
    if np.all(g == 1):
        return replace(output, bias=bias)
    ratio = np.broadcast_to(output.rescale.ratio, g.shape) * g
    return replace(output, bias=bias, rescale=Rescale.of(ratio, power_of_two=not multiplier))


@torch.no_grad()
def compensate(
    mapping: Mapping, chip: AnalogChip, images: torch.Tensor, *, references: Sequence[AnalogChip] = (),
    multiplier: bool = False,
) -> Program:  # fmt: skip
    """The program with one chip's gains and offsets folded into Q.

    Args:
        mapping: the placed program.
        chip: as it came out.
        images: a calibration batch, real inputs (B, …).
        references: chips whose mean is the target, for networks hardened on such chips; none: the ideal accumulator.
        multiplier: the datapath may multiply by a gain; otherwise only shifts and biases change.

    Raises:
        InputError: a chip whose reads are random draws (average reads instead), or an empty batch.
    """
    if chip.noisy_cells:
        raise InputError("chip", "read noise", "a chip without read noise, for one read to be what it always reads")
    if not len(images):
        raise InputError("images", 0, "at least one image")
    targets = [_Stream(mapping, r) for r in references] or [_Stream(mapping, None)]
    real, found = _Stream(mapping, chip), dict[str, WovenLayer]()
    for node in mapping.program.nodes:
        if not isinstance(node, Woven):
            for stream in (*targets, real):
                stream.step(node, images)
            continue
        axis = -1 if node.layer.convolution is None else 1
        wanted = []
        for stream in targets:
            acc = stream.accumulators(node)
            stream.close(node, acc, node.layer.output)
            wanted.append(acc.double())
        acc = real.accumulators(node)
        ours, target = _vectors(acc, axis), _vectors(torch.stack(wanted).mean(0), axis)
        output = _fitted(node.layer.output, ours, target, multiplier, node.layer.output.low is None)
        real.close(node, acc, output)
        found[node.layer.name] = replace(node.layer, output=output)
    return mapping.program.replace_layers(found)


# -- spare cells ----------------------------------------------------------------------------------------------------


def spare_rows(
    mapping: LayerMapping, chip: AnalogChip, activity: Float[np.ndarray, " rows"] | None = None, margin: float = 2.0
) -> WovenLayer:
    """A layer whose worst rows are corrected on the spare rows of its last row band.

    A spare row brings the noise of its own cells. Only rows whose residual is at least `margin` times the layer's
    mean are corrected, so that the correction is worth it.

    Args:
        mapping: the layer on the chip's arrays.
        chip: as it came out.
        activity: mean square of every row's input code; None: all alike.
        margin: how much worse than the mean a row must be.

    Raises:
        InputError: a grouped layer.
    """
    layer = mapping.layer
    if layer.groups > 1:
        raise InputError(f"layers.{layer.name}", f"{layer.groups} groups", "one group for spare rows")
    rows = layer.core.shape[1]
    spare = -rows % mapping.row_capacity
    error = residuals(mapping, chip)
    a = np.ones(rows) if activity is None else np.asarray(activity, float)
    worst = a * (error**2).sum(1)
    alive = {b.columns for b in mapping.blocks if b.rows[1] == rows}
    chosen = np.argsort(-worst, kind="stable")[:spare]
    chosen = chosen[worst[chosen] > margin * worst.mean()]
    if not len(chosen):
        return layer
    extra = np.clip(np.floor(-error[chosen] + 0.5), mapping.code.low, mapping.code.high).astype(np.int32)
    columns = np.zeros(layer.core.shape[2], bool)
    for run in alive:  # a block of zeros has no array, and no spare rows
        columns[slice(*run)] = True
    core = np.concatenate([layer.core, (extra * columns)[None]], axis=1)
    return layer.with_rows(InputTransform.select(rows, [*range(rows), *chosen]), core)
