"""All sections by name, in the order of the pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from crossloom.cost.validation.crimp import crimp_figure_7
from crossloom.cost.validation.devices import sot_against_rram
from crossloom.cost.validation.neurosim import neurosim
from crossloom.cost.validation.page import Section, render
from crossloom.cost.validation.silicon import isaac, neurram, rram_40nm
from crossloom.errors import InputError
from crossloom.weave.store import write_text

SECTIONS: dict[str, Callable[[], Section]] = {
    "isaac": isaac,
    "neurram": neurram,
    "rram-40nm": rram_40nm,
    "crimp-figure-7": crimp_figure_7,
    "sot-against-rram": sot_against_rram,
    "neurosim-vgg8": neurosim,
}
"""Section builders by name."""


def build(name: str) -> Section:
    """One section.

    Raises:
        InputError: an unknown name.
    """
    if name not in SECTIONS:
        raise InputError.choice("section", name, SECTIONS)
    return SECTIONS[name]()


def write(
    folder: Path, names: Sequence[str] = (), tick: Callable[[int, int], None] = lambda done, of: None
) -> list[Path]:
    """Write pages: all of them and their index, or those of some sections.

    Args:
        folder: made if it is not there.
        names: of sections; none means all.
        tick: is told how many of how many are done.

    Raises:
        InputError: an unknown name.
    """
    wanted = list(names) or list(SECTIONS)
    sections = []
    for i, name in enumerate(wanted):
        tick(i, len(wanted))
        sections.append(build(name))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file, text in render(sections).items():
        if file != "index.md" or not names:
            write_text(folder / file, text)
            written.append(folder / file)
    return written
