"""Published figures beside ours: one section a chip or claim, rendered to `docs/validation/`.

`crossloom validate --pages docs/validation` writes the pages. No estimate reads anything of this package.
"""

from crossloom.cost.validation.page import Section, Table, render
from crossloom.cost.validation.sections import SECTIONS, build, write

__all__ = ["SECTIONS", "Section", "Table", "build", "render", "write"]
