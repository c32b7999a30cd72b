"""Which encoding works with which converter policy on which engine: found by running each of them."""

import numpy as np
import torch

from crossloom.errors import InputError
from crossloom.hardware import Chip, load
from crossloom.mapping import LayerMapping, cut
from crossloom.simulate import Adc, Calibration, Settings, engine, engines
from crossloom.simulate.analog_chip import AnalogChip
from crossloom.weave import Format, InputTransform, OutputTransform, Rescale, WovenLayer

ENCODINGS = (
    ("offset", False),
    ("offset", True),
    ("differential", False),
    ("twos_complement", False),
    ("polarised", False),
    ("binary", False),
)
CONVERTERS = (
    ("full, lossless", {"adc_range": "full", "b_adc": 8}),
    ("full, coarse", {"adc_range": "full", "b_adc": 4}),
    ("unit, clipping", {"adc_range": "unit", "b_adc": 2}),
    ("calibrated", {"adc_range": "calibrated", "b_adc": 4}),
)
NAME = "layer"

TWINS = {"crossbar": "reference", "analog": "analog-reference"}
"""The engine of plain loops that the others of a rung are held to."""

HEAD = """# What works with what

Each entry was found by running a small layer of every kind on every engine. **exact**: every accumulator equals that
of integer arithmetic. **equal**: every accumulator equals that of the rung's own engine of plain loops (`reference`,
`analog-reference`), which reads programmed cells one by one: what differs from integer arithmetic, both make differ
alike. **the loops**: that engine itself. **runs**: it
computes, and neither holds here. A dash with a reason: the combination is refused. The analog and
parasitic rungs run with the cells of `rram-binary`, whose file gives them no variation, no noise and ideal wires: the
matrix says what can be combined, not what variation or wires do to a result.
"""


def _layer(bits: int, one_sign: bool) -> WovenLayer:
    """40 inputs, 6 outputs; all weights of an output of one sign if that is asked for."""
    rng = np.random.default_rng(1)
    core = (
        rng.integers(-(1 << bits - 1) + 1, 1 << bits - 1, (1, 40, 6)) if bits > 1 else rng.choice([-1, 1], (1, 40, 6))
    )
    if one_sign:
        core = np.abs(core) * rng.choice([-1, 1], 6)
    output = OutputTransform(np.zeros(6, np.int64), Rescale(), Format(32, True))
    return WovenLayer(
        NAME, InputTransform.identity(40), core.astype(np.int32), output, Format(4, False), bits, None, np.ones(1)
    )


def _run(name: str, mapping: LayerMapping, chip: Chip, codes: torch.Tensor) -> torch.Tensor | str:
    """Accumulators, or why not."""
    record = Calibration({NAME: Adc.of(mapping.array.b_adc, 1.5, 2)})
    try:
        return (
            engine(name)
            .prepare(mapping, Settings(calibration=record, analog=AnalogChip.of(chip, 0, 0, None)))(codes)
            .long()
        )
    except InputError as error:
        return f"— ({error.field}: {error.expected})"


def _entry(name: str, mapping: LayerMapping, chip: Chip, codes: torch.Tensor) -> str:
    found = _run(name, mapping, chip, codes)
    if isinstance(found, str):
        return found
    twins = {"exact": "integer", "equal": TWINS.get(engine(name).rung, name)}
    for word, twin in twins.items():
        if twin != name or name == "integer":
            other = _run(twin, mapping, chip, codes)
            if isinstance(other, torch.Tensor) and torch.equal(found, other):
                return word
    return "runs" if name not in TWINS.values() else "the loops"


def page() -> str:
    """The matrix."""
    known = sorted(
        engines(),
        key=lambda name: (engine(name).rung != "integer", {"analog": 1, "parasitic": 2}.get(engine(name).rung, 0)),
    )
    chip = load("rram-binary").override({"array.rows": 32, "array.active_rows": 32})
    codes = torch.from_numpy(np.random.default_rng(2).integers(0, 16, (16, 40))).to(torch.uint8)
    lines = [HEAD, "| encoding | converter | " + " | ".join(f"`{n}`<br>rung {engine(n).rung}" for n in known) + " |"]
    lines.append("|---" * (len(known) + 2) + "|")
    for encoding, flip in ENCODINGS:
        for words, policy in CONVERTERS:
            bits = 1 if encoding == "binary" else 4
            changes = {"precision.weights": bits, "array.encoding": encoding, "array.flip": flip}
            changes |= {f"array.{field}": value for field, value in policy.items()}
            variant = chip.override(changes)
            mapping = cut(_layer(bits, encoding == "polarised"), variant.array)
            entries = [_entry(name, mapping, variant, codes) for name in known]
            lines.append(f"| {encoding}{', flipped columns' * flip} | {words} | " + " | ".join(entries) + " |")
    return "\n".join([*lines, ""])
