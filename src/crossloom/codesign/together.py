"""The four papers' methods alone and together: five recipes from the same float weights on the same chip.

No paper has such a table; it is the question that none of them asks. Every recipe is a run of its own, kept and resumed
like any other, and a row says what came of it after all periphery is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import yaml

from crossloom.codesign.configure import configure
from crossloom.codesign.crimp_plans import MNIST
from crossloom.codesign.machine import computed_on, environment
from crossloom.codesign.phases import Course
from crossloom.codesign.plugins import open_data
from crossloom.codesign.recipe import Recipe
from crossloom.codesign.record import Result
from crossloom.codesign.reproduce import Reproduction, Request, published_weights
from crossloom.codesign.results import Budget, ResultsFile, Row
from crossloom.codesign.run import run
from crossloom.compiled import Rung
from crossloom.training import TrainingConfig

RECIPES = ("aat", "irr", "crimp", "admm", "all-four")
TABLE = "Each method alone and all four together, same float weights, same chip (crimp-isaac), periphery included"


@dataclass(frozen=True)
class Case:
    """How one network is compared.

    Attributes:
        recipes: folder of its recipes.
        data: name of the data set.
        chips: of the analog rung.
        images: test images by rung.
        noise: strengths of programming variation besides the chip's own.
        train_images: used by the recipes; None: all.
        normalisation: of the input; None: that of published weights.
        float_training: of the float network; None: published weights.
    """

    recipes: str
    data: str
    chips: int
    images: dict[Rung, int]
    noise: tuple[float, ...] = ()
    train_images: int | None = None
    normalisation: str | None = None
    float_training: TrainingConfig | None = field(default=None)


CASES = {
    "lenet5-caffe": Case(
        "lenet5", "mnist", chips=10, images={"crossbar": 2000, "analog": 500}, noise=(0.05, 0.1, 0.2, 0.4),
        normalisation="unit", float_training=MNIST,
    ),
    "resnet20": Case(
        "resnet20", "cifar10", chips=5, images={"float": 10000, "integer": 2000, "crossbar": 500, "analog": 200},
        train_images=10000,
    ),
}  # fmt: skip
"""LeNet-5 in full; ResNet-20 within an hour of CPU time from pretrained weights: on a fifth of the training images."""


def recipe(network: str, name: str) -> Recipe:
    """One of the five for a network."""
    path = files("crossloom.codesign") / "recipes" / "together" / CASES[network].recipes / f"{name}.yaml"
    return Recipe.from_plain(yaml.safe_load(path.read_text("utf-8")), name)


def weights(request: Request, folder: Path) -> Path:
    """The float weights that all five start from, trained here or published."""
    case = CASES[request.network]
    if request.weights is not None or case.float_training is None:
        return published_weights(request)[0]
    data = open_data(case.data, request.machine.data_dir, request.machine.download)
    if case.normalisation is not None:
        data = data.normalised(case.normalisation)
    course = Course(
        request.network, data, folder, float_training=case.float_training, machine=request.machine,
        progress=request.progress,
    )  # fmt: skip
    return folder / f"float-{course.start().key[:10]}" / "weights.safetensors"


def results(request: Request) -> dict[str, Result]:
    """The five runs, done or taken up."""
    case, folder = CASES[request.network], request.runs / f"together-{request.network}"
    start = weights(request, folder)
    found = {}
    for name in RECIPES:
        config = configure(
            request.network, case.data, recipe=recipe(request.network, name), weights=start,
            normalisation=case.normalisation, train_images=request.train_images or case.train_images,
            finetune_epochs=request.epochs, images=case.images, chips=case.chips, noise=case.noise,
            machine=request.machine,
        )  # fmt: skip
        command = ["crossloom", "reproduce", "together", "--network", request.network]
        found[name] = run(config, folder / name, fresh=request.fresh, command=command, progress=request.progress)
    return found


def rows(name: str, result: Result, device: str) -> list[Row]:
    """What a run came to, as rows."""
    epochs = sum(step.epochs for step in result.steps)
    command = f"crossloom reproduce together --network {result.network}"

    def row(who: str, metric: str, unit: str, value: float, images: int = 0, spread: float | None = None) -> Row:
        return Row(
            table=TABLE, row=who, metric=metric, unit=unit, paper=None, ours=float(f"{value:.9g}"), spread=spread,
            budget=Budget(epochs=epochs if who == name else 0, images=images, device=device), command=command,
            config_hash=result.config_hash,
        )  # fmt: skip

    made = []
    for who, point in ((name, result.candidates[-1]), (f"{name}, before", result.candidates[0])):
        made.append(row(who, "accuracy, integer", "%", 100 * point.accuracy, point.images))
        made.append(row(who, "crossbars", "arrays", point.crossbars))
        made.append(row(who, "area", "m²", point.area_m2))
        made.append(row(who, "energy an image", "J", point.energy_j))
        made.append(row(who, "latency", "s", point.latency_s))
    for point in result.candidates[1:-1]:
        made.append(row(name, f"accuracy, integer, after {point.name}", "%", 100 * point.accuracy, point.images))
    for rung, spread in result.chips.items():
        metric = f"accuracy, {rung}, mean of {len(spread.values)} chips"
        made.append(row(name, metric, "%", 100 * spread.mean, spread.images, round(100 * spread.std, 6)))
    for noisy in result.noise:
        metric = f"accuracy, analog, programming variation {noisy.sigma:g}"
        made.append(row(name, metric, "%", 100 * noisy.mean, noisy.images, round(100 * noisy.std, 6)))
    return made


def make(request: Request) -> ResultsFile:
    """All rows."""
    device = computed_on(environment(request.machine))
    found = results(request)
    made = tuple(row for name, result in found.items() for row in rows(name, result, device))
    return ResultsFile(paper=TOGETHER.paper, title=TOGETHER.title, network=request.network, rows=made)


TOGETHER = Reproduction(
    paper="together",
    title="The methods of the four papers alone and together on one network (ours)",
    networks=tuple(CASES),
    rows="accuracy, crossbars, area, energy, latency and accuracy under noise of five recipes on one chip",
    make=make,
    options=("epochs", "train_images"),
)
