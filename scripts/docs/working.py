"""Which encoding works with which converter policy on which engine: found by running each of them."""

import numpy as np
import torch

from crossloom.errors import InputError
from crossloom.hardware import load
from crossloom.mapping.blocks import LayerMapping, cut
from crossloom.simulate import Adc, Calibration, Settings, engine, engines
from crossloom.weave import Format, InputTransform, OutputTransform, Rescale, WovenLayer

ENCODINGS = (
    ("offset", False),
    ("offset", True),
    ("differential", False),
    ("twos_complement", False),
    ("binary", False),
)
CONVERTERS = (
    ("full, lossless", {"adc_range": "full", "b_adc": 8}),
    ("full, coarse", {"adc_range": "full", "b_adc": 4}),
    ("unit, clipping", {"adc_range": "unit", "b_adc": 4}),
    ("calibrated", {"adc_range": "calibrated", "b_adc": 4}),
)
NAME = "layer"

HEAD = """# What works with what

Each entry was found by running a small layer of every kind on every engine. **exact**: every accumulator equals that
of integer arithmetic. **equal**: every accumulator equals that of the brute-force `reference` engine, which reads
programmed cells one by one; the converter changes the result, and both engines change it alike. **runs**: it computes,
and the rung has no brute-force twin of equal bits. A dash with a reason: the combination is refused.
"""


def _layer(bits: int) -> WovenLayer:
    """40 inputs, 6 outputs."""
    rng = np.random.default_rng(1)
    core = (
        rng.integers(-(1 << bits - 1) + 1, 1 << bits - 1, (1, 40, 6)) if bits > 1 else rng.choice([-1, 1], (1, 40, 6))
    )
    output = OutputTransform(np.zeros(6, np.int64), Rescale(), Format(32, True))
    return WovenLayer(
        NAME, InputTransform.identity(40), core.astype(np.int32), output, Format(4, False), bits, None, np.ones(1)
    )


def _run(name: str, mapping: LayerMapping, codes: torch.Tensor) -> torch.Tensor | str:
    """Accumulators, or why not."""
    record = Calibration({NAME: Adc.of(mapping.array.b_adc, 1.5, 2)})
    try:
        return engine(name).prepare(mapping, Settings(calibration=record))(codes).long()
    except InputError as error:
        return f"— ({error.field}: {error.expected})"


def _entry(name: str, mapping: LayerMapping, codes: torch.Tensor) -> str:
    found = _run(name, mapping, codes)
    if isinstance(found, str):
        return found
    if torch.equal(found, _run("integer", mapping, codes)):
        return "exact"
    return "equal" if torch.equal(found, _run("reference", mapping, codes)) else "runs"


def page() -> str:
    """The matrix."""
    known = sorted(engines(), key=lambda name: (engine(name).rung != "integer", name.startswith("analog")))
    chip = load("rram-binary").override({"array.rows": 32, "array.active_rows": 32})
    codes = torch.from_numpy(np.random.default_rng(2).integers(0, 16, (16, 40))).to(torch.uint8)
    lines = [HEAD, "| encoding | converter | " + " | ".join(f"`{n}`<br>rung {engine(n).rung}" for n in known) + " |"]
    lines.append("|---" * (len(known) + 2) + "|")
    for encoding, flip in ENCODINGS:
        for words, policy in CONVERTERS:
            bits = 1 if encoding == "binary" else 4
            changes = {"precision.weights": bits, "array.encoding": encoding, "array.flip": flip}
            changes |= {f"array.{field}": value for field, value in policy.items()}
            mapping = cut(_layer(bits), chip.override(changes).array)
            entries = [_entry(name, mapping, codes) for name in known]
            lines.append(f"| {encoding}{', flipped columns' * flip} | {words} | " + " | ".join(entries) + " |")
    return "\n".join([*lines, ""])
