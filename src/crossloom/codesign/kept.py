"""Parts of a long study that are kept on disk, so that a study that stops goes on behind the last part it finished."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossloom.codesign.progress import Progress, Silent
from crossloom.weave.store import write_text


class Kept:
    """A folder of JSON files, one per finished part.

    Args:
        folder: where they lie; its name should hold a hash of whatever decides the results.
        progress: told of every part.
    """

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self.folder, self.progress = folder, progress or Silent()

    def part(self, name: str, what: str, make: Callable[[], Any]) -> Any:
        """The part's result, from disk or made now: numbers, texts, lists and dictionaries of them.

        Args:
            name: of the file; unique in the study.
            what: for people.
            make: computes it.
        """
        path = self.folder / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        started = time.monotonic()
        self.progress.begin(name, what)
        made = json.loads(json.dumps(make(), allow_nan=False))
        write_text(path, json.dumps(made, indent=1) + "\n")
        self.progress.end(name, time.monotonic() - started, "")
        return made
