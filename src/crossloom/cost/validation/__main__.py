"""Write the validation pages: `python -m crossloom.cost.validation FOLDER [SECTION…]`."""

from __future__ import annotations

import sys
from pathlib import Path

from crossloom.cost.validation.sections import write
from crossloom.errors import InputError


def main(arguments: list[str]) -> int:
    """Exit code 0, or 2 for unknown arguments."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        write(Path(arguments[0]), arguments[1:])
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
