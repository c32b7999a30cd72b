"""What ADMM's papers report, and the structures and epochs with which we go for it.

Published numbers: Yuan et al., ISLPED 2019, arXiv 1908.11691 (ratios, accuracies, 5-bit power and area), and Ma et al.,
ASP-DAC 2020, arXiv 1908.10017 (with purification). The abstract of arXiv 1912.05416 (the SOT-MRAM engine) gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crossloom.errors import InputError
from crossloom.methods.constraints import Groups, constraint
from crossloom.methods.patterns import by_pattern
from crossloom.training import TrainingConfig
from crossloom.training.augment import Augment

Sets = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Point:
    """One ratio of one network.

    Attributes:
        name: of the row.
        ratio: weights of the network over weights kept, as published.
        accuracy: per cent after pruning, as published.
        bits: published accuracy by weight bits, per cent; None where there is none.
        sets: structures by layer-name pattern; shares are of the unpruned network.
        purify: (few, weak) of `crossloom.methods.purification.Flow.purify`; None where the paper has none.
    """

    name: str
    ratio: float
    accuracy: float
    bits: dict[int, float | None]
    sets: Sets
    purify: tuple[float, float] | None = None


@dataclass(frozen=True)
class Recipe:
    """How a network is taken through its points, one after another.

    Attributes:
        title: of the network, for rows.
        data: name of the data set.
        points: from mild to strong; each starts where the one before ended.
        prune, retrain: epochs of ADMM and of masked retraining at the first bit width, by point.
        requantise: epochs at every further bit width.
        prune_training, retrain_training: optimiser and rates; restarted by ADMM in every period.
        rho: the penalty's schedule.
        every: epochs between updates.
        share: of the loss that distillation from the float network has.
        power, area: published reductions at five bits, per cent.
    """

    title: str
    data: str
    points: tuple[Point, ...]
    prune: tuple[int, ...]
    retrain: tuple[int, ...]
    requantise: int
    prune_training: TrainingConfig
    retrain_training: TrainingConfig
    rho: dict[str, float]
    every: float
    share: float
    power: float
    area: float
    overrides: tuple[str, ...] = field(
        default=(
            "array.rows=32", "array.columns=32", "array.active_rows=32", "array.columns_per_adc=32", "array.b_adc=6",
        )
    )  # fmt: skip
    """Hardware fields of the engine to change: arrays of 32 × 32, whose counts of ones take six bits."""

    def shortened(self, epochs: int | None) -> Recipe:
        """At most so many epochs of pruning, retraining and requantising a point, shared 2 : 3 : 1.

        Updates move together as pruning gets shorter: there are as many of them, so that ρ climbs as high.
        """
        if epochs is None:
            return self
        parts = [max(1, round(epochs * share)) for share in (2 / 6, 3 / 6, 1 / 6)]
        changed = {
            "prune": tuple(min(n, parts[0]) for n in self.prune),
            "retrain": tuple(min(n, parts[1]) for n in self.retrain),
            "requantise": min(self.requantise, parts[2]),
            "every": self.every * min(parts[0] / max(self.prune), 1),
        }
        return Recipe(**{**vars(self), **changed})

    def first(self, points: int | None) -> Recipe:
        """The first points alone; None: all.

        Raises:
            InputError: fewer than one or more than there are.
        """
        if points is None:
            return self
        if not 1 <= points <= len(self.points):
            nearest = str(min(max(points, 1), len(self.points)))
            raise InputError("--points", points, f"1 to {len(self.points)} of {self.title}'s points", nearest)
        return replace(self, points=self.points[:points])


def counted(sets: Sets, layers: Mapping[str, tuple[int, ...]]) -> Sets:
    """Sets by layer, shares of groups as counts of them in the unpruned network: later points see narrower layers.

    Args:
        sets: by layer-name pattern.
        layers: weight shapes (outputs, inputs a group, …) before pruning, by name.
    """
    found: Sets = {}
    for name, given in by_pattern("admm.sets", sets, layers).items():
        groups = [(spec, constraint(spec)) for spec in given]
        found[name] = [
            {**spec, "keep": made.kept(int(made.labels(layers[name]).max()) + 1)} if isinstance(made, Groups) else spec
            for spec, made in groups
        ]
    return found


def structured(filters: float | None, columns: float | None) -> list[dict[str, Any]]:
    """Sets that keep so many filters and filter shapes, as counts or as shares."""
    given = (("filters", filters), ("columns", columns))
    return [{"set": name, "keep": keep} for name, keep in given if keep is not None]


def lenet(conv1: tuple[int, int], conv2: tuple[int, int], ip1: tuple[int, int]) -> Sets:
    """(filters, columns) kept of LeNet-5's first three layers; the last one follows by its unused inputs."""
    return {"conv1": structured(*conv1), "conv2": structured(*conv2), "ip1": structured(*ip1)}


def vgg(early: tuple[float, float], middle: tuple[float, float], deep: tuple[float, float]) -> Sets:
    """Shares of VGG-16: convolutions of 64 and 128, of 256, and of 512 filters. The classifier follows."""
    places = {"early": (3, 7, 10), "middle": (14, 17, 20), "deep": (24, 27, 30, 34, 37, 40)}
    shares = {"early": early, "middle": middle, "deep": deep}
    return {f"features.{i}": structured(*shares[part]) for part, layers in places.items() for i in layers}


def resnet(*columns: float) -> Sets:
    """Shares of filter shapes kept in the four stages; filters follow where a shortcut lets them."""
    return {f"layer{i}.*": structured(None, share) for i, share in enumerate(columns, 1)}


MNIST = TrainingConfig(
    epochs=1, batch_size=256, optimiser="adam", lr=1e-3, weight_decay=0.0, schedule="constant",
    augment=Augment(padding=1), precision="bf16-mixed", validate_every=100, checkpoint_every=1,
)  # fmt: skip
CIFAR = TrainingConfig(
    epochs=1, lr=0.01, weight_decay=5e-4, schedule="constant", precision="bf16-mixed", validate_every=10,
)  # fmt: skip

RECIPES = {
    "lenet5-caffe": Recipe(
        "LeNet-5, MNIST", "mnist",
        (
            Point("37×", 37.06, 99.02, {8: None, 5: 98.77}, lenet((10, 20), (25, 120), (75, 100))),
            Point("105×", 105.52, 98.33, {8: None, 5: 98.23}, lenet((6, 18), (14, 80), (32, 72))),
            Point("231×, purified", 231.8, 98.48, {8: None, 5: None}, lenet((4, 16), (10, 48), (18, 56)), (0.2, 0.2)),
        ),
        (2, 2, 2), (6, 9, 10), 2, MNIST, MNIST.updated(lr=2e-3),
        {"start": 1e-2, "factor": 2.0, "limit": 0.9}, 0.25, 0.0, 96.96, 93.97,
    ),
    "vgg16": Recipe(
        "VGG-16, CIFAR-10", "cifar10",
        (
            Point("9.3×", 9.31, 93.76, {8: None, 5: 93.26}, vgg((0.8, 0.6), (0.7, 0.4), (0.5, 0.14))),
            Point("29.8×", 29.81, 93.36, {8: None, 5: 91.21}, vgg((0.7, 0.45), (0.5, 0.25), (0.25, 0.06))),
            Point(
                "44.7×, purified", 44.67, 93.36, {8: None, 5: None}, vgg((0.65, 0.4), (0.45, 0.2), (0.2, 0.045)),
                (0.1, 0.1),
            ),
        ),
        (24, 24, 16), (60, 60, 60), 20, CIFAR, CIFAR.updated(lr=0.02),
        {"start": 1e-3, "factor": 1.5, "limit": 0.5}, 1.0, 0.5, 98.38, 98.28,
    ),
    "resnet18-cifar": Recipe(
        "ResNet-18, CIFAR-10", "cifar10",
        (
            Point("11.8×", 11.75, 93.79, {8: None, 5: 92.92}, resnet(0.5, 0.25, 0.12, 0.055)),
            Point("20.9×", 20.88, 93.20, {8: None, 5: 92.44}, resnet(0.35, 0.15, 0.07, 0.03)),
            Point("52.1×, purified", 52.07, 93.79, {8: None, 5: None}, resnet(0.18, 0.065, 0.028, 0.01), (0.1, 0.1)),
        ),
        (24, 24, 16), (60, 60, 60), 20, CIFAR, CIFAR.updated(lr=0.02),
        {"start": 1e-3, "factor": 1.5, "limit": 0.5}, 1.0, 0.5, 96.95, 97.46,
    ),
}  # fmt: skip
