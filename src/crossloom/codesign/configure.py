"""`configure`: a full run's configuration from few choices."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crossloom.codesign.config import HardwareChoice, Machine, NetworkChoice, RunConfig, WeightsFile, file_sha256
from crossloom.codesign.plugins import data_names, default_data
from crossloom.codesign.recipe import Recipe
from crossloom.compiled import RUNGS, Rung, quantisation_for
from crossloom.errors import InputError
from crossloom.frontend import QuantisationConfig
from crossloom.hardware import load
from crossloom.training import DATASET_RECIPES, NORMALISATIONS, PRETRAINED, TrainingConfig
from crossloom.training import recipe as reference
from crossloom.training.networks import find

DEFAULT_HARDWARE = "crimp-isaac"
"""The chip that is taken where none is named."""

FINE_TUNING_SHARE = 0.25
"""Epochs of quantisation-aware fine-tuning after training from scratch, as a share of the float epochs."""

FINE_TUNING_RATE = 0.1
"""Peak learning rate of fine-tuning, as a share of the float training's."""


def _recipe(network: str, data: str) -> TrainingConfig:
    """The reference recipe; the plain defaults for a data set of another package."""
    return reference(network, data) if data in DATASET_RECIPES else TrainingConfig()


def fine_tuning_after(training: TrainingConfig) -> TrainingConfig:
    """Quantisation-aware fine-tuning that goes with a float training: shorter, gentler, without warm-up."""
    epochs = max(1, math.ceil(FINE_TUNING_SHARE * training.epochs))
    return training.updated(epochs=epochs, lr=training.lr * FINE_TUNING_RATE, warmup=0.0)


def configure(
    network: str = "lenet5",
    data: str | None = None,
    hardware: str | os.PathLike[str] | None = None,
    *,
    overrides: Iterable[str] = (),
    weights: str | os.PathLike[str] | None = None,
    normalisation: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    finetune_epochs: int | None = None,
    train_images: int | None = None,
    rungs: Iterable[Rung] = RUNGS,
    images: Mapping[Rung, int] | None = None,
    chips: int | None = None,
    noise: Iterable[float] = (),
    quantisation: QuantisationConfig | None = None,
    training: TrainingConfig | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    machine: Machine | None = None,
) -> RunConfig:
    """A full configuration from few choices: the rest comes from the network's recipe and from what the chip asks for.

    Args:
        network: name of the network.
        data: name of the data set; default the network's usual one.
        hardware: preset or hardware file; default the recipe's, else `DEFAULT_HARDWARE`.
        overrides: hardware fields to change, `array.b_adc=6`.
        weights: trained weights; there is no float training then unless `epochs` or `training` asks for it.
        normalisation: of the input; default that of the weights if they are known ones, else the data set's own.
        seed: of everything random.
        epochs: of float training, in place of the recipe's; with `weights` it goes on from them.
        finetune_epochs: of quantisation-aware fine-tuning, 0 for none; default a quarter of the float epochs,
            none without float training. With a recipe: of all its steps together; default as it says.
        train_images: training images used; default all.
        rungs: to measure.
        images: test images per rung; default all.
        chips: how many, on the rungs where each has its own cells; given, the analog rung is among the rungs.
        noise: strengths of programming variation to measure the analog rung at.
        quantisation: in place of what the chip asks for.
        training: in place of the network's reference recipe.
        recipe: what to do to the network: a ready one's name, a YAML file, or a `Recipe`.
        machine: where to compute.

    Raises:
        InputError: an unknown name, a missing file, a value out of range.
    """
    find(network)
    data = data or default_data(network)
    if data not in data_names():
        raise InputError.choice("data", data, data_names())
    if normalisation is not None and normalisation not in NORMALISATIONS:
        raise InputError.choice("normalisation", normalisation, NORMALISATIONS)
    if recipe is not None and not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    if hardware is None:
        hardware = (recipe.hardware if recipe else None) or DEFAULT_HARDWARE
    overrides = (*(recipe.set if recipe else ()), *overrides)
    chip = load(hardware, overrides)
    rungs, noise = tuple(rungs), tuple(noise)
    if (chips is not None or noise) and "analog" not in rungs:
        rungs = (*rungs, "analog")
    measured: dict[str, Any] = {"chips": chips} if chips is not None else {}
    measured |= {"noise": noise} if noise else {}
    base = (training or _recipe(network, data)).updated(seed=seed)
    if epochs is not None:
        base = base.updated(epochs=epochs)
    file = None
    trains = weights is None or epochs is not None or training is not None
    finetuning = fine_tuning_after(base)
    if weights is not None:
        file = WeightsFile(path=str(weights), sha256=file_sha256(weights))
        known = next((p for p in PRETRAINED if p.file == Path(weights).name and p.network == network), None)
        normalisation = normalisation or (known.normalisation if known else None)
    if finetune_epochs is not None and finetune_epochs < 0:
        raise InputError("finetune_epochs", finetune_epochs, "0 or more")
    if recipe is not None:
        recipe = recipe if finetune_epochs is None else recipe.within(finetune_epochs)
        finetuning, finetune_epochs = base, base.epochs
    wanted = finetune_epochs if finetune_epochs is not None else finetuning.epochs if trains else 0
    return RunConfig.from_plain(
        {
            "network": NetworkChoice(name=network, weights=file),
            "data": {"name": data, "normalisation": normalisation, "train_images": train_images},
            "hardware": HardwareChoice(name=os.fspath(hardware), overrides=tuple(overrides), hash=chip.hash),
            "quantisation": quantisation or quantisation_for(chip),
            "training": base if trains else None,
            "finetuning": finetuning.updated(epochs=wanted) if wanted else None,
            "seed": seed,
            "evaluation": {"rungs": rungs, "images": dict(images or {}), **measured},
            "recipe": None if recipe is None else recipe.plain(),
            "machine": machine or Machine(),
        }
    )
