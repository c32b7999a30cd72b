"""All sections by name, in the order of the pages."""

from __future__ import annotations

from collections.abc import Callable

from crossloom.cost.validation.crimp import crimp_figure_7
from crossloom.cost.validation.devices import sot_against_rram
from crossloom.cost.validation.neurosim import neurosim
from crossloom.cost.validation.page import Section
from crossloom.cost.validation.silicon import isaac, neurram, rram_40nm
from crossloom.errors import InputError

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
