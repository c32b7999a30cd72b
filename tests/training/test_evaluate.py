"""Accuracy is a count of right answers."""

import pytest
import torch
from torch import nn

from crossloom.training import evaluate


def test_accuracy_equals_a_loop_over_images():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(57, 1, 4, 4, generator=generator), torch.randint(0, 5, (57,), generator=generator)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    right = sum(
        int(network(image[None])[0].argmax()) == int(label) for image, label in zip(images, labels, strict=True)
    )
    batches = list(zip(images.split(10), labels.split(10), strict=True))
    assert evaluate(network, batches) == right / 57


def test_the_network_runs_in_evaluation_mode_and_keeps_its_modes():
    network = nn.Sequential(nn.Dropout(0.99), nn.BatchNorm2d(1), nn.Flatten())
    network.train()
    network[1].eval()
    statistics = network[1].running_mean.clone()
    images = torch.eye(8).reshape(8, 1, 8, 1) + 1.0
    assert evaluate(network, [(images, torch.arange(8))]) == 1.0
    assert [module.training for module in network] == [True, False, True]
    assert torch.equal(network[1].running_mean, statistics)


def test_modes_come_back_after_an_error():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).train()
    with pytest.raises(RuntimeError):
        evaluate(network, [(torch.zeros(1, 7), torch.zeros(1, dtype=torch.int64))])
    assert network.training


def test_no_images_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        evaluate(nn.Linear(1, 1), [])
