"""Write the validation pages: `python -m crossloom.cost.validation FOLDER [SECTION…]`."""

from __future__ import annotations

import sys
from pathlib import Path

from crossloom.cost.validation.page import render
from crossloom.cost.validation.sections import SECTIONS, build
from crossloom.errors import InputError
from crossloom.weave.store import write_text


def main(arguments: list[str]) -> int:
    """Exit code 0, or 2 for unknown arguments."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    folder, names = Path(arguments[0]), arguments[1:]
    try:
        pages = render([build(name) for name in names or SECTIONS])
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        if name != "index.md" or not names:
            write_text(folder / name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
