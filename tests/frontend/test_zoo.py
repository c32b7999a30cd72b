"""Published architectures compile through graph capture alone; every node within one step of the quantised module."""

import pytest
import torch
from torch import Tensor, nn

from crossloom.frontend import calibrate, convert, lower
from crossloom.hardware import load
from crossloom.mapping import map_program
from tests.frontend.checks import assert_equal_within_one_step
from tests.frontend.networks import settled

SIZE = 48


def torchvision_network(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=10)


def timm_network(name: str) -> nn.Module:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    return timm.create_model(name, num_classes=10)


NETWORKS = {
    "shufflenet_v2_x0_5": torchvision_network,  # depthwise, channel shuffle, split, concatenation
    "mobilenet_v3_small": torchvision_network,  # hardswish, squeeze and excitation
    "squeezenet1_1": torchvision_network,  # concatenation, a convolution as the classifier, ceil-mode pooling
    "test_resnet": timm_network,
    "test_efficientnet": timm_network,
    "test_byobnet": timm_network,
}


def check(model: nn.Module, images: Tensor) -> None:
    module = convert(model, images[:2])
    calibrate(module, [images])
    module = module.double()
    program = lower(module, "zoo")
    assert_equal_within_one_step(module, program, images[:4].double())
    mapping = map_program(program, load("crimp-isaac"))
    rebuilt = mapping.read_back()
    for layer in program.layers:
        assert (rebuilt[layer.name] == layer.core).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks_compile(name: str) -> None:
    model = settled(NETWORKS[name](name), (3, SIZE, SIZE), rounds=2)
    check(model, torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "resnext50_32x4d", "mobilenet_v2", "densenet121", "regnet_x_400mf", "mnasnet0_5", "vgg11_bn"]
)
def test_larger_torchvision_networks_compile(name: str) -> None:
    model = settled(torchvision_network(name), (3, SIZE, SIZE), rounds=2)
    check(model, torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repvgg_a0", "resnet50d", "tf_efficientnet_lite0", "darknet53", "vovnet39a", "dla34"])
def test_larger_timm_networks_compile(name: str) -> None:
    model = settled(timm_network(name), (3, SIZE, SIZE), rounds=2)
    check(model, torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)))
