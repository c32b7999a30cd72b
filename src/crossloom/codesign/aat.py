"""AAT's results made again: crossbars saved by training the coefficients of polynomials in place of weights.

V. Nehete et al., "Approximation-Aware Training for Efficient Neural Network Inference on MRAM Based CiM
Architecture", IEEE Open Journal of Nanotechnology 6, 2025. Only the abstract is at hand: reductions of crossbars on
CIFAR-100, of which it does not say with which orders, groups or arrays. Ours are the least-loss plans that reach them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from crossloom.codesign.aat_shapes import DATA, shape_rows
from crossloom.codesign.aat_trial import COSTS, Figures, Study
from crossloom.codesign.configure import configure
from crossloom.codesign.kept import Kept
from crossloom.codesign.machine import computed_on
from crossloom.codesign.plan_search import search, settings_of
from crossloom.codesign.plans import Plan
from crossloom.codesign.reproduce import Reproduction, Request
from crossloom.codesign.results import Budget, ResultsFile, Row
from crossloom.errors import InputError
from crossloom.frontend import calibrate
from crossloom.hardware import Chip, load
from crossloom.methods import Setting

CHIP = "crimp-isaac"
SMALL_ARRAYS = ("array.active_rows=64", "array.rows=64", "array.columns_per_adc=64", "array.columns=64")
"""LeNet-5 on 128 × 128 arrays has 13 of 26 in its last layers, one row of arrays each: 50 % is all there is to save."""


@dataclass(frozen=True)
class Published:
    """A network of the paper.

    Attributes:
        name: as the paper writes it.
        reduction: of crossbars, per cent, on CIFAR-100.
        overrides: hardware fields with which the reduction is possible at all.
    """

    name: str
    reduction: float
    overrides: tuple[str, ...] = ()


PAPER = {
    "lenet5": Published("LeNet-5", 54, SMALL_ARRAYS),
    "vgg8": Published("VGG8", 30),
    "alexnet": Published("AlexNet", 67),
    "resnet18-cifar": Published("ResNet18", 20),
}
NAMES = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
SEARCH_IMAGES = 512
"""Training images of the sensitivity pass."""
SEARCHED, VARIED, SWEEP = (
    "Least-loss plan at the paper's reduction, trained on like the dense network",
    "The plan otherwise, a quarter of the epochs",
    "Orders and groups: every layer that they fit, a quarter of the epochs",
)
SHORT = 0.25
"""Share of the dense network's second training that rows of the last two tables take."""
LOOKS = 5
"""Times that a training looks at the test images: they are more than a short one trains on."""
SWEPT = ((1, 3), (1, 5), (1, 9), (1, 16), (2, 4), (2, 6), (2, 10), (2, 16), (3, 7), (3, 13))
"""(order, n) of the figure."""
ORDERS = {1: "linear", 2: "quadratic", 3: "cubic"}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "moments rounded to 8 bits": {"growth": 0},
    "index basis": {"basis": "index"},
    "random start": {"initialisation": "random"},
}
"""The plan again with another choice of the method's, on LeNet-5."""


def make(request: Request) -> ResultsFile:
    """The rows of one network and data set."""
    rows: list[Row] = []
    if (request.data or DATA) == DATA:
        published, (_, chip) = PAPER[request.network], chip_of(request)
        said = replace(request, epochs=0, train_images=None, precision=None, limit=None).command(AAT.paper)
        rows += shape_rows(request.network, published.name, published.reduction, chip, load(CHIP), said)
    if request.epochs != 0:
        rows += trained_rows(request)
    if not rows:
        raise InputError("--epochs", 0, f"--data {DATA}, whose rows by shape need no training, or at least 1 epoch")
    return ResultsFile(paper=AAT.paper, title=AAT.title, network=request.network, rows=tuple(rows))


def chip_of(request: Request) -> tuple[tuple[str, ...], Chip]:
    """(changed fields, the chip): the paper's data set may need smaller arrays to allow its reduction."""
    overrides = PAPER[request.network].overrides if (request.data or DATA) == DATA else ()
    return overrides, load(CHIP, overrides)


def searched_plan(study: Study, reduction: float) -> Plan:
    """The least-loss plan at a reduction: sensitivity of the dense network's layers, then the integer program."""
    kept = Kept(study.folder, study.job.progress)

    def made() -> dict[str, Any]:
        module = study.converted()
        calibrate(module, study.job.calibration)
        images = min(SEARCH_IMAGES, len(study.job.data.train.labels))
        batches = list(study.job.data.calibration_loader(images, seed=study.config.seed))
        plan = search(module, batches, study.hardware, saved=reduction / 100, tick=study.progress.tick)
        return {
            "layers": {name: None if s is None else s.model_dump() for name, s in plan.layers.items()},
            "cost": plan.cost, "dense": plan.dense, "loss": plan.loss, "bound": plan.bound,
        }  # fmt: skip

    said = kept.part(f"plan-{reduction:g}", "plan search: sensitivity of every layer to every order and group", made)
    layers = {name: None if s is None else Setting(**s) for name, s in said.pop("layers").items()}
    return Plan(layers=layers, **said)


# -- trained --------------------------------------------------------------------------------------------------------


def study_of(request: Request) -> Study:
    """The dense network: trained in float, then trained on with quantisation by the same recipe.

    Trials take the second training's place, so a plan and the dense network have seen as many images at as high rates.
    """
    overrides, _ = chip_of(request)
    config = configure(
        request.network, request.data or DATA, CHIP, overrides=overrides, epochs=request.epochs,
        train_images=request.train_images, machine=request.machine,
        images={"crossbar": request.limit} if request.limit is not None else None,
    )  # fmt: skip
    assert config.training is not None
    training = request.training(config.training)
    training = training.updated(validate_every=max(training.epochs // LOOKS, 1))
    config = config.model_copy(update={"training": training, "finetuning": training})
    folder = request.runs / f"aat-{request.network}-{config.data.name}-{config.hash[:8]}"
    return Study(config, folder, request.progress, request.fresh, request.command(AAT.paper))


def trained_rows(request: Request) -> list[Row]:
    """Dense and the searched plan; for LeNet-5 the plan's variants, on MNIST the sweep of the figure as well."""
    published, data = PAPER[request.network], request.data or DATA
    study = study_of(request)
    where = f"{published.name}, {NAMES.get(data, data)}"
    plan = searched_plan(study, published.reduction)
    request.progress.note(f"plan: {described(plan.layers)}")
    rows, dense, method = Rows(request, study), study.dense, {"layers": plan.method_options()}
    rows.chip(SEARCHED, f"{where}, dense", dense, dense)
    found = study.trial("plan", method, request.limit)
    rows.chip(SEARCHED, f"{where}, plan", found, dense, published.reduction if data == DATA else None)
    rows.add(SEARCHED, f"{where}, plan", "predicted rise of the loss, untrained", "", plan.loss, epochs=0)
    for name, changes in VARIANTS.items() if request.network == "lenet5" else ():
        found = study.trial(name.replace(" ", "-"), changed(method, changes), 0, share=SHORT)
        rows.chip(VARIED, f"{where}, {name}", found, dense)
    for order, n in SWEPT if data == "mnist" else ():
        method = {"layers": uniform(study, Setting(order=order, group=n))}
        found = study.trial(f"order-{order}-group-{n}", method, 0, share=SHORT)
        rows.chip(SWEEP, f"{where}, {ORDERS[order]}, n = {n}", found, dense)
    return rows.made


def changed(method: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The method's options with some changed; fields of a setting change for every layer."""
    setting = {field: value for field, value in changes.items() if field in Setting.model_fields}
    others = {field: value for field, value in changes.items() if field not in setting}
    return {**method, **others, "layers": {name: {**s, **setting} for name, s in method["layers"].items()}}


def uniform(study: Study, setting: Setting) -> dict[str, dict[str, Any]]:
    """One setting for every layer that it fits."""
    fitting = settings_of(study.converted(), [setting])
    return {name: setting.model_dump() for name, options in fitting.items() if len(options) > 1}


def described(layers: Mapping[str, Setting | None]) -> str:
    """A plan in words."""
    words = [f"{name} {ORDERS.get(s.order, s.order)} n = {s.group}" for name, s in layers.items() if s is not None]
    return ", ".join(words) or "all dense"


class Rows:
    """Collects the rows of a study."""

    def __init__(self, request: Request, study: Study) -> None:
        self.request, self.study = request, study
        self.made: list[Row] = []

    def add(
        self, table: str, row: str, metric: str, unit: str, ours: float, *, epochs: int, images: int = 0,
        paper: float | None = None,
    ) -> None:  # fmt: skip
        """One number; `epochs` are those of the second training."""
        config, result = self.study.config, self.study.result
        assert config.training is not None
        budget = Budget(epochs=config.training.epochs + epochs, images=images, device=computed_on(result.environment))
        self.made.append(
            Row(
                table=table, row=row, metric=metric, unit=unit, paper=paper, ours=float(f"{ours:.7g}"), spread=None,
                budget=budget, command=self.request.command(AAT.paper), config_hash=config.hash,
            )
        )  # fmt: skip

    def chip(self, table: str, row: str, found: Figures, dense: Figures, paper: float | None = None) -> None:
        """Everything measured of a chip, beside the dense one."""
        add, images = partial(self.add, table, row, epochs=found["epochs"]), found["images"]
        exact = 100 * found["accuracy"]["integer"]
        add("crossbars", "arrays", found["crossbars"])
        if found is not dense:
            saved = 100 * (1 - found["crossbars"] / dense["crossbars"])
            add("reduction of crossbars", "%", saved, paper=paper)
        add("accuracy, integer", "%", exact, images=images["integer"])
        if "crossbar" in images:
            add("accuracy, crossbar", "%", 100 * found["accuracy"]["crossbar"], images=images["crossbar"])
        if found is not dense:
            drop = 100 * dense["accuracy"]["integer"] - exact
            add("drop, dense − approximated, integer", "points", drop, images=images["integer"])
        for metric, key, unit in COSTS:
            add(metric, unit, found["cost"][key])


AAT = Reproduction(
    paper="aat",
    title=(
        "V. Nehete et al., Approximation-Aware Training for Efficient Neural Network Inference on MRAM Based CiM "
        "Architecture, IEEE Open Journal of Nanotechnology 6, 2025"
    ),
    networks=tuple(PAPER),
    rows="crossbars saved by approximation at the dense network's accuracy, what the moments cost, SOT against RRAM",
    make=make,
    data="cifar100",
    options=("data", "epochs", "train_images", "precision"),
)
