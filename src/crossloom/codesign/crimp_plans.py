"""How CRIMP's networks are trained, and the paper's numbers for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from crossloom.codesign.crimp_recipe import CrimpRecipe
from crossloom.methods.cell_draws import ArrayCells
from crossloom.training import TrainingConfig, recipe


@dataclass(frozen=True)
class Noise:
    """Under what a network is hardened or measured.

    Attributes:
        epsilon: ε of programming variation.
        faults: whether cells are stuck (9.04 % at HRS, 1.75 % at LRS).
    """

    epsilon: float
    faults: bool = True

    def cells(self, cells: ArrayCells) -> ArrayCells:
        """The array with these cells."""
        return replace(cells, epsilon=self.epsilon) if self.faults else replace(
            cells, epsilon=self.epsilon, stuck_hrs=0.0, stuck_lrs=0.0
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{'stuck-at faults and ' if self.faults else ''}ε = {self.epsilon:g}"


@dataclass(frozen=True)
class Plan:
    """How one network is trained, and what the paper says of it.

    Attributes:
        row: the network in the paper's words.
        recipe: CRIMP's training.
        float_training: of the float network; None: published weights.
        normalisation: of the input, by name; None: the data set's own.
        sparsity: the paper's, in per cent of the crossbars.
        pruned: the paper's accuracy, pruned and quantised, %.
        noisy: the paper's accuracies with noise of the pruned network, %.
        dense: those of the network that is not pruned.
        adapted: accuracy against ε, hardened for that ε, % ({} where the paper has no curve).
        unadapted: accuracy against ε of the network that is not hardened.
        heights: accuracy against (array rows, ε).
        longer: times `recipe.harden_epochs` that networks for chips with copies in idle rows are hardened (ours); None:
            not made, because few of the layers leave half the rows of an array idle.
    """

    row: str
    recipe: CrimpRecipe
    float_training: TrainingConfig | None
    normalisation: str | None
    sparsity: float
    pruned: float
    noisy: dict[Noise, float]
    dense: dict[Noise, float]
    adapted: dict[float, float | None]
    unadapted: dict[float, float | None]
    heights: dict[tuple[int, float], float | None]
    longer: int | None = None

    def within(self, epochs: int) -> Plan:
        """The same in about `epochs` epochs in all: the phases shortened alike."""
        given = self.float_training.epochs if self.float_training else 0
        share = epochs / (given + 2 * self.recipe.prune_epochs + self.recipe.harden_epochs)
        made = [max(round(e * share), 1) for e in (self.recipe.prune_epochs, self.recipe.harden_epochs)]
        return replace(
            self,
            recipe=replace(self.recipe, prune_epochs=made[0], harden_epochs=made[1]),
            float_training=self.float_training and self.float_training.updated(epochs=max(round(given * share), 1)),
        )

    def changed(self, change: Callable[[TrainingConfig], TrainingConfig]) -> Plan:
        """The same with every training changed by a function."""
        return replace(
            self,
            recipe=replace(self.recipe, training=change(self.recipe.training)),
            float_training=self.float_training and change(self.float_training),
        )


MNIST = recipe("lenet5-caffe", "mnist").updated(
    epochs=16, lr=2e-3, threads=1, channels_last=True, precision="bf16-mixed", validate_every=4
)
"""LeNet-5 in float: the reference recipe at a higher rate, in the arithmetic that is fastest on a CPU with AMX."""

CIFAR = recipe("vgg16", "cifar10").updated(precision="bf16-mixed", validate_every=10)
FINE = CIFAR.updated(lr=0.02, warmup=0.02)

CODE: dict[str, Any] = {
    "cells": ArrayCells(encoding="differential"), "bits": 7, "per_channel": True, "weight_step": "nearest",
    "weight_reach": 1.5,
}  # fmt: skip
"""Weights in sign and 6 bits of magnitude, 3 + 3 cells, one shift per output channel. Of the codes tried it suffers
least: in the offset code a weight of 0 is stored as 128, so that every weight of a layer loses half its range to one
stuck cell, and the network does not train through stuck-at faults; in 8 bits of sign and magnitude the top cell holds
one bit, and stuck at the top level it reads 1.5 times the largest weight. Weights above 1.5 times the mean |w| are
clipped: they fill the range, and a stuck digit weighs less beside them."""

PLANS: dict[str, Plan] = {
    "lenet5-caffe": Plan(
        row="LeNet-5, MNIST",
        recipe=CrimpRecipe(
            MNIST.updated(lr=2e-3, batch_size=256, validate_every=100), prune_epochs=3, harden_epochs=12,
            keep_kernels=0.1, keep_arrays=9, **CODE,
        ),
        float_training=MNIST, normalisation="unit", sparsity=94.89, pruned=98.90,
        noisy={Noise(0.1): 98.60, Noise(0.5): 97.31}, dense={Noise(0.1): 99.15, Noise(0.5): 98.90},
        adapted={0.1: 98.6, 0.3: 98.05, 0.5: 97.31, 1.0: 96.0, 1.4: 92.6},
        unadapted={0.1: 97.8, 0.3: 95.45, 0.5: 93.1, 0.8: 90.54},
        heights={(32, 0.5): 98.1, (64, 0.5): None, (128, 0.5): 97.31, (256, 0.5): 96.8}, longer=3,
    ),
    "vgg16": Plan(
        row="VGG-16, CIFAR-10",
        recipe=CrimpRecipe(FINE, prune_epochs=80, harden_epochs=20, keep_kernels=0.5, keep_arrays=665, **CODE),
        float_training=CIFAR.updated(epochs=160), normalisation=None, sparsity=88.25, pruned=93.71,
        noisy={Noise(0.1): 91.09, Noise(0.1, False): 93.20, Noise(0.5, False): 90.31}, dense={}, adapted={},
        unadapted={0.1: None}, heights={},
    ),
    "resnet56": Plan(
        row="ResNet-56, CIFAR-10",
        recipe=CrimpRecipe(
            FINE.updated(weight_decay=1e-4), prune_epochs=80, harden_epochs=20, keep_kernels=0.8, keep_arrays=241,
            **CODE,
        ),
        float_training=None, normalisation=None, sparsity=51.36, pruned=93.18,
        noisy={Noise(0.1): 92.08, Noise(0.1, False): 93.18, Noise(0.5, False): 91.88}, dense={}, adapted={},
        unadapted={0.1: None}, heights={},
    ),
}  # fmt: skip
"""The trainings. LeNet-5's epochs are what reaches the paper's rows in minutes of CPU time (the paper: 200); VGG-16 and
ResNet-56 follow the paper's 160 epochs of pruning, and 20 more through the simulator."""
