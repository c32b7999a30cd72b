"""The whole recipe: phases chain, are kept, and leave a network whose arrays are counted as its blocks."""

from __future__ import annotations

import pytest
import torch

from crossloom.codesign import phases
from crossloom.codesign.crimp_plans import PLANS, Noise
from crossloom.codesign.crimp_recipe import CrimpRecipe
from crossloom.codesign.crimp_training import computing_reduction, measuring_chip, unpruned_arrays
from crossloom.codesign.phases import Course, Phase
from crossloom.codesign.plugins import open_data
from crossloom.compiled import CompiledChip
from crossloom.errors import InputError
from crossloom.frontend import lower
from crossloom.hardware import load
from crossloom.mapping import map_program
from crossloom.methods.cell_draws import ArrayCells
from crossloom.nn import woven_layers
from crossloom.training import TrainingConfig

SMALL = TrainingConfig(epochs=1, optimiser="adam", lr=2e-3, batch_size=64, threads=1, channels_last=False)
RECIPE = CrimpRecipe(
    SMALL, prune_epochs=2, harden_epochs=1, keep_kernels=0.4, keep_arrays=5, bits=7, per_channel=True,
    cells=ArrayCells(encoding="differential", rows=64, columns=96),
)  # fmt: skip


def course(folder, data) -> Course:
    return Course("mlp", data, folder, float_training=SMALL)


@pytest.fixture(scope="module")
def data():
    return open_data("digits").subset(200, 0, test=50)


def test_the_recipe_runs_is_kept_and_counts_its_arrays(tmp_path, data, monkeypatch) -> None:
    found = course(tmp_path, data).run(RECIPE.phases(0.3))
    columns = RECIPE.cells.weight_columns(7)
    assert columns == 16
    kernels = found.figures["kernel-groups"]["kernel-groups"]["kernels"]
    assert all(kept % columns == 0 for name, (kept, of) in kernels.items() if of > columns), kernels
    assert found.figures["crossbars"]["crossbar-masks"]["blocks"] == 5
    assert found.epochs == 6
    assert all(m.disturbance is None and not len(m.shaping) for m in woven_layers(found.module).values())
    chip = load("crimp-isaac", {
        "array.rows": 64, "array.active_rows": 64, "array.columns": 96, "array.encoding": "differential",
        "array.columns_per_adc": 96, "array.flip": False,
    })  # fmt: skip
    compiled = CompiledChip(map_program(lower(found.graph), chip))
    assert compiled.crossbars == found.figures["harden-0.3"]["keep-zero-blocks"]["blocks"] == 5
    assert all(node.layer.output.rescale.only_shifts for node in compiled.program.woven())

    def trained(*_, **__):
        pytest.fail("trained again")

    monkeypatch.setattr(phases, "fit", trained)
    again = course(tmp_path, data).run(RECIPE.phases(0.3))
    x = next(iter(data.test_loader()))[0]
    assert again.key == found.key and torch.equal(again.module(x), found.module(x))
    monkeypatch.undo()
    calls = []
    real = phases.fit
    monkeypatch.setattr(phases, "fit", lambda *args, **kw: calls.append(args[3].name) or real(*args, **kw))
    other = course(tmp_path, data).run(RECIPE.phases(None))
    assert [name.rsplit("-", 1)[0] for name in calls] == ["integers"], "the beginning is shared"
    assert other.key != found.key


def test_a_phase_that_was_interrupted_goes_on(tmp_path, data, monkeypatch) -> None:
    whole = course(tmp_path / "whole", data).run((RECIPE.hardening(0.2, dense=True),))
    real = phases.fit

    def interrupted(*args, **kw):
        real(*args, **kw)
        (args[3] / "weights.safetensors").unlink()  # as if it stopped after its last checkpoint
        raise KeyboardInterrupt

    monkeypatch.setattr(phases, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        course(tmp_path / "part", data).run((RECIPE.hardening(0.2, dense=True),))
    monkeypatch.undo()
    part = course(tmp_path / "part", data).run((RECIPE.hardening(0.2, dense=True),))
    x = next(iter(data.test_loader()))[0]
    assert torch.equal(whole.module(x), part.module(x))


def test_a_course_starts_from_one_thing(tmp_path, data) -> None:
    with pytest.raises(InputError, match="one of them"):
        Course("mlp", data, tmp_path)


@pytest.mark.parametrize("network", PLANS)
@pytest.mark.parametrize("epochs", [4, 20])
def test_a_plan_can_be_shortened(network, epochs) -> None:
    plan = PLANS[network].within(epochs)
    given = plan.float_training.epochs if plan.float_training else 0
    assert given + 2 * plan.recipe.prune_epochs + plan.recipe.harden_epochs == pytest.approx(epochs, abs=2)


@pytest.mark.parametrize("rows", [32, 64, 128, 256])
def test_no_nominal_read_clips_on_the_measuring_chip(rows) -> None:
    cells = Noise(0.5).cells(ArrayCells(rows=rows, encoding="differential"))
    chip = measuring_chip(cells)
    assert rows * 3 < 2**chip.array.b_adc <= 2 * 1.34 * rows * 3
    assert (chip.device.stuck_hrs, chip.device.stuck_lrs) == (0.0904, 0.0175)
    perfect = measuring_chip(Noise(0.0, faults=False).cells(cells))
    assert perfect.device.stuck_hrs == 0 and perfect.device.variation.model == "none"


def test_computing_is_reduced_by_fewer_arrays_table_and_multiplier() -> None:
    assert unpruned_arrays("lenet5-caffe") == 125
    power, area = computing_reduction("lenet5-caffe", 6)
    assert power > 125 * 4 / 6 and area > 125 * 4 / 6
    half = computing_reduction("lenet5-caffe", 12)
    assert half[0] == pytest.approx(power / 2) and half[1] == pytest.approx(area / 2)


def test_phases_say_what_decides_them() -> None:
    phase = Phase("p", (("power-of-two", {"weight_bits": 7}),), SMALL)
    assert phase.plain() != Phase("p", (("power-of-two", {"weight_bits": 8}),), SMALL).plain()
    assert phase.plain() == Phase("p", phase.steps, SMALL.updated(threads=2, validate_every=5)).plain()
