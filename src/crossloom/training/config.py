"""How to train: one typed record, and the recipes that ship with the reference networks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crossloom.errors import InputError
from crossloom.training.augment import Augment


class TrainingConfig(BaseModel):
    """Everything that decides the weights a training run ends with, but for network and data."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    epochs: int = Field(default=20, ge=1)
    """Passes over the training images. Typical: 5 to 20 for MNIST, 160 to 200 for CIFAR."""

    batch_size: int = Field(default=128, ge=1)
    """Images per optimiser step, on each device."""

    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    """`sgd` with Nesterov momentum; `adam` with decay added to the gradient; `adamw` with decay apart from it."""

    lr: float = Field(default=0.1, gt=0)
    """Peak learning rate. Typical: 0.05 to 0.1 for sgd, 1e-3 to 2e-3 for adam."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd; for adam and adamw the first of the two betas (the second is 0.999)."""

    weight_decay: float = Field(default=5e-4, ge=0)
    """Decay of weights of two or more dimensions. Biases, norms and quantiser steps are never decayed."""

    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate over the run, changed at every optimiser step: half a cosine to zero (Loshchilov and Hutter, ICLR
    2017), drops by `gamma` at the `milestones`, or none."""

    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    """Where `step` drops the rate, as fractions of the run, each between 0 and 1."""

    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor of each drop of `step`."""

    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the run over which the rate first rises linearly from zero."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target probability that is spread over all classes (Szegedy et al., CVPR 2016)."""

    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest 2-norm of the whole gradient; none if absent."""

    augment: Augment | Literal["default"] | None = "default"
    """Changes of training images: what the data set says, a choice of your own, or none."""

    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    """Arithmetic of forward and backward pass. `bf16-mixed` keeps float32 weights; `16-mixed` needs a GPU."""

    channels_last: bool = True
    """Keep images and convolution weights with channels innermost, which CPU and GPU kernels prefer."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to train; `auto` takes a GPU if there is one."""

    devices: int = Field(default=1, ge=1)
    """GPUs or processes to share each step between (Lightning's DDP when above 1)."""

    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch during training; as the process has them if absent. Bits may depend on it."""

    deterministic: bool = False
    """On a GPU, take only kernels that give the same bits every time (slower); a CPU gives the same bits anyway."""

    validate_every: int = Field(default=1, ge=1)
    """Epochs between measurements on the test images, for the log alone: no choice is ever made by them."""

    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs between checkpoints; one is also written before the first epoch and after the last."""

    seed: int = Field(default=0, ge=0)
    """Of image order, augmentation and dropout. Initial weights have their own, see `build_network`."""

    def updated(self, **changes: Any) -> TrainingConfig:
        """A copy with some fields changed, checked like the original.

        Raises:
            InputError: an unknown field (the nearest is suggested) or a value outside its range.
        """
        for name in changes:
            if name not in TrainingConfig.model_fields:
                raise InputError.choice("training", name, TrainingConfig.model_fields)
        try:
            return TrainingConfig.model_validate(self.model_dump() | changes)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(["training", *map(str, first["loc"])])
            raise InputError(where, first["input"], first["msg"]) from error


SMALL = TrainingConfig(
    epochs=12, optimiser="adam", lr=2e-3, weight_decay=0.0, warmup=0.05, channels_last=False, threads=1
)
"""For networks so small that a second thread and another memory order cost more than they save."""

CIFAR = TrainingConfig(epochs=160, lr=0.1, weight_decay=5e-4, warmup=0.02)
"""For networks with batch norm on photographs: the usual 160 epochs of sgd (He et al., CVPR 2016) with a cosine."""

DATASET_RECIPES: dict[str, TrainingConfig] = {
    "digits": SMALL.updated(epochs=16, batch_size=32),
    "mnist": SMALL,
    "fashion-mnist": SMALL.updated(epochs=20),
    "cifar10": CIFAR,
    "cifar100": CIFAR,
}
"""What each data set is trained with where `RECIPES` has nothing for the network."""

ALEXNET: dict[str, Any] = {"optimiser": "adamw", "lr": 3e-4, "weight_decay": 0.01}
"""AlexNet has no batch norm: sgd stays at guessing for the first epochs, where steps of one size get on."""

RECIPES: dict[tuple[str, str], TrainingConfig] = {
    ("lenet5", "cifar10"): CIFAR.updated(epochs=60, lr=0.02),
    ("lenet5", "cifar100"): CIFAR.updated(epochs=60, lr=0.02),
    ("lenet5-caffe", "mnist"): SMALL.updated(epochs=10, lr=1e-3, threads=None),
    ("vgg8", "cifar10"): CIFAR.updated(lr=0.05),
    ("vgg8", "cifar100"): CIFAR.updated(lr=0.05),
    ("vgg16", "cifar10"): CIFAR.updated(lr=0.05),
    ("vgg16", "cifar100"): CIFAR.updated(lr=0.05),
    ("alexnet", "cifar10"): CIFAR.updated(epochs=100, **ALEXNET),
    ("alexnet", "cifar100"): CIFAR.updated(epochs=100, **ALEXNET),
    ("resnet20", "cifar10"): CIFAR.updated(epochs=200, weight_decay=1e-4),
    ("resnet56", "cifar10"): CIFAR.updated(epochs=200, weight_decay=1e-4),
}
"""Reference recipes of (network, data set) that differ from their data set's.

Those for digits and MNIST are held to their accuracy by the tests; those for CIFAR follow the publications' schedules,
and what they reach is stated where it has been measured, in `results/`."""


def recipe(network: str, data: str) -> TrainingConfig:
    """The reference recipe of a network on a data set: its own if it has one, else the data set's.

    Raises:
        InputError: a data set without recipe.
    """
    if data not in DATASET_RECIPES:
        raise InputError.choice("data", data, DATASET_RECIPES)
    return RECIPES.get((network, data), DATASET_RECIPES[data])
