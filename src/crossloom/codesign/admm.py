"""ADMM's rows: structured pruning and quantisation for the SOT-MRAM AND engine, and the engine before and after.

`crossloom reproduce admm --network lenet5-caffe` takes minutes on a CPU, from published weights; for the others
`--epochs 6` cuts the float training and every point to so many epochs.
"""

from __future__ import annotations

from collections.abc import Iterator

from crossloom.codesign.admm_course import AdmmCourse
from crossloom.codesign.admm_engine import ENGINE, compared
from crossloom.codesign.admm_points import RECIPES, Point, Recipe
from crossloom.codesign.evaluation import outputs
from crossloom.codesign.folder import locked
from crossloom.codesign.job import activity_images
from crossloom.codesign.machine import check, computed_on, environment, threads
from crossloom.codesign.plugins import open_data
from crossloom.codesign.reproduce import Reproduction, Request, published_weights
from crossloom.codesign.results import Budget, ResultsFile, Row
from crossloom.compiled import CompiledChip, Rung
from crossloom.hardware import load

PRUNED = "Structured pruning and quantisation"
ENGINES = "The AND engine before and after, arrays of 32 × 32"
CROSSBAR_IMAGES = 1000
"""Test images on the crossbar rung unless the request says otherwise."""


def make(request: Request) -> ResultsFile:
    """The rows of one network."""
    check(request.machine)
    recipe = RECIPES[request.network].shortened(request.epochs).first(request.points)
    weights, data = None, open_data(recipe.data, request.machine.data_dir, request.machine.download)
    if request.network == "lenet5-caffe":
        weights, known = published_weights(request)
        data = data.normalised(known.normalisation)
    elif request.weights is not None:
        weights = request.weights
    if request.train_images is not None:
        data = data.subset(request.train_images, 0)
    with threads(request.machine.threads), locked(request.runs / f"{ADMM.paper}-{request.network}"):
        course = AdmmCourse(recipe, request, data, load(ENGINE, recipe.overrides), weights)
        rows = list(_rows(course, recipe, request))
    return ResultsFile(paper=ADMM.paper, title=ADMM.title, network=request.network, rows=tuple(rows))


def _rows(course: AdmmCourse, recipe: Recipe, request: Request) -> Iterator[Row]:
    """Every point at every bit width, and the engine for each."""
    said = request.command(ADMM.paper)
    device = computed_on(environment(request.machine))
    images = activity_images(course.data, 0)

    def row(
        table: str, name: str, metric: str, unit: str, paper: float | None, ours: float,
        epochs: int, tried: int, key: str,
    ) -> Row:  # fmt: skip
        return Row(
            table=table, row=name, metric=metric, unit=unit, paper=paper, ours=float(f"{ours:.6g}"), spread=None,
            budget=Budget(epochs=epochs, images=tried, device=device), command=said, config_hash=key,
        )  # fmt: skip

    def accuracy(chip: CompiledChip, rung: Rung, key: str, limit: int | None = None) -> tuple[float, int]:
        found = outputs(
            chip, rung, course.data, limit, path=course.folder / "logits" / f"{key[:10]}-{rung}.safetensors",
            tick=request.progress.tick,
        )  # fmt: skip
        return 100 * found.accuracy, found.images

    base = f"{recipe.title}: before pruning"
    value, tried = accuracy(course.dense_chip, "integer", course.key)
    yield row(PRUNED, base, "accuracy, integer, 8-bit weights", "%", None, value, 0, tried, course.key)
    yield row(PRUNED, base, "crossbars of 32 × 32", "arrays", None, course.dense_chip.crossbars, 0, 0, course.key)
    for reached in course.run():
        point, name = reached.point, f"{recipe.title}: {reached.point.name}, {reached.bits}-bit"
        common = (reached.epochs, 0, reached.key)
        yield row(PRUNED, name, "weights over weights stored", "", point.ratio, reached.stored_ratio, *common)
        yield row(PRUNED, name, "weights over weights not zero", "", None, reached.ratio, *common)
        value, tried = accuracy(reached.chip, "integer", reached.key)
        paper = _published(point, reached.bits)
        yield row(PRUNED, name, "accuracy, integer", "%", paper, value, reached.epochs, tried, reached.key)
        value, tried = accuracy(reached.chip, "crossbar", reached.key, request.limit or CROSSBAR_IMAGES)
        yield row(PRUNED, name, "accuracy, crossbar", "%", None, value, reached.epochs, tried, reached.key)
        yield row(PRUNED, name, "crossbars of 32 × 32", "arrays", None, reached.chip.crossbars, *common)
        if reached.residuals is not None and reached.bits == max(point.bits):
            for when, residual in zip(("first", "last"), reached.residuals, strict=True):
                metric = f"primal residual, {when} update"
                yield row(PRUNED, name, metric, "", None, residual, *common)
        for technology, found in compared(course.dense_chip, reached.chip, recipe.overrides, images).items():
            if reached.bits != 5:
                break
            for figure in found:
                of = f"{name}, {technology} cells"
                yield row(ENGINES, of, f"{figure.metric}, dense 8-bit", figure.unit, None, figure.dense, *common)
                yield row(ENGINES, of, figure.metric, figure.unit, None, figure.sparse, *common)
            if technology == "SOT-MRAM":
                by_metric = {f.metric: f for f in found}
                for metric, published in (("power at the dense network's rate", recipe.power), ("area", recipe.area)):
                    saved = 100 * (1 - by_metric[metric].sparse / by_metric[metric].dense)
                    yield row(ENGINES, of, f"saved: {metric}", "%", published, saved, *common)


def _published(point: Point, bits: int) -> float | None:
    """The accuracy to hold against: the paper's at these bits, or that after pruning alone where it has none."""
    there = point.bits.get(bits)
    return point.accuracy if there is None else there


ADMM = Reproduction(
    paper="admm",
    title=(
        "L. Yuan et al., A SOT-MRAM-based Processing-In-Memory Engine for Highly Compressed DNN Implementation, "
        "arXiv 1912.05416, with the tables of its sister papers (ISLPED 2019, ASP-DAC 2020)"
    ),
    networks=tuple(RECIPES),
    rows="pruned and quantised accuracies, crossbars, and the AND engine with SOT, STT, ReRAM and SRAM cells",
    make=make,
    options=("epochs", "train_images", "precision", "points"),
)
