"""ADMM's course: pruned, narrowed, retrained and lowered on small data; the same again from disk; honest rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crossloom.codesign.admm_course import AdmmCourse, Reached
from crossloom.codesign.admm_engine import ENGINE, compared
from crossloom.codesign.admm_points import RECIPES, Point, Recipe, counted, structured
from crossloom.codesign.plugins import open_data
from crossloom.codesign.reproduce import Request, reproductions
from crossloom.errors import InputError
from crossloom.hardware import load
from crossloom.nn import woven_layers
from crossloom.training import TrainingConfig
from crossloom.weave.compaction import compacted

SETS = {"conv1": structured(4, 14), "conv2": structured(8, 60), "fc1": structured(30, 100)}
TRAINING = TrainingConfig(epochs=1, batch_size=50, optimiser="adam", lr=2e-3, weight_decay=0.0, schedule="constant")
RECIPE = Recipe(
    "LeNet-5, digits", "digits", (Point("small", 5.0, 90.0, {8: None, 5: 80.0}, SETS, (0.2, 0.2)),), (8,), (4,), 2,
    TRAINING.updated(lr=5e-3), TRAINING, {"start": 0.3, "factor": 2.0}, 0.5, 0.5, 90.0, 90.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> AdmmCourse:
    request = Request("lenet5", runs=tmp_path_factory.mktemp("runs"), epochs=6)
    data = open_data("digits")
    return AdmmCourse(RECIPE, request, data, load(ENGINE, RECIPE.overrides), None)


@pytest.fixture(scope="module")
def reached(course: AdmmCourse) -> list[Reached]:
    return list(course.run())


def test_points_hold_what_they_promise(course: AdmmCourse, reached: list[Reached]) -> None:
    assert [r.bits for r in reached] == [8, 5]
    for result in reached:
        assert result.ratio > 5
        assert result.chip.crossbars < course.dense_chip.crossbars
        for layer in result.chip.program.layers:
            assert layer.weight_bits == result.bits
            assert abs(layer.core).max() < 1 << (result.bits - 1)
            assert (layer.core != 0).any((0, 2)).all() and (layer.core != 0).any((0, 1)).all()
        stored = sum(layer.core.size for layer in result.chip.program.layers)
        assert stored >= sum(result.kept.values())
    assert reached[0].residuals is not None and reached[0].residuals[1] < reached[0].residuals[0]
    # an 8-bit weight on zero before stays on zero after
    assert all(reached[1].kept[name] <= count for name, count in reached[0].kept.items())


def test_the_answers_survive_and_engines_agree(course: AdmmCourse, reached: list[Reached]) -> None:
    test = course.data.test_loader()
    assert float(reached[0].chip.accuracy(test, "integer")) > 0.6
    for result in reached:
        images = next(iter(test))[0][:20]
        assert torch.equal(result.chip.logits(images, "integer"), result.chip.logits(images, "crossbar"))
        program = result.chip.program
        assert torch.equal(load_and_run(compacted(program), images), result.chip.logits(images, "integer")), (
            "compacting twice changed something"
        )


def load_and_run(program, images):
    from crossloom.compiled import CompiledChip
    from crossloom.mapping import map_program

    return CompiledChip(map_program(program, load(ENGINE, RECIPE.overrides))).logits(images, "integer")


def test_from_disk_it_is_the_same(course: AdmmCourse, reached: list[Reached], monkeypatch: pytest.MonkeyPatch) -> None:
    from crossloom.codesign import admm_course

    monkeypatch.setattr(admm_course, "fit", lambda *a, **k: pytest.fail("trained again"))
    again = AdmmCourse(RECIPE, course.request, course.data, course.chip, None)
    assert [r.chip.hash for r in again.run()] == [r.chip.hash for r in reached]
    assert next(iter(woven_layers(again.module).values())).weight.shape[0] <= 4


def test_the_engine_shrinks_with_every_cell(course: AdmmCourse, reached: list[Reached]) -> None:
    images = next(iter(course.data.test_loader()))[0][:8]
    found = compared(course.dense_chip, reached[-1].chip, RECIPE.overrides, images)
    assert set(found) == {"SOT-MRAM", "STT-MRAM", "ReRAM", "SRAM"}
    numbers = {name: {f.metric: f for f in figures} for name, figures in found.items()}
    for figures in numbers.values():
        for metric in ("crossbars", "area", "energy of an image", "writing the network once", "standby power"):
            assert figures[metric].sparse < figures[metric].dense
        assert figures["images per second"].sparse >= figures["images per second"].dense
    sot = numbers["SOT-MRAM"]
    assert sot["standby power"].sparse < numbers["SRAM"]["standby power"].sparse
    assert sot["time of writing it"].sparse < numbers["ReRAM"]["time of writing it"].sparse
    assert sot["writing the network once"].sparse < numbers["ReRAM"]["writing the network once"].sparse


@pytest.mark.parametrize(
    "network", [n if n == "lenet5-caffe" else pytest.param(n, marks=pytest.mark.slow) for n in sorted(RECIPES)]
)
def test_structures_are_small_enough_for_their_ratios(network: str) -> None:
    from crossloom.codesign.targets import random_chip
    from crossloom.methods import ADMM as Method
    from crossloom.methods import narrow

    target = random_chip(network, ENGINE)
    module = target.chip.module
    assert module is not None
    from crossloom.frontend import convert

    shape = {"lenet5-caffe": (1, 28, 28)}.get(network, (3, 32, 32))
    dense = None
    for point in RECIPES[network].points:
        converted = convert(module, torch.zeros(2, *shape))
        dense = sum(layer.weight.numel() for layer in woven_layers(converted).values())
        method = Method(point.sets)
        method.prepare(converted)
        method.pull()
        method.update()
        method.finish(converted)
        narrow(converted)
        kept = sum(int(layer.weight.count_nonzero()) for layer in woven_layers(converted).values())
        assert kept > 0 and dense / kept >= point.ratio, (point.name, dense / kept)


def test_shares_are_of_the_unpruned_network() -> None:
    sets = {"deep*": structured(0.25, 0.06), "head": structured(7, None)}
    found = counted(sets, {"deep1": (512, 512, 3, 3), "head": (10, 512), "first": (64, 3, 3, 3)})
    assert found == {"deep1": structured(128, 276), "head": structured(7, None)}
    assert counted(found, {"deep1": (200, 512, 3, 3), "head": (10, 512)}) == found, "counts stay in a narrower network"
    with pytest.raises(InputError, match="deap"):
        counted({"deap*": structured(0.5, None)}, {"deep": (8, 8)})


def test_what_is_asked_for() -> None:
    assert reproductions()["admm"].networks == ("lenet5-caffe", "vgg16", "resnet18-cifar")
    request = Request("vgg16", epochs=6, train_images=100, points=2, limit=5, runs=Path("/x"))
    said = "crossloom reproduce admm --network vgg16 --epochs 6 --train-images 100 --points 2 --limit 5"
    assert request.command("admm") == said
    short = RECIPES["vgg16"].shortened(6)
    assert (short.prune, short.retrain, short.requantise) == ((2, 2, 2), (3, 3, 3), 1)
    assert short.every == RECIPES["vgg16"].every * 2 / 24, "as many updates in two epochs as in 24"
    assert RECIPES["vgg16"].shortened(600) == RECIPES["vgg16"].shortened(None) == RECIPES["vgg16"]
    assert replace(RECIPES["vgg16"]).points == RECIPES["vgg16"].points
    assert [p.name for p in RECIPES["vgg16"].first(2).points] == ["9.3×", "29.8×"]
    assert RECIPES["vgg16"].first(None) is RECIPES["vgg16"]
    with pytest.raises(InputError, match=r"--points: got 4; expected 1 to 3 of VGG-16, CIFAR-10's points"):
        RECIPES["vgg16"].first(4)
