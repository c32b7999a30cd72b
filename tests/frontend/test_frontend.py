"""Conversion keeps the function; the integer program equals the fake-quantised module at every node."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.frontend import QuantisationConfig, calibrate, convert, fake_quantised_codes, lower, quantisers
from crossloom.nn import QuantiserConfig, woven_layers
from crossloom.simulate import Executor
from crossloom.weave import Add, Lookup, Program, Requantise, Woven
from tests.frontend.checks import assert_equal_within_one_step
from tests.frontend.networks import SHAPES, Functions, Grouped, OptionA, Shared, Vectors, settled

CONFIGS = {
    "default": QuantisationConfig(),
    "four-bit": QuantisationConfig(
        weights=QuantiserConfig(bits=4, per_channel=True, range="mse"),
        activations=QuantiserConfig(bits=4, range="percentile", percentile=99.0),
    ),
    "power-of-two": QuantisationConfig(
        weights=QuantiserConfig(bits=8, per_channel=True, power_of_two="up"),
        activations=QuantiserConfig(bits=8, power_of_two="nearest"),
        input=QuantiserConfig(bits=8, power_of_two="up"),
    ),
    "asymmetric": QuantisationConfig(
        weights=QuantiserConfig(bits=8, symmetric=False),
        activations=QuantiserConfig(bits=8, symmetric=False),
        input=QuantiserConfig(bits=8, symmetric=False),
    ),
    "learnt": QuantisationConfig(
        weights=QuantiserConfig(bits=6, range="learnt"), activations=QuantiserConfig(bits=6, range="learnt")
    ),
    "ternary": QuantisationConfig(weights=QuantiserConfig(bits=2, ternary=True, per_channel=True), residual_bits=12),
    "binary": QuantisationConfig(weights=QuantiserConfig(bits=1)),
}


def images(shape: tuple[int, ...], count: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)
def test_an_observing_network_computes_what_the_original_does(kind: type[nn.Module]) -> None:
    module = settled(kind(), SHAPES[kind]).double()
    config = QuantisationConfig(weights=QuantiserConfig(bits=16, per_channel=True))
    x = images(SHAPES[kind]).double()
    converted = convert(module, x[:2], config)
    for layer in woven_layers(converted).values():
        layer.weight_quantiser.enabled = False
    assert torch.allclose(converted(x), module(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)
def test_the_integer_program_equals_the_module_within_one_step_at_every_node(kind: type[nn.Module], name: str) -> None:
    shape = SHAPES[kind]
    module = convert(settled(kind(), shape), images(shape, 2), CONFIGS[name])
    calibrate(module, [images(shape, 32)])
    if name == "learnt":
        with torch.enable_grad():  # one step that sets the learnt weight steps
            module(images(shape)).sum().backward()
    program = lower(module.double(), "test")
    assert_equal_within_one_step(module, program, images(shape, 8, seed=2).double())


def test_with_powers_of_two_the_integer_program_equals_the_module_bit_for_bit() -> None:
    for kind in (Grouped, OptionA, Shared):
        shape = SHAPES[kind]
        module = convert(settled(kind(), shape), images(shape, 2), CONFIGS["power-of-two"])
        calibrate(module, [images(shape, 32)])
        module = module.double()
        program = lower(module)
        x = images(shape, 8, seed=3).double()
        expected, got = fake_quantised_codes(module, program, x), Executor(program).nodes(x)
        pooled = kind is not OptionA  # dividing by a window's size is no power of two
        for node in program.nodes:
            if isinstance(node, (Woven, Add, Requantise)) and not (pooled and node is program.output):
                if kind is OptionA and node is program.output:
                    continue
                assert torch.equal(got[node.name].long(), expected[node.name]), node.name
        assert all(n.layer.output.rescale.only_shifts for n in program.woven())


def test_clips_and_norms_are_fused_and_layers_keep_their_names() -> None:
    module = convert(settled(Shared(), SHAPES[Shared]), images(SHAPES[Shared], 2))
    assert set(woven_layers(module)) == {"stem", "block", "block_again1", "head"}
    layers = woven_layers(module)
    assert layers["block"].norm is not None
    assert layers["block_again1"].norm is None
    assert layers["block"].weight is layers["block_again1"].weight
    calibrate(module, [images(SHAPES[Shared])])
    kinds = [type(n).__name__ for n in lower(module).nodes]
    assert kinds.count("Woven") == 4
    assert "Requantise" not in kinds
    assert "Scale" not in kinds


def test_unsigned_after_relu_signed_elsewhere() -> None:
    module = convert(settled(Vectors(), (11,)), images((11,), 2))
    calibrate(module, [images((11,))])
    program = lower(module)
    signed = {n.name: n.format.signed for n in program.nodes}
    assert signed["input_codes"]
    assert not signed["layers_0"]
    table = next(n for n in program.nodes if isinstance(n, Lookup))
    assert table.function == "tanh"


def test_the_last_layer_has_one_step_so_that_its_accumulators_compare() -> None:
    module = convert(settled(Vectors(), (11,)), images((11,), 2))
    calibrate(module, [images((11,))])
    program = lower(module)
    last = program.output
    assert isinstance(last, Woven)
    assert last.layer.weight_scale.shape == (1,)
    assert last.format.bits == 32


def test_conversion_leaves_the_users_model_alone() -> None:
    model = settled(Grouped(), SHAPES[Grouped])
    before = copy.deepcopy(model.state_dict())
    converted = convert(model, images(SHAPES[Grouped], 2))
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.zero_()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_training_reaches_every_parameter_and_dropout_works_again() -> None:
    module = convert(settled(Shared(), SHAPES[Shared]), images(SHAPES[Shared], 2))
    calibrate(module, [images(SHAPES[Shared])])
    module.train()
    x = images(SHAPES[Shared])
    assert not torch.equal(module(x), module(x)), "dropout is off in training"
    module(x).square().sum().backward()
    idle = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []
    module.eval()
    assert torch.equal(module(x), module(x))


def test_training_with_a_live_norm_lands_where_evaluation_does() -> None:
    """With batch statistics equal to the running ones, the training path computes what evaluation computes."""
    module = convert(settled(OptionA(), SHAPES[OptionA]), images(SHAPES[OptionA], 2)).double()
    x = images(SHAPES[OptionA], 64).double()
    for layer in woven_layers(module).values():
        layer.weight_quantiser.enabled = False
        if layer.norm is not None:
            layer.norm.momentum = 1.0
    module.train()
    trained = module(x)
    norm = woven_layers(module)["conv"].norm
    assert norm is not None
    count = 64 * 5 * 5
    with torch.no_grad():  # torch keeps the unbiased variance and normalises with the biased one
        norm.running_var.mul_((count - 1) / count)  # type: ignore[union-attr]
    module.eval()
    assert torch.allclose(module(x), trained, atol=1e-9)


def test_deep_copies_and_state_dicts_are_whole() -> None:
    module = convert(settled(Shared(), SHAPES[Shared]), images(SHAPES[Shared], 2))
    calibrate(module, [images(SHAPES[Shared])])
    x = images(SHAPES[Shared])
    twin = copy.deepcopy(module)
    assert torch.equal(twin(x), module(x))
    copied = woven_layers(twin)["head"].__dict__["input_quantiser"]
    assert any(copied is q for q in quantisers(twin).values())
    fresh = convert(settled(Shared(), SHAPES[Shared], seed=5), x[:2])
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(x), module(x))


class Unsupported(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.fc = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.fc(x)
        if self.how == "softmax":
            return F.softmax(x, 1)
        if self.how == "layer_norm":
            return self.norm(x)
        if self.how == "two outputs":
            return x, x + 1
        if self.how == "branch":
            return x if x.sum() > 0 else -x
        return x @ x.T


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("softmax", "aten.softmax"),
        ("layer_norm", "aten.layer_norm.*'norm'"),
        ("two outputs", "2 outputs"),
        ("branch", "torch.export can capture"),
        ("matmul", "operator"),
    ],
)
def test_what_is_not_supported_is_named(how: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(Unsupported(how), torch.randn(3, 4))


def test_weights_and_data_that_are_not_finite_are_refused() -> None:
    model = settled(Vectors(), (11,))
    bad = copy.deepcopy(model)
    with torch.no_grad():
        next(bad.parameters())[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"weights\.layers\.0\.weight"):
        convert(bad, images((11,), 2))
    converted = convert(model, images((11,), 2))
    with pytest.raises(InputError, match="calibrate"):
        lower(converted)
    with pytest.raises(InputError, match="NaN or infinity"):
        calibrate(converted, [torch.full((2, 11), float("inf"))])
    with pytest.raises(InputError, match="calibration"):
        calibrate(convert(model, images((11,), 2)), [])
    with pytest.raises(InputError, match="at least one convolution or linear"):
        convert(nn.Sequential(nn.ReLU()), images((11,), 2))


def test_names_of_program_nodes_are_names_of_graph_nodes() -> None:
    shape = SHAPES[Functions]
    module = convert(settled(Functions(), shape), images(shape, 2))
    calibrate(module, [images(shape)])
    program: Program = lower(module)
    names = {n.name for n in module.graph.nodes}
    assert {n.name for n in program.nodes if not n.name.endswith("_pool")} <= names
