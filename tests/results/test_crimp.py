"""CRIMP's rows: the parts that need no published weights always, the rest where the weights are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from crossloom.cli import main
from crossloom.codesign import Machine
from crossloom.codesign.crimp import PAPER, by_the_rule
from crossloom.codesign.reproduce import Reproduction, Request, published_weights, reproduce, reproductions
from crossloom.codesign.results import load
from crossloom.codesign.targets import random_chip
from crossloom.errors import InputError

PUBLISHED_COUNTS = {"lenet5-caffe": 125, "resnet56": 267}


@pytest.mark.parametrize("network", PUBLISHED_COUNTS)
def test_crossbars_are_those_of_the_papers_rule(network: str) -> None:
    chip = random_chip(network, "crimp-isaac").chip
    assert chip.crossbars == by_the_rule(chip) == PUBLISHED_COUNTS[network]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "arrays"), [("vgg16", 3600), ("resnet18", 2864)])
def test_crossbars_of_the_large_networks(network: str, arrays: int) -> None:
    (found,) = reproduce("crimp", Request(network, epochs=0)).rows
    assert (found.ours, found.paper, found.metric) == (arrays, arrays, "crossbars")


def test_the_command_leaves_out_where_files_lie() -> None:
    assert Request("resnet56").command("crimp") == "crossloom reproduce crimp --network resnet56"
    given = Request("resnet56", weights=Path("/a/b.th"), limit=20, machine=Machine(data_dir="/c"))
    assert given.command("crimp") == "crossloom reproduce crimp --network resnet56 --weights b.th --limit 20"


def test_what_there_is_and_what_not(monkeypatch) -> None:
    monkeypatch.delenv("CROSSLOOM_WEIGHTS", raising=False)
    assert set(reproductions()["crimp"].networks) == set(PAPER)
    with pytest.raises(InputError, match="crimp: lenet5-caffe"):
        reproduce("crmp", Request("lenet5"))
    with pytest.raises(InputError, match="resnet56"):
        reproduce("crimp", Request("resnet57"))
    with pytest.raises(InputError, match="akamaster_resnet56"):
        published_weights(Request("resnet56"))
    monkeypatch.setenv("CROSSLOOM_WEIGHTS", "/nowhere")
    with pytest.raises(InputError, match="/nowhere"):
        published_weights(Request("resnet56"))


def test_a_packages_reproduction_is_found(monkeypatch) -> None:
    module = sys.modules["crossloom.codesign.reproduce"]
    mine = Reproduction("mine", "My paper", ("lenet5",), "one row", lambda request: pytest.fail("made"))

    class Point:
        name = "mine"

        @staticmethod
        def load() -> Reproduction:
            return mine

    monkeypatch.setattr(module, "entry_points", lambda group: [Point] if group == "crossloom.reproductions" else [])
    assert reproductions()["mine"] is mine


@pytest.mark.slow
def test_lenet5_from_published_weights(tmp_path, monkeypatch) -> None:
    if not (os.environ.get("CROSSLOOM_WEIGHTS") and os.environ.get("CROSSLOOM_DATA")):
        pytest.skip("CROSSLOOM_WEIGHTS and CROSSLOOM_DATA are not set: no published weights and data here")
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "crimp", "--network", "lenet5-caffe", "--limit", "300", "--epochs", "0", "-q"]) == 0
    found = {r.metric: r for r in load("results/crimp-lenet5-caffe.json").rows}
    assert found["accuracy, float"].ours == pytest.approx(99.14, abs=0.005)
    assert found["accuracy, integer"].ours > 99.14 - 0.5
    assert found["largest difference of a logit, crossbar − integer"].ours == 0
    assert found["crossbars"].ours == 125
