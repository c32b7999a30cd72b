"""IRR's study in small: every part runs, goes on where it stopped, and says what it should."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossloom.codesign import irr, irr_noise
from crossloom.codesign.config import Machine
from crossloom.codesign.reproduce import Request, reproduce
from crossloom.codesign.results import ResultsFile
from crossloom.mapping import reorder
from crossloom.simulate import ReadNoise


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("irr")
    patch.setattr(irr, "DATA", "digits")
    patch.setattr(irr, "TRAINING", irr.TRAINING.updated(epochs=3, batch_size=32, lr=5e-3, threads=1))
    patch.setattr(irr, "FINE_TUNING", irr.TRAINING.updated(epochs=1, lr=1e-3, threads=1))
    patch.setattr(irr, "ROWS", (84, 46))
    patch.setattr(irr_noise, "CHIPS", 3)
    patch.setattr(irr_noise, "LAWS", ("root",))
    patch.setattr(irr_noise, "SWEEPS", 2)
    patch.setattr(irr_noise, "VECTORS", 32)
    patch.setattr(reorder, "EXACT_SETS", 0)
    patch.setattr(irr_noise, "WHOLE_IMAGES", 20)
    request = Request("lenet5", limit=100, machine=Machine(device="cpu"), runs=folder)
    yield request, reproduce("irr", request), folder
    patch.undo()


def value(file: ResultsFile, table: str, row: str, metric: str) -> float:
    return next(r.ours for r in file.rows if (r.table, r.row, r.metric) == (table, row, metric))


def test_training_is_of_integers_and_both_exact_rungs_agree(study: Any) -> None:
    _, file, _ = study
    made = {r.metric: r.ours for r in file.rows if r.table == irr.ACCURACY}
    assert made["accuracy, integer"] == made["accuracy, crossbar (7 rows, 3-bit ADC)"] > 80
    assert made["accumulators in training that are not integers"] == 0
    assert made["values that differ between training and program"] == 0


def test_renamed_rows_and_what_they_save(study: Any) -> None:
    _, file, _ = study
    assert value(file, irr.RENAME, "46 rows", "rows saved") == pytest.approx(45.238, abs=1e-3)
    assert value(file, irr.RENAME, "84 rows", "accuracy, integer, lossy") == value(
        file, irr.ACCURACY, "whole network", "accuracy, integer"
    )
    for access in ("summed", "serial"):
        case = f"46 rows, {access} access"
        assert value(file, irr.AREA, case, "cells saved") == pytest.approx(45.238, abs=1e-3)
        wired = value(file, irr.AREA, case, "area saved, table wired into the layout")
        table = value(file, irr.AREA, case, "area, rename table")
        programmable = value(file, irr.AREA, case, "area saved, programmable table")
        assert wired < 45.24 and (programmable < wired if table > 0 else programmable == wired)


def test_reorder_lowers_code_errors_and_the_noise_is_as_strong_as_said(study: Any) -> None:
    _, file, _ = study
    for law in irr_noise.LAWS:
        row = f"final layer, {irr_noise.NAMES[law]}"
        assert value(file, irr.NOISE, row, "code errors before") == pytest.approx(100 * irr_noise.CODE_ERRORS, rel=1e-3)
        assert value(file, irr.NOISE, row, "code errors after") < value(file, irr.NOISE, row, "code errors before")
    for scope in ("final layer", "whole network"):
        saved = [value(file, irr.NOISE, scope, f"reads saved by skipped windows, {w}") for w in ("before", "after")]
        assert saved[0] < saved[1]


def test_it_goes_on_where_it_stopped(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request, file, folder = study
    (run,) = Path(folder).glob("irr-lenet5-*")
    (run / "noise-final-root-100.json").unlink()
    monkeypatch.setattr(irr, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert reproduce("irr", request) == file


def test_code_errors_are_those_of_drawn_noise(study: Any) -> None:
    request, _, _ = study
    made = irr.Study(request)
    mapped = made.chip.mapping.layers[made.final]
    histogram = np.array([5, 9, 7, 4, 3, 2, 1, 1])
    noise = ReadNoise("root", sigma=0.3)
    p = np.repeat(np.arange(8), histogram * 20_000)
    drawn = p + 0.3 * np.sqrt(p) * np.random.default_rng(0).standard_normal(len(p))
    wrong = (np.floor(drawn + 0.5).clip(0, 7) != p).mean()
    assert irr_noise.code_errors(mapped, histogram, noise) == pytest.approx(wrong, abs=4 * np.sqrt(wrong / len(p)))
