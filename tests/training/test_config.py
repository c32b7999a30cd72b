"""Configurations: every field explained and checked, recipes for what ships."""

import math

import pytest
from pydantic import ValidationError

from crossloom.errors import InputError
from crossloom.training import DATASET_RECIPES, NETWORKS, RECIPES, SOURCES, Augment, TrainingConfig, recipe


@pytest.mark.parametrize("model", [TrainingConfig, Augment])
def test_every_field_is_documented(model):
    for name, field in model.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("changes", "field", "nearest"),
    [
        ({"learning_rate": 0.1}, "training", None),
        ({"epoch": 3}, "training", "epochs"),
        ({"epochs": 0}, "training.epochs", None),
        ({"lr": float("nan")}, "training.lr", None),
        ({"optimiser": "adamax"}, "training.optimiser", None),
        ({"augment": {"padding": -1}}, "training.augment.Augment.padding", None),
        ({"threads": 0}, "training.threads", None),
        ({"milestones": (0.5, 1.5)}, "training.milestones.1", None),
    ],
)
def test_wrong_values_name_the_field(changes, field, nearest):
    with pytest.raises(InputError) as caught:
        TrainingConfig().updated(**changes)
    assert caught.value.field == field
    if nearest:
        assert caught.value.nearest == nearest


def test_a_configuration_survives_json():
    config = TrainingConfig(augment=Augment(padding=3, flip=True), milestones=(0.3, 0.6), threads=2)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate({"epochs": 2, "unknown": 1})


def test_every_data_set_has_a_recipe_and_every_recipe_is_for_something_that_exists():
    assert set(DATASET_RECIPES) == set(SOURCES)
    for network, data in RECIPES:
        assert network in NETWORKS
        assert data in SOURCES
        assert RECIPES[network, data] != DATASET_RECIPES[data]
        assert recipe(network, data) is RECIPES[network, data]
    assert recipe("timm:resnet18", "cifar10") is DATASET_RECIPES["cifar10"]
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        recipe("lenet5", "mnits")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, [1.0] * 9),
        ({"schedule": "cosine"}, [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]),
        ({"schedule": "step", "milestones": (0.25, 0.75), "gamma": 0.5}, [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]),
        ({"schedule": "constant", "warmup": 0.25}, [1 / 3, 2 / 3] + [1.0] * 7),
        (
            {"schedule": "cosine", "warmup": 0.5},
            [0.2, 0.4, 0.6, 0.8] + [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(5)],
        ),
    ],
)
def test_learning_rate_over_eight_steps(changes, expected):
    from crossloom.training.trainer import rate

    config = TrainingConfig().updated(**changes)
    assert [rate(config, step, 8) for step in range(9)] == pytest.approx(expected)
