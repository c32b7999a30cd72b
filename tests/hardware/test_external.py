"""NeuroSim and CACTI through hwcomponents: an option where their programs run, and never more."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from crossloom.errors import InputError
from crossloom.hardware import components, external, load
from crossloom.hardware.components import MixedFamilies

PACKAGES = {"cacti": "hwcomponents_cacti", "neurosim": "hwcomponents_neurosim"}
PARTS = {"cacti": ["buffer"], "neurosim": ["shift_add", "tile_adder", "input_register", "output_register"]}


def with_parts_of(family: str):
    return load("neurosim-rram", {"components.replace": [family]})


@pytest.mark.parametrize("family", PACKAGES)
def test_real_programs_price_their_parts(family: str) -> None:
    lost = external.missing(PACKAGES[family])
    if lost is not None:
        pytest.skip(f"missing: {lost}")
    plain = components(load("neurosim-rram"))
    with pytest.warns(MixedFamilies):
        mixed = components(with_parts_of(family))
    assert set(mixed) == set(plain)
    for name in PARTS[family]:
        assert "hwcomponents" in mixed[name].source
        assert 0.1 < mixed[name].energy / plain[name].energy < 10
        whole = [part.area * (float(part.count) if part.fixed else 1) for part in (mixed[name], plain[name])]
        assert 0.1 < whole[0] / whole[1] < 10


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hwcomponents_cacti", None)
    with pytest.warns(MixedFamilies), pytest.raises(InputError, match="the package hwcomponents-cacti"):
        components(with_parts_of("cacti"))


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("main: /lib/libc.so.6: version `GLIBC_2.38' not found (required by main)", "version `GLIBC_2.38' not found"),
        ("usage: cacti -infile", None),
    ],
)
def test_a_program_for_a_newer_system_is_named(
    monkeypatch: pytest.MonkeyPatch, stderr: str, expected: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "hwcomponents_cacti", SimpleNamespace(__file__="/there/__init__.py"))
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(external.subprocess, "run", lambda *words, **more: done)
    lost = external.missing("hwcomponents_cacti")
    assert lost is None if expected is None else expected in str(lost)


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hwcomponents_cacti", SimpleNamespace(__file__="/nowhere/__init__.py"))
    assert "/nowhere/cacti/cacti, which does not start" in str(external.missing("hwcomponents_cacti"))


def test_energy_is_split_over_the_bits_of_an_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with round figures: a 256-bit read of 512 pJ is 2 pJ a bit; a register's write and read are mean."""

    class Model:
        area, leak_power = 3e-9, 1e-6

        def __init__(self, **given: float) -> None:
            self.given = given

        def _cost(self, energy: float) -> SimpleNamespace:
            return SimpleNamespace(energy=energy, latency=1e-9)

        def read(self) -> SimpleNamespace:
            return self._cost(512e-12)

        def write(self) -> SimpleNamespace:
            return self._cost(256e-12)

        add = read

    kinds = ("SRAM", "ShiftAdd", "Adder", "FlipFlop")
    stand_in = SimpleNamespace(**dict.fromkeys(kinds, Model))
    monkeypatch.setattr(external, "_models", lambda family, package: stand_in)
    chip = load("neurosim-rram")
    buffer = external.cacti(chip).components["buffer"]
    assert buffer.energy == pytest.approx(2e-12)
    assert (buffer.area, buffer.leakage) == (3e-9, 1e-6)
    parts = external.neurosim(chip).components
    assert parts["input_register"].energy == pytest.approx(384e-12 / 8)
    assert parts["output_register"].energy == pytest.approx(384e-12 / 24)
    assert parts["shift_add"].energy == parts["tile_adder"].energy == pytest.approx(512e-12)
    assert parts["input_register"].count == 128 * 16
    assert parts["output_register"].count == 32 * 16
