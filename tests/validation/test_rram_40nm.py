"""40 nm RRAM macro (Li et al., ESSCIRC 2021): 36.4 TOPS/W at 1×1 bit."""

from __future__ import annotations

import pytest

from crossloom.cost import checks, peak
from crossloom.hardware import load


def test_efficiency_within_ten_per_cent_and_raw_beside_it() -> None:
    (check,) = checks(load("rram-40nm"))
    assert check.published == 36.4e12
    assert check.ratio == pytest.approx(1, abs=0.10)
    assert check.raw_ratio < 0.5, "a whole 10 ns read at 6 kΩ cannot give the figure"


def test_no_factor_is_fitted_to_the_figure() -> None:
    """All of them are those that Lu et al. published."""
    for entry in load("rram-40nm").components.calibration.values():
        assert entry.source.startswith("Lu et al., Frontiers in AI 2021")
    cells = load("rram-40nm").components.calibration["cells"].energy
    assert cells == pytest.approx(1.40 * 1e-9 / load("rram-40nm").device.read_pulse * 1.22)


def test_one_on_cell_conducting_through_the_whole_read_is_too_much() -> None:
    """0.25 V² ÷ 6 kΩ × 10 ns = 0.417 pJ; the figure leaves 0.055 pJ for a multiply-accumulate with everything."""
    device = load("rram-40nm").device
    whole = device.read_voltage**2 / device.r_on * device.read_pulse
    assert whole == pytest.approx(0.4167e-12, rel=1e-3)
    assert whole > 7 * 2 / 36.4e12


def test_fewer_driven_rows_never_cost_more() -> None:
    chip = load("rram-40nm")
    found = [peak(chip, density=d).macro.per_joule for d in (0.1, 0.25, 0.5, 1.0)]
    assert found == sorted(found, reverse=True)
