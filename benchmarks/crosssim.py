# ruff: noqa: E402 - thread counts are set before the libraries that read them
"""CrossSim beside Crossloom: ResNet-20 on CIFAR-10, same weights, bits, slices and converters, one thread, one run.

    python benchmarks/crosssim.py --data DIR --weights DIR [--images N] [--json FILE] [--page docs/crosssim.md]

Needs CrossSim 3.2 in the same environment, from its repository (it is not on PyPI):

    python -m venv --system-site-packages venv && venv/bin/pip install git+https://github.com/sandialabs/cross-sim

Two tables. Speed: CPU seconds an image of the whole network, converted by each tool from the same float weights by its
own front end (`from_torch`, `crossloom.compile`), programming left out. Agreement: the crossbars of one compiled
program simulated by each tool, all else shared, so that a difference has no other cause than the crossbars.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn

import crossloom
from crossloom.codesign.machine import processor
from crossloom.compiled import CompiledChip, quantisation_for
from crossloom.hardware import load
from crossloom.mapping import LayerMapping, map_program
from crossloom.nn import QuantiserConfig
from crossloom.simulate import Conditions, Executor, calibrate_converters
from crossloom.simulate.unfold import Fold
from crossloom.training import PRETRAINED, build_network, load_dataset, load_weights

try:
    from simulator import AnalogCore, CrossSimParameters
    from simulator.algorithms.dnn.torch.convert import convertible_modules, from_torch
except ImportError:
    sys.exit(
        "CrossSim is not installed here. It is not on PyPI:\n"
        "    pip install git+https://github.com/sandialabs/cross-sim"
    )

NETWORK = "resnet20"
ROWS = 128
LEVELS = 255.0
"""The highest code of an eight-bit converter."""
SERIAL = {
    "array.rows": ROWS, "array.active_rows": ROWS, "array.columns": 128, "array.b_cell": 2, "array.b_dac": 1,
    "array.b_adc": 8, "array.encoding": "offset", "array.adc_range": "full", "array.flip": False,
    "hierarchy.tiles": None, "device.variation": {"model": "none"},
}  # fmt: skip
"""Eight-bit weights in four two-bit cells, offset, inputs bit by bit, 128 rows, eight-bit converters."""
WHOLE = {
    **SERIAL, "array.b_cell": 7, "array.b_dac": 8, "array.b_adc": 16, "array.encoding": "differential",
    "array.adc_range": "calibrated", "array.rows": 1152, "array.active_rows": 1152, "device.max_bits": 7,
}  # fmt: skip
"""Weights as one pair of cells, eight-bit inputs at once, 16-bit converters fitted to data (CrossSim: none)."""
PROGRAMMING = {"device.variation": {"model": "lognormal", "sigma": 0.05}}
READING = {"device.read_noise": 0.02}
INFINITE = Conditions(on_off="infinite")


@dataclass(frozen=True)
class Case:
    """One line of the table: the same chip for both.

    Attributes:
        name: what people call it.
        rung: ours.
        hardware: fields of our chip.
        sliced: four slices and bit-serial inputs, else whole weights and inputs.
        programming, reading: relative standard deviations for CrossSim.
        images: for CrossSim; ours takes `ours`.
        high: largest read of the converters.
    """

    name: str
    rung: str
    hardware: dict[str, Any]
    sliced: bool
    programming: float = 0.0
    reading: float = 0.0
    images: int = 4
    ours: int = 64
    high: float = 3.0 * ROWS


CASES = (
    Case("8 b, unsliced", "integer", WHOLE, False, images=64),
    Case("8 b, unsliced, 5 % programming noise", "analog", {**WHOLE, **PROGRAMMING}, False, 0.05, images=64),
    Case("8 b, unsliced, 2 % read noise", "analog", {**WHOLE, **READING}, False, 0.0, 0.02, images=2, ours=8),
    Case("4 slices, bit-serial, 8-bit ADC, 128 rows", "crossbar", SERIAL, True),
    Case("… step of one level", "crossbar", {**SERIAL, "array.adc_range": "unit"}, True, high=LEVELS),
    Case("… 5 % programming noise", "analog", {**SERIAL, **PROGRAMMING}, True, 0.05),
    Case("… 2 % read noise", "analog", {**SERIAL, **READING}, True, 0.0, 0.02, images=1),
)


def parameters(sliced: bool, largest: float, signed: bool, high: float) -> CrossSimParameters:
    """CrossSim's description of the chip for one layer.

    Args:
        sliced: see `Case`.
        largest: input that the DAC's top level stands for.
        signed: whether inputs have a sign.
        high: largest read of the converter, in level steps.
    """
    made = CrossSimParameters()
    made.core.weight_bits = 8
    made.core.mapping.weights.percentile = 1.0
    made.core.mapping.inputs.mvm.min, made.core.mapping.inputs.mvm.max = -largest if signed else 0.0, largest
    made.xbar.device.infinite_on_off_ratio = True
    made.xbar.dac.mvm.bits = 8
    made.xbar.dac.mvm.signed = signed
    made.xbar.dac.mvm.model = "SignMagnitudeDAC" if signed else "QuantizerDAC"
    if not sliced:
        made.core.style = "BALANCED"
        made.xbar.device.cell_bits = 7
        return made
    made.core.style = "BITSLICED"
    made.core.bit_sliced.style = "OFFSET"
    made.core.bit_sliced.num_slices = 4
    made.core.offset.style = "DIGITAL_OFFSET"
    made.core.rows_max = ROWS
    made.xbar.device.cell_bits = 2
    made.xbar.dac.mvm.input_bitslicing = True
    made.xbar.dac.mvm.slice_size = 1
    made.xbar.adc.mvm.model = "SignMagnitudeADC" if signed else "QuantizerADC"
    adc, top = made.xbar.adc.mvm, high / 3  # a new object: the model's own
    adc.bits, adc.adc_per_ibit, adc.signed = 8, True, signed
    adc.adc_range_option = "CALIBRATED"
    adc.calibrated_range = [[-top if signed else 0.0, top]] * 4
    return made


def noisy(made: CrossSimParameters, case: Case) -> CrossSimParameters:
    """The same with the case's noise, proportional to conductance."""
    for what, sigma in (("programming_error", case.programming), ("read_noise", case.reading)):
        if sigma:
            model = getattr(made.xbar.device, what)
            model.enable, model.model, model.magnitude = True, "NormalProportionalDevice", sigma
    return made


def their_network(model: nn.Module, chip: CompiledChip, case: Case) -> nn.Module:
    """The float network converted by CrossSim, with the input ranges of the compiled chip."""
    formats = {node.name: node.layer.input_format for node in chip.program.woven()}
    names = {module: name for name, module in model.named_modules()}
    every = []
    for module in convertible_modules(model):
        form = formats[names[module].replace(".", "_")]
        every.append(noisy(parameters(case.sliced, form.high * form.scale, form.signed, case.high), case))
    return from_torch(model, every, fuse_batchnorm=True)


def processor_seconds(function: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Least processor time of a call, and what it returned."""
    best, made = float("inf"), None
    for _ in range(rounds):
        start = time.process_time()
        made = function()
        best = min(best, time.process_time() - start)
    return best, made


def speed(case: Case, model: nn.Module, chip: CompiledChip, x: Tensor, labels: Tensor) -> dict[str, Any]:
    """One line of the table of speeds."""
    mapping = map_program(chip.program, load("isaac", overrides=case.hardware))
    fitted = calibrate_converters(mapping, x) if mapping.chip.array.adc_range == "calibrated" else None
    ours = Executor(mapping, case.rung, calibration=fitted, conditions=INFINITE if case.rung == "analog" else None)
    ours.run(x[:2])
    seconds, mine = processor_seconds(lambda: ours.logits(x[: case.ours]), 3)
    with torch.no_grad():
        theirs = their_network(model, chip, case)
        count = min(case.images, len(x))
        if case.images > 4:
            theirs(x[:2])
        other_seconds, other = processor_seconds(lambda: theirs(x[:count]), 2 if count > 4 else 1)
    other = other.double()
    guesses = mine[:count].argmax(1), other.argmax(1)
    return {
        "case": case.name, "rung": case.rung, "ours": case.ours / seconds, "images": case.ours,
        "theirs": count / other_seconds, "their_images": count, "ratio": other_seconds / count * case.ours / seconds,
        "same_class": float((guesses[0] == guesses[1]).double().mean()),
        "our_accuracy": float((guesses[0] == labels[:count]).double().mean()),
        "their_accuracy": float((guesses[1] == labels[:count]).double().mean()),
        "logit_difference": float((mine[:count] - other).abs().max()),
        "logit_spread": float(mine[:count].std()),
    }  # fmt: skip


CONVERTERS = (
    ("step 1, codes 0 … 255", "unit", LEVELS),
    ("step 384/255, halves rounded up here and to even there", "full", 3.0 * ROWS),
    ("step 384/255, there less by a part in 10⁹: halves up", "full", 3.0 * ROWS * (1 - 1e-9)),
)
"""Name, our range policy, their largest read."""


def their_kernel(mapping: LayerMapping, high: float) -> Callable[[Tensor], Tensor]:
    """CrossSim's crossbars for one layer of a compiled program: codes in, accumulators out.

    A core for every 128 rows, as the program is placed; by itself CrossSim cuts 144 rows in 72 and 72.
    """
    layer = mapping.layer
    made = parameters(True, 255.0, False, high)
    made.core.output_dtype = "FLOAT64"
    made.core.mapping.weights.percentile = None
    made.core.mapping.weights.min, made.core.mapping.weights.max = -127.0, 127.0
    weights = layer.core[0].T.astype(np.float64)
    cores = [AnalogCore(weights[:, k : k + ROWS], made) for k in range(0, weights.shape[1], ROWS)]

    def kernel(x: Tensor) -> Tensor:
        fold = Fold.of(layer, tuple(x.shape))
        rows = fold.vectors(x).numpy().astype(np.float64).T
        total = sum(np.asarray(core.matmul(rows[ROWS * i : ROWS * (i + 1)])) for i, core in enumerate(cores))
        return fold.accumulators(torch.from_numpy(np.ascontiguousarray(total.T)))

    return kernel


def agreement(chip: CompiledChip, name: str, policy: str, high: float, x: Tensor) -> dict[str, Any]:
    """How far the accumulators of every layer agree when both get the same codes, and the logits at the end."""
    hardware = load("isaac", overrides={**SERIAL, "array.adc_range": policy})
    mapping = map_program(chip.program, hardware)
    mine, mixed = Executor(mapping, "crossbar"), Executor(mapping, "crossbar")
    reads, different, worst = 0, 0, 0.0
    swapped = [n for n in chip.program.woven() if not n.layer.input_format.signed]
    for node in swapped:
        theirs, own = their_kernel(mapping.layers[node.layer.name], high), mine.kernels[node.name]

        def both(codes: Tensor, theirs: Any = theirs, own: Any = own) -> Tensor:
            nonlocal reads, different, worst
            a, b = own(codes).double(), theirs(codes)
            reads, worst = reads + a.numel(), max(worst, float((a - b).abs().max()))
            different += int(((a - b).abs() > 0.5).sum())
            return (b + 0.5).floor().to(torch.int64)

        mixed.kernels[node.name] = both
    expected, found = mine.logits(x), mixed.logits(x)
    return {
        "converter": name, "images": len(x),
        "layers": len(swapped), "accumulators": reads, "different": different, "largest_difference": worst,
        "largest_logit_difference": float((expected - found).abs().max()),
        "same_class": float((expected.argmax(1) == found.argmax(1)).double().mean()),
    }  # fmt: skip


def table(rows: Iterable[dict[str, Any]], columns: dict[str, tuple[str, str]]) -> str:
    """A Markdown table: column heading → (key, format)."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(format(row[key], form) for key, form in columns.values())} |" for row in rows]
    return "\n".join(lines)


SPEED_COLUMNS = {
    "case": ("case", ""), "our rung": ("rung", ""), "CrossSim, images a CPU-second": ("theirs", ".3g"),
    "Crossloom": ("ours", ".4g"), "ratio": ("ratio", ".3g"), "CrossSim's images": ("their_images", ""),
    "right, CrossSim": ("their_accuracy", ".0%"), "right, Crossloom": ("our_accuracy", ".0%"),
    "same class": ("same_class", ".0%"), "largest logit difference": ("logit_difference", ".2f"),
}  # fmt: skip
AGREEMENT_COLUMNS = {
    "converter": ("converter", ""), "images": ("images", ""), "layers": ("layers", ""),
    "accumulators": ("accumulators", ",d"), "different": ("different", ",d"),
    "largest difference": ("largest_difference", ".3g"),
    "largest logit difference": ("largest_logit_difference", ".3g"), "same class": ("same_class", ".0%"),
}  # fmt: skip


def page(whole: dict[str, Any]) -> str:
    """The page of the docs."""
    return f"""<!-- Generated by `python benchmarks/crosssim.py --page docs/crosssim.md`; do not edit. -->

# Beside CrossSim

[CrossSim](https://github.com/sandialabs/cross-sim) 3.2 (Sandia) is the accuracy simulator whose chips are nearest to
those of the `crossbar` and `analog` rungs: weight slices, input digits, converters, device errors. Here both run
ResNet-20 with the same published weights on the same CIFAR-10 images, in one process, on one thread of {processor()}.

```sh
pip install git+https://github.com/sandialabs/cross-sim    # into an environment of its own
python benchmarks/crosssim.py --data DIR --weights DIR
```

## Speed

Each tool converts the float network by its own front end and gets the same bits: 8-bit weights with one step a layer,
8-bit inputs with the same ranges. Images a CPU-second, programming left out; the fp32 forward pass does
{whole["float_images_per_second"]:.0f} on the same thread. The slow cases run on few images: the two columns of right
answers say what happened on them, not how accurate a chip is. Work beside the measurement slows the two by
different amounts: take ratios as good to a factor of two.

{table(whole["speed"], SPEED_COLUMNS)}

- *unsliced*: a weight is one pair of 7-bit cells, an input one 8-bit voltage, up to 1152 rows at once; CrossSim has no
  converter here, ours is 16 bits wide and fitted to data. Without noise that is an integer product, which the
  `integer` rung computes. With programming noise CrossSim makes one product with the difference of the two columns;
  here every column is read and converted by itself, and that is the case in which CrossSim can be the faster one.
- *4 slices*: offset weights in 2-bit cells, inputs bit by bit, 128 rows, an 8-bit converter after every read that
  covers all that a read can be; *step of one level* covers 0 to 255 of 384 instead. Cases with dots add to this one.
- *programming noise*: G·(1 + 0.05·z) there, G·exp(0.05·z) here; *read noise*: every cell and read anew in both.

Networks differ between the layers: CrossSim keeps activations and sums of branches in floating point, a compiled
program rounds both to 8 bits, and with signed inputs (the first layer) CrossSim drives sign and magnitude, ours two's
complement. That is why logits differ; the crossbars themselves do not:

## The same crossbars

One compiled program; the crossbars of every layer with unsigned inputs are simulated by ours and, from the same
codes, by CrossSim's `AnalogCore`; all else is shared. Accumulators are compared one by one. CrossSim gets a core for
every 128 rows, since by itself it cuts 144 rows in 72 and 72.

{table(whole["agreement"], AGREEMENT_COLUMNS)}

Every accumulator is the same where no read falls half way between two codes. With a step of 384/255, reads of 64, 192
and 320 do: CrossSim rounds halves to even codes, ours up, as a comparator with its threshold there would. Made to
round them up too, by a range less by a part in 10⁹, CrossSim gives the same accumulators again.
"""


def main() -> None:
    """Both tables on standard output, and as JSON and as a page where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("CROSSLOOM_DATA"), help="folder of CIFAR-10")
    parser.add_argument("--weights", default=os.environ.get("CROSSLOOM_WEIGHTS"), help="folder of the weights")
    parser.add_argument("--images", type=int, default=4, help="for the agreement of the crossbars")
    parser.add_argument("--only", default="", help="cases whose name has this word")
    parser.add_argument("--json", type=Path, help="also write both tables here")
    parser.add_argument("--page", type=Path, help="also write the page of the docs here")
    given = parser.parse_args()
    if not given.data or not given.weights:
        parser.error("--data and --weights, or CROSSLOOM_DATA and CROSSLOOM_WEIGHTS, must name folders")
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002 - CrossSim draws from the global generator
    known = next(p for p in PRETRAINED if p.network == NETWORK)
    data = load_dataset(known.data, given.data).normalised(known.normalisation)
    model = build_network(NETWORK, len(data.classes), data.image_shape).eval()
    load_weights(model, Path(given.weights) / known.file)
    hardware = load("isaac", overrides=SERIAL)
    quantisation = quantisation_for(
        hardware, weights=QuantiserConfig(bits=8, per_channel=False, range="minmax"),
    )  # fmt: skip
    chip = crossloom.compile(
        model, hardware, data.calibration_loader(256, seed=0), quantisation=quantisation, name=NETWORK
    )
    x, labels = next(iter(data.subset(None, 0, test=64).test_loader()))
    with torch.no_grad():
        model(x)
        float_seconds, _ = processor_seconds(lambda: model(x), 3)
    rows = []
    for case in (c for c in CASES if given.only in c.name):
        rows.append(speed(case, model, chip, x, labels))
        print(rows[-1]["case"], f"{rows[-1]['ratio']:.3g} ×", file=sys.stderr)
    shared = [agreement(chip, *each, x[: given.images]) for each in CONVERTERS]
    whole = {"float_images_per_second": len(x) / float_seconds, "speed": rows, "agreement": shared}
    if given.json:
        given.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    if given.page:
        given.page.write_text(page(whole), encoding="utf-8")
    print(f"fp32 forward pass: {len(x) / float_seconds:.0f} images a CPU-second\n")
    print(table(rows, SPEED_COLUMNS) + "\n\n" + table(shared, AGREEMENT_COLUMNS))


if __name__ == "__main__":
    main()
