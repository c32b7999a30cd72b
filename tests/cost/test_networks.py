"""Real networks: the crossbars that the papers' networks need, and how long an estimate takes."""

from __future__ import annotations

import time

import pytest
import torch

from crossloom.compiled import quantisation_for
from crossloom.cost import estimate
from crossloom.frontend import calibrate, convert, lower
from crossloom.hardware import Chip, load
from crossloom.mapping import Mapping, map_program
from crossloom.training import build_network


def placed(name: str, chip: Chip, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> Mapping:
    """An untrained network on a chip; crossbars and counts do not depend on how well it is trained."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((1, *shape), generator=generator)
    module = convert(build_network(name, classes, shape).eval(), x, quantisation_for(chip))
    calibrate(module, [x])
    return map_program(lower(module, name), chip)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "layers", "classifier"),
    [
        ("lenet5-caffe", (1, 28, 28), 10, None, None),
        ("resnet56", (3, 32, 32), 10, 266, 1),
        ("vgg16", (3, 32, 32), 10, 3596, 4),
        ("resnet18", (3, 224, 224), 1000, 2736, 128),
    ],
)
def test_crossbars_of_the_papers_networks(
    name: str, shape: tuple[int, int, int], classes: int, layers: int | None, classifier: int | None
) -> None:
    """CRIMP's chip: ⌈C_out / 32⌉ · ⌈k²·C_in / 128⌉ arrays a layer."""
    found = estimate(placed(name, load("crimp-isaac"), shape, classes))
    woven = [layer for layer in found.layers if layer.kind == "woven"]
    if layers is None:
        assert found.crossbars == 125
        return
    assert (sum(layer.crossbars for layer in woven[:-1]), woven[-1].crossbars) == (layers, classifier)
    assert found.crossbars == layers + classifier
    for layer in woven:
        assert layer.crossbars == -(-layer.columns // 32) * -(-layer.rows // 128)


@pytest.mark.parametrize("hardware", ["crimp-isaac", "neurosim-rram"])
def test_vgg8_is_estimated_in_a_fifth_of_a_second(hardware: str) -> None:
    mapping = placed("vgg8", load(hardware))
    estimate(mapping)
    best = float("inf")
    for _ in range(5):
        mapping.__dict__.pop("arrays", None)
        start = time.process_time()
        estimate(mapping)
        best = min(best, time.process_time() - start)
    assert best < 0.2
