"""AAT (Nehete et al., 2025): ResNet18, SOT in place of RRAM crossbars: latency −95 %, energy −93.3 %."""

from __future__ import annotations

import pytest

from crossloom.cost.validation.devices import CHIPS, CLAIM, cost


@pytest.mark.slow
def test_the_sourced_point_that_gives_the_claim() -> None:
    """ISAAC's 100 ns RRAM read, Angizi's 2.85 ns SOT read, a converter a column, wide links and ports."""
    around = CHIPS["a converter a column, 2048-bit links and ports"]
    rram, sot = cost("rram-isaac", around), cost("sot-mram", around)
    assert sot.latency_s / rram.latency_s - 1 == pytest.approx(CLAIM[0], abs=0.02)
    assert sot.energy_j / rram.energy_j - 1 == pytest.approx(CLAIM[1], abs=0.03)


@pytest.mark.slow
def test_the_preset_chip_does_not_give_it() -> None:
    rram, sot = cost("rram-binary", {}), cost("sot-mram", {})
    assert CLAIM[0] < sot.latency_s / rram.latency_s - 1 < 0
    assert CLAIM[1] < sot.energy_j / rram.energy_j - 1 < 0
