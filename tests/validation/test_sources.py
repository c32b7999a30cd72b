"""Where every constant comes from is one command away."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from crossloom.hardware import components, load


@pytest.mark.parametrize(("name", "origin"), [("neurram", "fitted to Wan"), ("rram-40nm", "Lu et al.")])
def test_the_command_prints_figures_parts_and_factors_with_sources(name: str, origin: str) -> None:
    command = [sys.executable, "-m", "crossloom", "hardware", "show", name, "--sources", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    rows = {row["path"]: row for row in [*record["figures"], *record["parts"]]}
    for path, row in rows.items():
        assert row["source"] or path in ("name", "description"), path
    for part in components(load(name)):
        assert f"{part}.energy" in rows
    assert rows["components.calibration.cells.energy"]["source"].startswith(origin)
