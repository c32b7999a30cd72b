"""A recipe on a network of your own: a trained module, images of your own, any chip."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from crossloom.codesign.config import Machine
from crossloom.codesign.folder import locked
from crossloom.codesign.job import ACTIVITY_IMAGES
from crossloom.codesign.progress import Progress, Silent
from crossloom.codesign.recipe import Recipe
from crossloom.codesign.recipe_run import Weaving
from crossloom.codesign.record import Candidate, StepRecord
from crossloom.compiled import CompiledChip, quantisation_for
from crossloom.frontend import QuantisationConfig
from crossloom.hardware import Chip, load
from crossloom.training import DataSet, TrainingConfig

CALIBRATION_IMAGES = 512


@dataclass(frozen=True)
class Woven:
    """What a recipe made of a network.

    Attributes:
        chip: compiled: to simulate, cost and save.
        steps: what each step came to.
        candidates: the dense network and what each step left, all on this chip.
    """

    chip: CompiledChip
    steps: list[StepRecord]
    candidates: list[Candidate]


def codesign(
    model: nn.Module,
    data: DataSet,
    recipe: Recipe | str | os.PathLike[str],
    hardware: str | os.PathLike[str] | Chip | None = None,
    *,
    folder: str | os.PathLike[str],
    training: TrainingConfig | None = None,
    quantisation: QuantisationConfig | None = None,
    machine: Machine | None = None,
    progress: Progress | None = None,
) -> Woven:
    """Do a recipe on a trained module; the same call goes on where it stopped.

    Args:
        model: trained in float: images [B, C, H, W] → logits [B, classes]. It is not changed.
        data: what to train, calibrate and test on.
        recipe: a ready one's name, a YAML file, or a `Recipe`.
        hardware: a preset's name, a hardware file, or a `Chip`; default the recipe's chip.
        folder: where the steps are kept. Another model, recipe or chip needs another folder.
        training: what the steps' schedules start from; default `TrainingConfig()`.
        quantisation: bits and ranges before the first step; default what the chip asks for.
        machine: where to compute.
        progress: who watches.

    Raises:
        InputError: the recipe cannot work on this network or chip; nothing was trained.
        KeyboardInterrupt: Ctrl-C; the same call resumes.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    chip = hardware if isinstance(hardware, Chip) else load(hardware or recipe.hardware or "crimp-isaac", recipe.set)
    count = len(data.train.labels)
    activity = data.calibration_loader(min(ACTIVITY_IMAGES, count), seed=0)
    weaving = Weaving(
        recipe, model.eval(), data, chip, quantisation or quantisation_for(chip), training or TrainingConfig(),
        data.calibration_loader(min(CALIBRATION_IMAGES, count), seed=0), Path(folder), machine or Machine(),
        progress or Silent(), torch.cat([images for images, _ in activity]),
    )  # fmt: skip
    weaving.rehearse()
    with locked(Path(folder)):
        weaving.claim()
        for number in range(1, len(recipe.training) + 1):
            weaving.train(number)
        made = weaving.chip_made()
        return Woven(made, weaving.records(), [weaving.candidate(n) for n in range(len(recipe.steps) + 1)])
