"""The command line: parses, calls the rooms above, prints.

Standard output carries results and nothing else: a table, or with `--json` exactly one JSON object. Progress,
remarks and errors go to standard error. Exit codes: 0 done; 1 failed; 2 bad input (also what the user can mend on
the machine: missing files, missing rights, a full disk); 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code.

    Args:
        arguments: without the program's name; default those of this process.
    """
    from crossloom.cli import errors, output
    from crossloom.cli.app import app

    given = list(sys.argv[1:] if arguments is None else arguments)
    flags = output.flags(given)
    try:
        made = app(given, prog_name="crossloom", standalone_mode=False)
        if isinstance(made, output.Output):
            output.present(made, flags)
            return 0
        sys.stdout.flush()
        return output.interrupted(flags) if made == errors.INTERRUPTED else int(made or 0)
    except BaseException as error:  # the one place where errors become words and exit codes
        return output.fail(error, flags)
