"""Real networks: the crossbars that the papers' networks need, and how long an estimate takes."""

from __future__ import annotations

import time

import pytest

from crossloom.cost import estimate
from crossloom.cost.validation.programs import program
from crossloom.hardware import load
from crossloom.mapping import map_program


@pytest.mark.parametrize(
    ("name", "shape", "classes", "layers", "classifier"),
    [
        ("lenet5-caffe", (1, 28, 28), 10, 121, 4),
        ("resnet56", (3, 8, 8), 10, 266, 1),
        ("vgg16", (3, 32, 32), 10, 3596, 4),
        ("resnet18", (3, 32, 32), 1000, 2736, 128),
    ],
)
def test_crossbars_of_the_papers_networks(
    name: str, shape: tuple[int, int, int], classes: int, layers: int, classifier: int
) -> None:
    """CRIMP's chip: ⌈C_out / 32⌉ · ⌈k²·C_in / 128⌉ arrays a layer.

    Of the image's size only VGG-16's and LeNet-5's first fully connected layer take notice, so the ResNets see small
    ones here.
    """
    found = estimate(map_program(program(name, classes, shape), load("crimp-isaac")))
    woven = [layer for layer in found.layers if layer.kind == "woven"]
    assert (sum(layer.crossbars for layer in woven[:-1]), woven[-1].crossbars) == (layers, classifier)
    assert found.crossbars == layers + classifier
    for layer in woven:
        assert layer.crossbars == -(-layer.columns // 32) * -(-layer.rows // 128)


@pytest.mark.parametrize("hardware", ["crimp-isaac", "neurosim-rram"])
def test_vgg8_is_estimated_in_a_fifth_of_a_second(hardware: str) -> None:
    """After compilation; the best of five, as other work on the machine only ever adds."""
    mapping = map_program(program("vgg8", 10, (3, 32, 32)), load(hardware))
    estimate(mapping)
    best = float("inf")
    for _ in range(5):
        mapping.__dict__.pop("arrays", None)
        start = time.process_time()
        estimate(mapping)
        best = min(best, time.process_time() - start)
    assert best < 0.2
