"""CRIMP's rows: 8-bit quantisation and crossbars of the unpruned networks here, its training's in `crimp_rows`.

S. Huai et al., "CRIMP: Compact & Reliable DNN Inference on In-Memory Processing via Crossbar-Aligned Compression and
Non-ideality Adaptation", ACM TECS, 2023. The paper trains its own float networks; ours are published ones
(`crossloom.training.PRETRAINED`), quantised after training without any fine-tuning.
"""

from __future__ import annotations

import math

from crossloom.codesign.config import RunConfig
from crossloom.codesign.configure import configure
from crossloom.codesign.crimp_plans import PLANS
from crossloom.codesign.crimp_rows import Rows
from crossloom.codesign.crimp_training import Study
from crossloom.codesign.machine import computed_on, environment
from crossloom.codesign.reproduce import Reproduction, Request, published_weights
from crossloom.codesign.results import Budget, ResultsFile, Row
from crossloom.codesign.run import run
from crossloom.codesign.targets import random_chip
from crossloom.compiled import CompiledChip, Rung
from crossloom.hardware import load

CHIP = "crimp-isaac"
QUANTISED = "Accuracy, 8-bit quantisation only"
ARRAYS = "Crossbars of the unpruned network (the paper's rule: ⌈C_out/32⌉·⌈k²C_in/128⌉ a layer)"
PAPER: dict[str, tuple[str, float | None, float | None]] = {
    "lenet5-caffe": ("LeNet-5, MNIST", 99.21, 99.09),
    "resnet20": ("ResNet-20, CIFAR-10 (not in the paper)", None, None),
    "resnet56": ("ResNet-56, CIFAR-10", 93.34, 93.37),
    "vgg16": ("VGG-16, CIFAR-10", None, None),
    "resnet18": ("ResNet-18, ImageNet", None, None),
}
"""Row, float accuracy and accuracy after quantisation, in per cent, as the paper gives them (its VGG-16 and
ResNet-18 rows need trained weights that nobody publishes for these networks; see results/PENDING.md)."""

TRAINED = ("lenet5-caffe", "resnet20", "resnet56")


def make(request: Request) -> ResultsFile:
    """The rows of one network."""
    rows = [*accuracies(request)] if request.network in TRAINED else [untrained_crossbars(request)]
    if request.network in PLANS and request.epochs != 0:
        rows += Rows(Study(request), request.command(CRIMP.paper), computed_on(environment(request.machine))).all()
    return ResultsFile(paper=CRIMP.paper, title=CRIMP.title, network=request.network, rows=tuple(rows))


def accuracies(request: Request) -> list[Row]:
    """Post-training quantisation of published weights: accuracy on every rung, and crossbars."""
    weights, known = published_weights(request)
    limited: dict[Rung, int] | None = {"crossbar": request.limit} if request.limit is not None else None
    config: RunConfig = configure(
        request.network, known.data, CHIP, weights=weights, normalisation=known.normalisation,
        images=limited, machine=request.machine,
    )  # fmt: skip
    folder = request.runs / f"{CRIMP.paper}-{request.network}-{config.hash[:8]}"
    record = run(config, folder, fresh=request.fresh, progress=request.progress, command=[request.command(CRIMP.paper)])
    name, before, after = PAPER[request.network]

    def row(metric: str, unit: str, paper: float | None, ours: float, images: int) -> Row:
        return Row(
            table=QUANTISED, row=name, metric=metric, unit=unit, paper=paper, ours=round(ours, 6), spread=None,
            budget=Budget(epochs=0, images=images, device=computed_on(record.environment)),
            command=request.command(CRIMP.paper), config_hash=config.hash,
        )  # fmt: skip

    exact, count = record.accuracy, record.images
    drop = None if before is None or after is None else round(before - after, 6)
    rows = [
        row("accuracy, float", "%", before, 100 * exact["float"], count["float"]),
        row("accuracy, integer", "%", after, 100 * exact["integer"], count["integer"]),
        row("drop, float − integer", "points", drop, 100 * (exact["float"] - exact["integer"]), count["integer"]),
        row("accuracy, crossbar", "%", None, 100 * exact["crossbar"], count["crossbar"]),
        row(
            "largest difference of a logit, crossbar − integer", "", None,
            record.agreement["integer=crossbar"].largest_difference, record.agreement["integer=crossbar"].images,
        ),
    ]  # fmt: skip
    chip = CompiledChip.load(folder / "chip.safetensors")
    return [*rows, crossbars(request, chip, config.hash)]


def untrained_crossbars(request: Request) -> Row:
    """The crossbars of a network with random weights: none of its blocks is all zero."""
    return crossbars(request, random_chip(request.network, CHIP).chip, None)


def crossbars(request: Request, chip: CompiledChip, config_hash: str | None) -> Row:
    """Arrays allocated, beside the paper's rule."""
    return Row(
        table=ARRAYS, row=PAPER[request.network][0], metric="crossbars", unit="arrays", paper=by_the_rule(chip),
        ours=chip.crossbars, spread=None, budget=Budget(epochs=0, images=0, device="cpu"),
        command=request.command(CRIMP.paper), config_hash=config_hash,
    )  # fmt: skip


def by_the_rule(chip: CompiledChip) -> int:
    """The paper's rule on the layers' shapes alone: nothing of the mapping goes into it."""
    array = load(CHIP).array
    shapes = (layer.core.shape for layer in chip.program.layers)
    weights = array.columns // load(CHIP).columns_per_weight
    return sum(g * math.ceil(columns / weights) * math.ceil(rows / array.rows) for g, rows, columns in shapes)


CRIMP = Reproduction(
    paper="crimp",
    title=(
        "S. Huai et al., CRIMP: Compact & Reliable DNN Inference on In-Memory Processing via Crossbar-Aligned "
        "Compression and Non-ideality Adaptation, ACM TECS, 2023"
    ),
    networks=tuple(PAPER),
    rows="accuracy after 8-bit quantisation, crossbars; with training: pruned, hardened, against ε and array height "
    "(--epochs N: in about N epochs, 0: no training)",
    make=make,
    options=("epochs", "train_images", "precision"),
)
