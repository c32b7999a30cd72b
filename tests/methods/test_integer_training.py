"""Integer training: every value is an integer in training as on the chip, and it learns."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import crossloom
from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, fake_quantised_codes, lower
from crossloom.methods.integer_training import INPUT_NORMALISATION, IntegerTraining
from crossloom.nn import woven_layers
from crossloom.simulate import Executor
from crossloom.training import Normalisation, TrainingConfig, build_network, fit, load_dataset

SHAPE = (1, 12, 12)


def network(seed: int) -> nn.Module:
    """Convolutions with bias and batch norm, a grouped one, and linear layers."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 20), nn.ReLU(), nn.Linear(20, 5),
    ).eval()  # fmt: skip


def prepared(method: IntegerTraining, seed: int = 0) -> tuple[Any, Tensor]:
    """A network made integer-only and calibrated, and images in 0 … 2^b − 1."""
    module = convert(network(seed), torch.zeros(2, *SHAPE))
    method.prepare(module)
    images = torch.randint(0, 1 << method.inputs, (16, *SHAPE), generator=torch.Generator().manual_seed(seed)).float()
    calibrate(module, [images])
    return module, images


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from(["fitted", "learnt"]), st.integers(0, 99))
def test_training_and_chip_compute_the_same_integers(weights: int, activations: int, shifts: Any, seed: int) -> None:
    method = IntegerTraining(weights=weights, activations=activations, shifts=shifts)
    module, images = prepared(method, seed)
    sums: dict[str, Tensor] = {}
    for name, layer in woven_layers(module).items():
        assert layer.bias is None and layer.norm is None
        layer.register_forward_hook(lambda m, i, y, name=name: sums.update({name: y.detach()}))
    with torch.no_grad():
        module(images)
    for name, layer in woven_layers(module).items():
        z = sums[name].double() / (float(layer.__dict__["input_quantiser"].step().detach()) * 2.0 ** (1 - weights))
        assert torch.equal(z, z.round()), f"{name} is not integer"
    program = lower(module, "net")
    assert all(layer.output.rescale.only_shifts for layer in program.layers)
    assert all((layer.output.bias == 0).all() for layer in program.layers)
    expected, found = fake_quantised_codes(module, program, images), Executor(program).nodes(images)
    for name, codes in expected.items():
        assert torch.equal(found[name].long(), codes), name


def test_the_input_is_the_pixel_shifted_by_six() -> None:
    mean, std = INPUT_NORMALISATION
    pixels = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    values = Normalisation((mean,), (std,))(pixels)
    assert torch.equal(torch.floor(values + 0.5).clamp(0, 3).flatten(), (pixels >> 6).flatten().float())


@pytest.mark.parametrize("kind", ["cross-entropy", "margin", "squared"])
def test_losses_are_those_of_loops_over_raw_integers(kind: Any) -> None:
    method = IntegerTraining(loss=kind, temperature=4.0, margin=6.0)
    module, images = prepared(method)
    labels = torch.arange(16) % 5
    logits = module(images)
    z = (logits.detach().double() / method.accumulator_step()).tolist()
    losses = []
    for row, label in zip(z, labels.tolist(), strict=True):
        if kind == "cross-entropy":
            losses.append(-row[label] / 4 + torch.tensor(row).div(4).logsumexp(0).item())
        elif kind == "margin":
            losses.append(sum(max(0.0, 6 - (row[label] - v)) / 4 for j, v in enumerate(row) if j != label) / 4)
        else:
            losses.append(sum(((v - (6 if j == label else -6)) / 4) ** 2 for j, v in enumerate(row)) / 5)
    assert method.loss()(logits, labels).item() == pytest.approx(sum(losses) / 16, rel=1e-5)
    assert all(value == round(value) for row in z for value in row)


def test_given_shifts_are_the_programs_shifts() -> None:
    method = IntegerTraining(shifts={"0": 2, "4": 3, "7": 4})
    module, _ = prepared(method)
    assert method.finish(module)["shifts"] == {"0": 2, "4": 3, "7": 4}
    layers = list(lower(module, "net").layers)
    assert [int(layer.output.rescale.shift.max()) for layer in layers[:3]] == [2, 3, 4]


@pytest.mark.parametrize("shifts", ["fitted", "learnt"])
def test_it_learns_the_digits(shifts: Any, tmp_path: Any) -> None:
    data = load_dataset("digits").normalised(Normalisation(*((v,) for v in INPUT_NORMALISATION)))
    module = convert(build_network("mlp", 10, data.image_shape), torch.zeros(2, *data.image_shape))
    method = IntegerTraining(shifts=shifts)
    method.prepare(module)
    calibrate(module, data.calibration_loader(256))
    config = TrainingConfig(epochs=6, batch_size=32, optimiser="adam", lr=5e-3, weight_decay=0, threads=1)
    result = fit(
        module, data, config, tmp_path, callbacks=method.callbacks(), loss=method.loss(), progress=False
    )  # fmt: skip
    assert result.accuracy > 0.88
    assert all(float(layer.weight.detach().abs().max()) <= 1 for layer in woven_layers(module).values())
    chip = crossloom.compile(module, "rram-40nm")
    exact = chip.accuracy(data.test_loader(), rung="integer").value
    assert exact == result.accuracy == chip.accuracy(data.test_loader(), rung="crossbar").value


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"weights": 9}, "integer-training.weights"),
        ({"activations": 0}, "integer-training.activations"),
        ({"loss": "hinge"}, "integer-training.loss"),
        ({"shifts": "guessed"}, "integer-training.shifts"),
        ({"temperature": 0}, "integer-training.temperature"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        crossloom.methods.method("integer-training", **options)
    assert caught.value.field == field


def test_a_shift_of_a_layer_that_is_not_there_is_refused() -> None:
    module = convert(network(0), torch.zeros(2, *SHAPE))
    with pytest.raises(InputError, match=r"0.*4.*7"):
        IntegerTraining(shifts={"conv9": 2}).prepare(module)
    with pytest.raises(InputError, match="shifts of all layers before"):
        IntegerTraining(shifts={"4": 2}).prepare(module)
