"""Running a program on one rung of the ladder, any batch within a stated memory budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from crossloom.errors import InputError
from crossloom.mapping import Mapping
from crossloom.simulate.analog_chip import AnalogChip, Clock, Conditions
from crossloom.simulate.calibration import Calibration
from crossloom.simulate.digital import apply_output, evaluate, quantise, stored
from crossloom.simulate.engine import Kernel, Settings, engine
from crossloom.weave import Input, Node, Program, Woven

RUNGS = ("integer", "crossbar", "analog", "parasitic")
MEMORY_BUDGET = 512 << 20


def usable(device: str | torch.device) -> torch.device:
    """The device, after a tensor was made on it.

    Raises:
        InputError: torch knows no such device or finds none here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("device", str(device), f"cpu, or another device that torch finds here ({reason})") from error


class Executor:
    """A program made ready to run.

    Args:
        target: a mapping, or a bare program (rung `integer` only).
        rung: `integer`, `crossbar`, `analog` or `parasitic` (DESIGN §2).
        engine: the engine's name; default: the rung's own on a CPU, `tensor` for the crossbar rung elsewhere.
        device: any torch device.
        memory_budget: bytes for codes in flight and kernels' working space together; the weights, prepared once,
            are not counted. Any batch runs within it, down to one image at a time.
        calibration: the layers' converters, for chips whose range policy is `calibrated`.
        shortcut: if false, the crossbar engine reads every slice even where that cannot change the result.
        seed, chip_index: which batch of chips and which chip of it, on the rungs where chips differ.
        conditions: of those rungs.

    Raises:
        InputError: an unknown rung or engine, an engine of another rung, a rung that needs a mapping and has none, or
            a device that is not there.
    """

    def __init__(
        self,
        target: Mapping | Program,
        rung: str = "integer",
        *,
        engine_name: str | None = None,
        device: str | torch.device = "cpu",
        memory_budget: int = MEMORY_BUDGET,
        calibration: Calibration | None = None,
        shortcut: bool = True,
        seed: int = 0,
        chip_index: int = 0,
        conditions: Conditions | None = None,
    ) -> None:
        self.device = usable(device)
        if engine_name is None:
            if rung not in RUNGS:
                raise InputError.choice("rung", rung, RUNGS)
            engine_name = "tensor" if rung == "crossbar" and self.device.type != "cpu" else rung
        chosen = engine(engine_name)
        if chosen.rung != rung:
            raise InputError("engine", engine_name, f"an engine of rung {rung}; this one is of rung {chosen.rung}")
        if memory_budget < 1:
            raise InputError("memory_budget", memory_budget, "a positive number of bytes")
        self.program = target if isinstance(target, Program) else target.program
        self.rung, self.memory_budget = rung, memory_budget
        analog = None
        if rung in ("analog", "parasitic") and isinstance(target, Mapping):
            analog = AnalogChip.of(target.chip, seed, chip_index, conditions)
        self.clock = Clock()
        settings = Settings(self.device, memory_budget // 2, shortcut, calibration, analog, self.clock)
        self.kernels: dict[str, Kernel] = {}
        for node in self.program.woven():
            layer = node.layer if isinstance(target, Program) else target.layers[node.layer.name]
            self.kernels[node.name] = chosen.prepare(layer, settings)
        self.last = self.program.last_use()

    @property
    def images_at_once(self) -> int:
        """The largest batch whose codes in flight stay within half the memory budget."""
        return max(self.memory_budget // 2 // self._bytes_per_image(), 1)

    def _bytes_per_image(self) -> int:
        """Peak bytes of codes and accumulators alive for one image; digital nodes compute in int64."""
        alive: dict[str, int] = {}
        peak = 1
        for i, node in enumerate(self.program.nodes):
            values = math.prod(node.shape)
            alive[node.name] = values * stored(node).itemsize
            wide = sum(math.prod(source.shape) for source in self.program.sources(node))
            peak = max(peak, sum(alive.values()) + 16 * (values + wide))
            alive = {name: size for name, size in alive.items() if self.last[name] > i}
        return peak

    def _evaluate(self, x: torch.Tensor, observe: Callable[[Node, torch.Tensor], None] | None = None) -> torch.Tensor:
        codes: dict[str, torch.Tensor] = {}
        for i, node in enumerate(self.program.nodes):
            if isinstance(node, Input):
                made = quantise(node, x)
            elif isinstance(node, Woven):
                acc = self.kernels[node.name](codes[node.inputs[0]])
                axis = -1 if node.layer.convolution is None else 1
                made = apply_output(node.layer.output, acc, axis, stored(node))
            else:
                forms = [source.format for source in self.program.sources(node)]
                made = evaluate(node, [codes[name] for name in node.inputs], forms)
            codes[node.name] = made
            if observe is not None:
                observe(node, made)
            for name in (*node.inputs, node.name):
                if self.last[name] <= i:
                    codes.pop(name, None)
        return made

    def batches(self, x: torch.Tensor, first_image: int = 0) -> Iterator[torch.Tensor]:
        """The input in parts that fit the memory budget, on the executor's device; sets the clock for each.

        Raises:
            InputError: a shape that is not the input node's with a batch before it.
        """
        shape = self.program.input.shape
        if tuple(x.shape[1:]) != tuple(shape):
            raise InputError("input shape", tuple(x.shape), f"(batch, {', '.join(map(str, shape))})")
        self.clock.first_image = first_image
        for part in x.split(self.images_at_once) if len(x) else ():
            yield part.to(self.device)
            self.clock.first_image += len(part)

    @torch.no_grad()
    def run(self, x: torch.Tensor, first_image: int = 0) -> torch.Tensor:
        """Output codes (B, …) of real inputs (B, …); read noise takes them as images number `first_image` on."""
        parts = [self._evaluate(part) for part in self.batches(x, first_image)]
        if not parts:
            return torch.empty((0, *self.program.output.shape), dtype=stored(self.program.output), device=self.device)
        return torch.cat(parts)

    @torch.no_grad()
    def nodes(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The codes of every node, by name."""
        seen: dict[str, list[torch.Tensor]] = {node.name: [] for node in self.program.nodes}
        for part in self.batches(x):
            self._evaluate(part, lambda node, codes: seen[node.name].append(codes))
        return {name: torch.cat(parts) for name, parts in seen.items() if parts}

    @torch.no_grad()
    def observe(self, x: torch.Tensor, observer: Callable[[Node, torch.Tensor], None]) -> None:
        """Run, calling `observer(node, codes)` for every node of every part of the batch; nothing is kept."""
        for part in self.batches(x):
            self._evaluate(part, observer)

    def logits(self, x: torch.Tensor, first_image: int = 0) -> torch.Tensor:
        """Real outputs: scale · (code − zero point), float64."""
        form = self.program.output.format
        return (self.run(x, first_image).to(torch.float64) - form.zero_point) * form.scale
