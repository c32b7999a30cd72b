"""Reference networks: the published sizes, export with a free batch, weights from a seed alone."""

import math
import sys

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from crossloom.errors import InputError
from crossloom.training import NETWORKS, build_network, describe_networks, network_names
from crossloom.training.architectures.residual import ShortcutA

GREY, COLOUR, IMAGENET = (1, 28, 28), (3, 32, 32), (3, 224, 224)


def crossbars(network):
    """Arrays of 128 rows and 32 weight columns per matrix layer, as METHODS counts them."""
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    return [math.ceil(layer.weight.shape[0] / 32) * math.ceil(layer.weight[0].numel() / 128) for layer in layers]


@pytest.mark.parametrize(
    ("name", "classes", "shape", "layers", "classifier"),
    [
        ("lenet5", 100, COLOUR, 22, 4),
        ("lenet5-caffe", 10, GREY, 121, 4),
        ("vgg8", 100, COLOUR, 3168, 32),
        ("vgg16", 10, COLOUR, 3596, 4),
        ("alexnet", 100, COLOUR, 13924, 128),
        ("alexnet", 100, IMAGENET, 13924, 128),
        ("resnet18", 1000, IMAGENET, 2736, 128),
        ("resnet18-cifar", 100, COLOUR, 2734, 16),
        ("resnet56", 10, COLOUR, 266, 1),
    ],
)
def test_crossbars_of_the_papers(name, classes, shape, layers, classifier):
    """Totals: LeNet-5 26, LeNet-5 (Caffe) 125, VGG8 3200, AlexNet 14052, ResNet-18 CIFAR-100 2750, ResNet-56 267."""
    counts = crossbars(build_network(name, classes, shape))
    assert (sum(counts[:-1]), counts[-1]) == (layers, classifier)


@pytest.mark.parametrize(
    ("name", "classes", "shape", "parameters"),
    [
        ("lenet5", 10, GREY, 61706),  # LeCun's 61.7 k with full connection in C3
        ("lenet5-caffe", 10, GREY, 431080),  # Han et al., NIPS 2015: 431 k
        ("resnet20", 10, COLOUR, 269722),  # He et al.: 0.27 M
        ("resnet56", 10, COLOUR, 853018),  # He et al.: 0.85 M
        ("resnet18", 1000, IMAGENET, 11689512),  # torchvision's table
        ("alexnet", 1000, IMAGENET, 61100840),  # torchvision's table
        ("vgg16", 10, COLOUR, 14728266 - 4224),  # kuangliu/pytorch-cifar less the biases before batch norm
    ],
)
def test_parameters_of_the_publications(name, classes, shape, parameters):
    assert sum(p.numel() for p in build_network(name, classes, shape).parameters()) == parameters


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "alexnet"])
def test_every_network_exports_with_a_free_batch(name):
    shape = GREY if name.startswith(("lenet", "mlp")) else COLOUR
    network = build_network(name, 10, shape).eval()
    exported = export(network, (torch.zeros(2, *shape),), dynamic_shapes=({0: Dim("batch", min=1, max=4096)},))
    graph = exported.module()
    for batch in (1, 5):
        images = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            assert torch.equal(graph(images), network(images))


def test_alexnet_exports_with_a_free_batch():
    """On the meta device: 58 million weights are not needed to see the graph."""
    network = build_network("alexnet", 100, COLOUR).to("meta").eval()
    images = torch.zeros(2, *COLOUR, device="meta")
    exported = export(network, (images,), dynamic_shapes=({0: Dim("batch", min=1, max=4096)},))
    (logits,) = next(node for node in exported.graph.nodes if node.op == "output").args[0]
    batch, classes = logits.meta["val"].shape
    assert isinstance(batch, torch.SymInt)
    assert classes == 100


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (1, 3, 5, 7)])
def test_shortcut_a_takes_every_second_pixel_between_zero_channels(shape):
    x = torch.rand(shape)
    batch, channels, height, width = shape
    added = channels
    expected = torch.zeros(batch, channels + added, -(-height // 2), -(-width // 2))
    for c in range(channels):
        for i in range(expected.shape[2]):
            for j in range(expected.shape[3]):
                expected[:, c + added // 2, i, j] = x[:, c, 2 * i, 2 * j]
    assert torch.equal(ShortcutA(added)(x), expected)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet5", COLOUR), ("lenet5-caffe", COLOUR), ("resnet20", GREY), ("resnet18-cifar", GREY), ("vgg8", GREY),
     ("mlp", COLOUR), ("resnet18", (1, 64, 64)), ("vgg16", (3, 64, 64))],
)  # fmt: skip
def test_networks_adapt_to_channels_and_sizes(name, shape):
    with torch.no_grad():
        assert build_network(name, 7, shape).eval()(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "classes", "shape", "field"),
    [
        ("vgg16", 10, GREY, "image_shape"),
        ("lenet5-caffe", 10, (1, 8, 8), "image_shape"),
        ("resnet18", 10, GREY, "image_shape"),
        ("torchvision:resnet18", 10, GREY, "image_shape"),
        ("torchvision:alexnet", 10, COLOUR, "image_shape"),
        ("lenet5", 0, GREY, "classes"),
        ("lenet", 10, GREY, "network"),
        ("torchvision:resnet-18", 10, COLOUR, "network"),
        ("timm:resnet-18", 10, COLOUR, "network"),
    ],
)
def test_what_a_network_cannot_take_is_an_input_error(name, classes, shape, field):
    with pytest.raises(InputError) as caught:
        build_network(name, classes, shape)
    assert caught.value.field == field
    if field == "network":
        assert caught.value.nearest in ("lenet5", "torchvision:resnet18", "timm:resnet18")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("torchvision:mobilenet_v2", COLOUR), ("torchvision:googlenet", (3, 64, 64)), ("timm:resnet10t", (1, 64, 64))],
)
def test_libraries_are_reached_by_name(name, shape):
    network = build_network(name, 5, shape)
    assert network.training
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, *shape)).shape == (2, 5)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = build_network("resnet20", 10, COLOUR, seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    again, other = (build_network("resnet20", 10, COLOUR, seed=seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_a_users_package_adds_a_network(tmp_path, monkeypatch):
    (tmp_path / "tiny_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(classes, image_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], classes))\n"
        "def wrong(classes, image_shape):\n"
        "    return nn.Flatten()\n"
    )
    info = tmp_path / "tiny_networks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-networks\nVersion: 1.0\n")
    entries = "[crossloom.networks]\ntiny = tiny_networks:tiny\nwrong = tiny_networks:wrong\n"
    (info / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(tmp_path)
    assert {"tiny", "wrong"} < set(network_names())
    described = {info.name: info for info in describe_networks()}
    assert described["tiny"].origin == "tiny-networks"
    assert "tiny_networks" not in sys.modules, "describing must not import"
    assert build_network("tiny", 4, GREY)(torch.zeros(3, *GREY)).shape == (3, 4)
    with pytest.raises(InputError, match=r"logits \[1, 4\], not \(1, 784\)"):
        build_network("wrong", 4, GREY)


def test_every_reference_network_describes_itself():
    summaries = [info.summary for info in describe_networks() if info.origin == "crossloom"]
    assert len(set(summaries)) == len(NETWORKS)
    assert min(map(len, summaries)) > 20


@pytest.mark.parametrize("name", ["vgg8", "vgg16"])
def test_the_first_loss_of_a_chain_is_near_that_of_guessing(name):
    images = torch.randn(64, *COLOUR, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 10
    with torch.no_grad():
        loss = nn.functional.cross_entropy(build_network(name, 10, COLOUR)(images), labels)
    assert abs(loss - math.log(10)) < 0.8
