"""Every row that CRIMP's training gives, on a handful of images: what is asked for is made, kept and said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from crossloom.codesign import crimp_training, phases
from crossloom.codesign.crimp_plans import PLANS, Noise
from crossloom.codesign.crimp_rows import CURVE, FIGURE, HEIGHT, NOISY, OURS, PRUNED, Rows
from crossloom.codesign.crimp_training import Measured, Study
from crossloom.codesign.reproduce import Request
from crossloom.errors import InputError
from crossloom.training import DataSet, Normalisation
from crossloom.training.readers import Split


def some_digits(*_: object) -> DataSet:
    """Random images in MNIST's shape: the left half is bright for odd labels."""
    generator = torch.Generator().manual_seed(0)

    def half(count: int) -> Split:
        labels = torch.arange(count) % 10
        images = torch.randint(0, 100, (count, 1, 28, 28), generator=generator)
        images[labels % 2 == 1, :, :, :14] += 120
        return Split(images.to(torch.uint8), labels)

    return DataSet("some", tuple("0123456789"), half(40), half(20), Normalisation((0.1,), (0.3,)))


@pytest.mark.slow
def test_all_rows_are_made_and_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(crimp_training, "open_data", some_digits)
    monkeypatch.setattr(crimp_training, "CHIPS", 2)
    request = Request("lenet5-caffe", epochs=4, limit=6, runs=tmp_path)
    study = Study(request)
    rows = list(Rows(study, request.command("crimp"), "cpu").all())
    plan = PLANS["lenet5-caffe"]
    tables = [row.table for row in rows]
    assert tables.count(PRUNED) == 7 and tables.count(FIGURE) == 2
    assert tables.count(NOISY) == len(plan.noisy) + len(plan.dense) and tables.count(OURS) == 2 * len(plan.noisy)
    assert tables.count(CURVE) == len(plan.adapted) + len(plan.unadapted) and tables.count(HEIGHT) == len(plan.heights)
    assert len({(r.table, r.row, r.metric) for r in rows}) == len(rows), "no row hides another"
    by = {row.metric: row for row in rows}
    assert by["crossbars"].ours == plan.recipe.keep_arrays == 9
    assert by["crossbars before pruning"].ours == 185, "21 weights of 7 bits in sign and magnitude to an array"
    assert by["crossbar sparsity"].ours >= plan.sparsity
    assert {row.command for row in rows} == {"crossloom reproduce crimp --network lenet5-caffe --epochs 4 --limit 6"}
    assert all(row.budget.images in (0, 6, 20) and row.budget.epochs >= 1 for row in rows)
    assert all((row.spread is not None) == (row.table in (NOISY, CURVE, HEIGHT, OURS)) for row in rows)
    assert all("7-bit weights, differential code" in row.row for row in rows)

    def again(*_: object, **__: object) -> None:
        pytest.fail("done twice")

    monkeypatch.setattr(phases, "fit", again)
    monkeypatch.setattr(crimp_training.CompiledChip, "accuracy", again)
    monkeypatch.setattr(Study, "_helped", again)
    assert list(Rows(Study(request), request.command("crimp"), "cpu").all()) == rows


def test_what_is_asked_for_wrongly(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(crimp_training, "open_data", some_digits)
    with pytest.raises(InputError, match="--epochs"):
        Study(Request("lenet5-caffe", epochs=-1, runs=tmp_path))
    monkeypatch.delenv("CROSSLOOM_WEIGHTS", raising=False)
    with pytest.raises(InputError, match="akamaster_resnet56"):
        Study(Request("resnet56", runs=tmp_path))


def test_own_float_weights_take_the_place_of_the_float_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(crimp_training, "open_data", some_digits)
    weights = tmp_path / "weights.safetensors"
    study = Study(Request("vgg16", weights=weights, epochs=10, runs=tmp_path))
    assert study.course.weights == weights and study.course.float_training is None
    assert (study.plan.recipe.prune_epochs, study.plan.recipe.harden_epochs) == (4, 1), "80 : 80 : 20 of ten"
    assert study.data.normalisation == some_digits().normalisation, "the data set's own, as in training"


def test_every_training_is_in_the_arithmetic_that_is_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(crimp_training, "open_data", some_digits)
    for precision in ("32", "bf16-mixed"):
        plan = Study(Request("vgg16", precision=precision, runs=tmp_path)).plan
        assert plan.float_training is not None
        trainings = [plan.float_training, *(p.training for p in plan.recipe.phases(0.1))]
        assert [t.precision for t in trainings if t is not None] == [precision] * 4


def test_copies_are_rows_only_of_plans_that_have_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(crimp_training, "open_data", some_digits)
    monkeypatch.setattr(crimp_training, "CHIPS", 2)
    asked: list[bool] = []
    for longer in (None, 2):
        plan = replace(
            PLANS["lenet5-caffe"], longer=longer, noisy={Noise(0.1): 98.6}, dense={}, adapted={}, unadapted={},
            heights={},
        )  # fmt: skip
        study = Study(Request("lenet5-caffe", epochs=4, limit=6, runs=tmp_path), plan)
        done = Measured(0.0, 0.0, 6, 1, "")
        monkeypatch.setattr(study, "pruned", lambda noise, copies=False: asked.append(copies))
        for name in ("integer", "analog", "helped"):
            monkeypatch.setattr(study, name, lambda *_, done=done, **__: done)
        monkeypatch.setattr(study, "float_accuracy", lambda done=done: done)
        rows = Rows(study, "command", "cpu")
        monkeypatch.setattr(rows, "_structure", lambda found: iter(()))
        assert (OURS in [row.table for row in rows.all()]) == any(asked) == (longer is not None)
