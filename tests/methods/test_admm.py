"""ADMM: the pull is the penalty's gradient, residuals fall, and what is left lies in every set to the bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import crossloom
from crossloom.errors import InputError
from crossloom.methods import ADMM, NM, Columns, Filters, FixedPoint, Flow, Polarised, PowerOfTwo, Rho, method
from crossloom.methods.distillation import Distillation
from crossloom.nn import woven_layers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4, 12), nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip


def images(count: int = 96) -> tuple[Tensor, Tensor]:
    """Three classes of noisy stripes."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    stripes = torch.stack([torch.sin(torch.arange(10) * (k + 1.0)) for k in range(3)])
    return stripes[labels][:, None, None, :] + 0.3 * torch.randn(count, 1, 10, 10, generator=generator), labels


class Own(pl.LightningModule):
    """A user's own loop."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.losses: list[float] = []

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.seen = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3, weight_decay=1e-4)


SETS: dict[str, Any] = {
    "model.4": [Filters(6), Columns(0.5), FixedPoint(5)],
    "model.7": [NM(2, 4), Polarised(4), PowerOfTwo(3)],
    "model.*": [FixedPoint(8, per_channel=True)],
}


def trained(admm: ADMM, model: nn.Module, epochs: int = 9, **options: Any) -> Own:
    module = Own(model)
    loader = DataLoader(TensorDataset(*images()), batch_size=16)
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=list(admm.callbacks()), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", **options,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    return module


@pytest.mark.parametrize("accumulate", [1, 2])
def test_in_a_loop_of_ones_own_every_weight_ends_in_every_set(accumulate: int) -> None:
    admm = ADMM(SETS, rho={"start": 0.05, "factor": 2.0}, every=1, retrain=0.4, restart=True)
    module = trained(admm, network(), accumulate_grad_batches=accumulate)
    for target in admm.targets:
        for one in target.sets:
            assert one.contains(target.weight), (target.name, one)
        if target.mask is not None:
            assert torch.equal(target.weight != 0, target.mask & (target.weight != 0))
    figures = admm.finish(module)
    assert figures["kept"]["model.4"] < figures["dense"]["model.4"] / 2
    assert figures["residuals"] == [vars(record) for record in admm.history] != []
    assert json.loads(json.dumps(figures)) == figures
    assert module.losses[-1] < module.losses[0]


def test_residuals_fall() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(24, 8), "b": nn.Linear(24, 8)})
    goal = torch.randn(8, 24) * 0.7 ** torch.arange(24.0)
    admm = ADMM({"a": [Columns(6), FixedPoint(4)], "b": [Polarised(4), FixedPoint(5)]}, rho=Rho(0.1, 1.5, 30.0))
    admm.prepare(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(18):
        for _ in range(60):
            optimiser.zero_grad()
            sum((layer.weight - goal).square().sum() / 2 for layer in model.values()).backward()
            admm.pull()
            optimiser.step()
        admm.update()
    for layer in ("a", "b"):
        for one in ("columns", "fragments", "fixed-point"):
            found = [r for r in admm.history if (r.layer, r.constraint) == (layer, one)]
            share = 0.1 if one in ("columns", "fragments") else 1.0  # scales of levels move with the weight
            assert not found or found[-1].primal < share * found[0].primal + 1e-4, (layer, one)


@pytest.mark.parametrize("resumed", [False, True])
def test_retraining_against_its_signs_stays_in_the_fragments(resumed: bool) -> None:
    """What is left after hardening would like to be its negative; a masked weight may not cross zero."""
    torch.manual_seed(0)
    layer = nn.Linear(24, 8)
    admm = ADMM({"*": [Columns(12), Polarised(4), FixedPoint(5)]})
    admm.prepare(nn.ModuleDict({"a": layer}))
    admm.harden()
    left = layer.weight.detach().clone()
    if resumed:
        state = admm.state_dict()
        admm = ADMM({"*": [Columns(12), Polarised(4), FixedPoint(5)]})
        admm.prepare(nn.ModuleDict({"a": layer}))
        admm.load_state_dict(state)
    with torch.no_grad():
        layer.weight.mul_(torch.where(torch.rand(8, 24) < 0.5, -1.0, 1.0))
    admm.refit()
    admm.finish(layer)
    assert all(one.contains(layer.weight) for one in admm.targets[0].sets)
    assert bool((layer.weight * left >= 0).all())
    assert 0 < int(layer.weight.count_nonzero()) < int(left.count_nonzero())


def test_validation_sees_what_will_be_left() -> None:
    admm = ADMM({"*": [FixedPoint(4)]}, retrain=1.0)
    module = trained(admm, network(), epochs=2)
    for name, seen in module.seen.items():
        if seen.dim() > 1 and ".1." not in f".{name}.":
            assert FixedPoint(4).contains(seen), name


@pytest.mark.parametrize("sets", [1, 3])
def test_the_pull_is_the_gradient_of_the_penalty(sets: int) -> None:
    model = network()
    given = [Columns(0.5), Filters(3), FixedPoint(4)][:sets]
    admm = ADMM({"4": given, "7": [FixedPoint(3)]}, rho={"start": 0.1, "factor": 1.7})
    admm.prepare(model)
    admm.update()
    x, y = images(8)
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    admm.pull()
    found = [t.weight.grad.clone() for t in admm.targets if t.weight.grad is not None]
    model.zero_grad()
    loss = F.cross_entropy(model(x), y)
    for t in admm.targets:
        for point, dual in zip(t.points, t.duals, strict=True):
            loss = loss + admm.rho / 2 * (t.weight - point + dual).square().sum()
    loss.backward()
    for t, gradient in zip(admm.targets, found, strict=True):
        assert t.weight.grad is not None
        assert torch.allclose(gradient, t.weight.grad, atol=1e-6)


def test_state_goes_through_a_checkpoint() -> None:
    one, model = ADMM(SETS, rho={"start": 0.05}), Own(network())
    one.prepare(model)
    one.pull()
    one.update()
    other = ADMM(SETS, rho={"start": 0.05})
    other.prepare(copy.deepcopy(model))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for a, b in zip(one.update(), other.update(), strict=True):
        assert a == b
    one.harden()
    other.load_state_dict(one.state_dict())
    for a, b in zip(one.targets, other.targets, strict=True):
        assert a.mask is not None and b.mask is not None and torch.equal(a.mask, b.mask)


def test_the_integer_program_holds_the_levels_behind_a_batch_norm() -> None:
    x, _ = images()
    model = network()
    for _ in range(3):
        model.train()(x)
    with torch.no_grad():
        model[1].weight[2] = -0.7  # a negative factor turns signs
    module = crossloom.convert(model.eval(), x[:2])
    fourth = [Filters(5), FixedPoint(4, per_channel=True)]
    admm = ADMM({"0": [Columns(5), FixedPoint(5)], "4": fourth, "*": [FixedPoint(8)]})
    admm.prepare(module)
    admm.finish(module)
    crossloom.calibrate(module, [x])
    with torch.no_grad():
        floating = module(x)
    chip = crossloom.compile(module, "sot-mram-and")
    codes = {layer.name: layer.core for layer in chip.program.layers}
    for name, layer in woven_layers(module).items():
        target = next(t for t in admm.targets if t.name == name)
        assert target.levels is not None and target.scale is not None
        latent = target.levels.nearest(layer.weight, target.scale).flatten(1).T
        factor = layer.norm_scale()
        signs = 1 if factor is None else factor.sign()
        assert torch.equal(torch.from_numpy(codes[name][0]), (latent * signs).int()), name
    difference = (chip.logits(x, "integer") - floating).abs().max()
    assert float(difference) < 0.1 * float(floating.abs().max())


def test_weights_off_their_levels_are_not_lowered() -> None:
    x, _ = images()
    module = crossloom.convert(network().eval(), x[:2])
    admm = ADMM({"7": [FixedPoint(4)]})
    admm.prepare(module)
    admm.finish(module)
    crossloom.calibrate(module, [x])
    with torch.no_grad():
        woven_layers(module)["7"].weight.add_(0.01)
    with pytest.raises(InputError, match="ADMM\\.finish"):
        crossloom.compile(module, "sot-mram-and")


def test_a_teacher_pulls_at_the_answers() -> None:
    x, y = images(12)
    teacher, student = network().eval(), network().eval()
    term = Distillation(teacher, 0.5, 2.0)
    assert float(term(student, x, student(x), y)) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        student[9].weight.mul_(-1)
    assert float(term(student, x, student(x), y)) > 0
    assert ADMM({"*": [NM(1, 2)]}).extra_loss() is None
    assert isinstance(ADMM({"*": [NM(1, 2)]}, teacher=teacher).extra_loss(), Distillation)


def test_rho_is_scheduled_and_multipliers_stay() -> None:
    assert Rho(0.1, 2.0, 0.3).after(0.2, 1, 1) == 0.3
    assert Rho(0.1, 2.0, 0.9, balance=10).after(0.2, 1.0, 0.5) == 0.2
    assert Rho(0.1, 2.0, 0.9, balance=10).after(0.2, 1.0, 0.05) == 0.4
    admm, model = ADMM({"7": [NM(1, 4)]}, rho={"start": 0.1, "factor": 2.0}), network()
    admm.prepare(model)
    admm.update()
    target = admm.targets[0]
    assert torch.allclose(target.duals[0] * admm.rho, 0.1 * (target.weight - target.points[0]), atol=1e-6)


def test_it_is_a_method_of_recipes() -> None:
    made = method("admm", constraints={"*": [{"set": "columns", "keep": 0.5}, {"set": "fixed-point", "bits": 5}]})
    assert isinstance(made, ADMM)
    x, _ = images()
    module = crossloom.convert(network().eval(), x[:2])
    made.prepare(module)
    assert isinstance(made.flow, Flow)
    assert set(made.finish(module)["kept"]) == {"0", "4", "7", "9"}


@pytest.mark.parametrize(
    ("make", "field", "nearest"),
    [
        (lambda: ADMM({}), "admm.constraints", "{'*': …}"),
        (lambda: ADMM({"*": [{"set": "filter", "keep": 1}]}), "constraint.set", "filters"),
        (lambda: ADMM({"7x": [NM(1, 2)]}).prepare(network()), "admm.constraints", "7"),
        (lambda: ADMM({"*": [FixedPoint(4), FixedPoint(5)]}).prepare(network()), "admm.constraints.0", None),
        (lambda: ADMM({"*": [NM(1, 2)]}, every=0), "admm.every", "1.0"),
        (lambda: ADMM({"*": [NM(1, 2)]}, retrain=1.5), "admm.retrain", "1.0"),
        (lambda: ADMM({"*": [NM(1, 2)]}, rho={"strat": 1}), "admm.rho", "start"),
        (lambda: ADMM({"*": [NM(1, 2)]}, rho={"start": 2.0}), "admm.rho.start", "0.001"),
        (lambda: ADMM({"*": [NM(1, 2)]}, purify=(0.1, 0.1)).prepare(network()), "admm.purify", "None"),
        (lambda: Distillation(network(), 1.0), "distillation.share", "0.9"),
        (lambda: Distillation(network(), 0.5, 0.0), "distillation.temperature", "4.0"),
    ],
)  # fmt: skip
def test_bad_input_is_named(make: Callable[[], object], field: str, nearest: str | None) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert (error.value.field, error.value.nearest) == (field, nearest)
