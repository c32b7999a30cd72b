"""Recipes: read and written without loss, refused with the reason before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.codesign import Machine, configure, run
from crossloom.codesign.pace import epochs_within, seconds
from crossloom.codesign.recipe import Recipe, TrainStep, named, ready, sequence
from crossloom.errors import InputError

PRUNE = {"name": "prune", "methods": [{"admm": {"constraints": {"*": [{"set": "columns", "keep": 0.5}]}}}]}
CORE = {"name": "core", "methods": [{"approximation": {"layers": {"fc1": {"order": 1, "group": 4}}}}]}


def recipe(*steps: dict[str, Any]) -> Recipe:
    return Recipe.from_plain({"name": "r", "steps": list(steps)})


@pytest.mark.parametrize("name", ["aat", "admm-polarised", "admm-sot", "all-four", "crimp", "irr"])
def test_ready_recipes_are_read_and_written_without_loss(name: str) -> None:
    one = Recipe.load(name)
    assert (one.name, name) == (name, name) and name in ready() and one.about
    assert Recipe.from_plain(yaml.safe_load(one.to_yaml())) == one
    assert Recipe.from_plain(one.plain()) == one
    assert len(sequence(one.steps)) == len(one.steps)


def test_the_order_of_methods_is_part_of_the_recipe_and_of_the_hash() -> None:
    calls = ["keep-zeros", {"bits": {"layers": {"*": {"weights": 4}}}}]
    one, other = (recipe({"name": "a", "methods": c}) for c in (calls, calls[::-1]))
    assert one != other
    assert configure("lenet5", "digits", recipe=one).hash != configure("lenet5", "digits", recipe=other).hash
    assert configure("lenet5", "digits").hash not in (configure("lenet5", "digits", recipe=one).hash,)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(6, 100))
def test_a_number_of_epochs_is_shared(epochs: list[int], wanted: int) -> None:
    steps = [{"name": f"s{i}", "epochs": e} for i, e in enumerate(epochs)]
    made = recipe(*steps).within(wanted) if sum(epochs) else recipe(*steps)
    for before, after in zip(epochs, made.training, strict=True):
        assert (after.epochs > 0) == (before > 0)
    if sum(epochs):
        assert abs(made.epochs - wanted) <= len(epochs)


def test_too_few_epochs_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2"):
        recipe({"name": "a", "epochs": 3}, {"name": "b", "epochs": 3}).within(1)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([PRUNE, CORE], "a place before 'admm'.*fill in the zeros"),
        ([CORE, {**CORE, "name": "again"}], "a place before 'approximation'"),
        ([{"name": "m", "map": "compact"}, PRUNE], "no training behind the mapping step 'm'"),
        ([{"name": "m", "map": "reorder"}, {"name": "n", "map": "rename"}], "may follow reorder"),
        ([{"name": "m", "map": "repeat"}, {"name": "n", "map": "rename"}], "may follow repeat"),
        ([PRUNE, PRUNE], "a name of its own"),
        ([{"name": "a", "methods": ["power-of-two"]}, {"name": "b", "methods": ["integer-training"]}], "replaced"),
        ([{"name": "a", "methods": ["keep-zeros", "keep-zeros"]}], "once a step"),
        ([{"name": "a", "methods": ["admn"]}], "admm"),
        ([{"name": "a", "methods": [{"power-of-two": {"budget": {"of": "area"}}}]}], "have a search"),
        ([{"name": "a", "map": "renam"}], "rename"),
        ([{"name": "a", "epoch": 3}], "epochs"),
        ([{"name": "a", "epochs": -1}], "greater than or equal to 0"),
        ([{"name": "a", "map": "compact", "epochs": 1}], "map"),
    ],
)
def test_what_cannot_work_is_refused(steps: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe(*steps)


def test_rows_may_be_shared_behind_pruning() -> None:
    recipe(PRUNE, {"name": "share", "methods": [{"rename-rows": {"rows": {"@last": 0.5}}}]})


def test_names_of_the_first_and_last_layer() -> None:
    given = {"rows": {"@last": 3}, "layers": ["@first", "fc*"], "n": 2}
    assert named(given, ["conv1", "fc1"]) == {"rows": {"fc1": 3}, "layers": ["conv1", "fc*"], "n": 2}


def test_a_schedule_starts_from_the_reference() -> None:
    base = configure("lenet5", "digits").training
    assert base is not None
    step = TrainStep(name="s", epochs=3, rate=0.5, training={"batch_size": 64})
    made = step.schedule(base)
    assert made is not None and (made.epochs, made.lr, made.batch_size) == (3, base.lr / 2, 64)
    assert TrainStep(name="s", epochs=0).schedule(base) is None
    with pytest.raises(InputError, match="batch_size"):
        TrainStep(name="s", training={"batchsize": 64}).schedule(base)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"name": "core", "methods": [{"approximation": {"layers": {"fc9": {"order": 1, "group": 4}}}}]}], "core.*fc"),
        ([{"name": "core", "methods": [{"approximation": {"layers": {"conv1": {"order": 1, "group": 99}}}}]}], "core"),
        ([{"name": "a", "methods": [{"admm": {"constraint": {}}}]}], "a: recipe.admm.*constraints"),
        ([{"name": "a", "methods": ["admm"]}], "admm.constraints.*absent"),
        ([{"name": "a", "methods": [{"rename-rows": {"rows": {"fc9": 3}}}]}], "fc"),
        ([{"name": "a", "training": {"lr": -1.0}}], "training.lr"),
        ([{"name": "a", "methods": [{"approximation": {"budget": {"saved": 0.99}}}]}], "at most.*saved: 0.[0-9]+"),
        ([{"name": "a", "methods": [{"admm": {"budget": {"of": "energy", "target": 1e-15}}}]}], "at most.*target: "),
        ([{"name": "a", "map": "reorder"}], "a: array.flip"),
        ([{"name": "a", "map": "rename", "options": {"layers": ["nothing*"]}}], "a: rename.layers"),
    ],
)
def test_a_rehearsal_finds_what_the_network_or_the_chip_forbid(
    steps: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    config = configure("lenet5", "digits", recipe=recipe(*steps), epochs=1, train_images=100)
    with pytest.raises(InputError, match=message):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recipes_come_from_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nsteps:\n  - name: a\n    methods: [keep-zeros]\n")
    assert Recipe.load(path).training[0].methods[0].method == "keep-zeros"
    with pytest.raises(InputError, match="all-four"):
        Recipe.load("all-for")
    path.write_text("name: mine\nsteps: 3\n")
    with pytest.raises(InputError, match="mine"):
        Recipe.load(path)
    with pytest.raises(InputError, match="readable"):
        Recipe.load(tmp_path / "gone.yaml")


def test_a_recipe_brings_its_chip_and_its_code_of_weights() -> None:
    config = configure("lenet5", "digits", recipe="crimp", overrides=["array.b_adc=9"])
    assert config.hardware.overrides == ("array.encoding=differential", "array.flip=false", "array.b_adc=9")
    assert configure("lenet5", "digits", recipe="irr").hardware.name == "rram-40nm"
    assert configure("lenet5", "digits", "crimp-isaac", recipe="irr").hardware.name == "crimp-isaac"


@pytest.mark.parametrize(("text", "expected"), [("90s", 90.0), ("30m", 1800.0), ("1.5h", 5400.0)])
def test_a_budget_is_a_time(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "30", "h", "-1h", "0m", "2 days"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="30m or 2h"):
        seconds(text)


def test_a_longer_budget_has_more_epochs() -> None:
    machine = Machine(device="cpu", threads=1)
    short, long = (epochs_within(b, "lenet5", "digits", machine) for b in ("1s", "1h"))
    assert 1 <= short < long
