"""What a run folder holds: `result.json`, `chip.safetensors` and the training logs `metrics.csv`, read and checked.

Every number that the report shows is fetched through `Entry`, which remembers where in `result.json` it stands
(a JSON pointer, RFC 6901), so that a reader and a test can find it again.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossloom.compiled import CompiledChip
from crossloom.errors import InputError

RESULT, CHIP, METRICS = "result.json", "chip.safetensors", "metrics.csv"


@dataclass(frozen=True)
class Number:
    """A number of `result.json`.

    Attributes:
        pointer: where it stands, as a JSON pointer.
        value: what stands there.
    """

    pointer: str
    value: float


@dataclass(frozen=True)
class Entry:
    """A part of `result.json`.

    Attributes:
        content: the JSON value.
        pointer: where it stands in the file.
    """

    content: Any
    pointer: str = ""

    def at(self, *keys: str | int) -> Entry:
        """The part below; its content is None where the file has none."""
        part: Any = self.content
        for key in keys:
            if isinstance(part, dict) and isinstance(key, str):
                part = part.get(key)
            else:
                part = part[key] if isinstance(part, list) and isinstance(key, int) and key < len(part) else None
        escaped = (str(key).replace("~", "~0").replace("/", "~1") for key in keys)
        return Entry(part, "/".join((self.pointer, *escaped)))

    def __bool__(self) -> bool:
        return self.content not in (None, {}, [], "")

    def number(self, *keys: str | int) -> Number | None:
        """The number below, or None where the file has none.

        Raises:
            InputError: something stands there that is no finite number.
        """
        part = self.at(*keys)
        if part.content is None:
            return None
        if isinstance(part.content, bool) or not isinstance(part.content, (int, float)):
            raise InputError(f"{RESULT}{part.pointer}", part.content, "a number")
        if not math.isfinite(part.content):
            raise InputError(f"{RESULT}{part.pointer}", part.content, "a finite number")
        return Number(part.pointer, part.content)

    def text(self, *keys: str | int) -> str:
        """What stands below in words; empty where the file has nothing."""
        content = self.at(*keys).content
        return "" if content is None else content if isinstance(content, str) else json.dumps(content)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """The entries of an object with their names; none if this is no object."""
        if isinstance(self.content, dict):
            yield from ((name, self.at(name)) for name in self.content)

    def rows(self) -> Iterator[Entry]:
        """The entries of a list; none if this is no list."""
        if isinstance(self.content, list):
            yield from (self.at(i) for i in range(len(self.content)))

    def numbers(self) -> list[tuple[str, Number]]:
        """The numbers of an object with their names."""
        found = ((name, self.number(name)) for name, _ in self.items())
        return [(name, number) for name, number in found if number is not None]


@dataclass(frozen=True)
class Log:
    """A training log.

    Attributes:
        title: the folder it lies in, relative to the run; empty for the run folder itself.
        epochs: the first column.
        series: the other columns by name; None where a line leaves a column blank or has no finite number.
    """

    title: str
    epochs: list[float]
    series: dict[str, list[float | None]]


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        folder: its path.
        result: `result.json`.
        chip: the compiled chip, or None where the folder has none.
        logs: the training logs, run folder first.
    """

    folder: Path
    result: Entry
    chip: CompiledChip | None
    logs: tuple[Log, ...]


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Raises:
        InputError: no such folder, no result in it, a file that is damaged, or a chip that is not the one of the
            result.
    """
    path = Path(folder)
    if not (path / RESULT).is_file():
        raise InputError("run folder", str(path), f"a folder with {RESULT}, as `crossloom demo` and `train` write it")
    result = read_result(path / RESULT)
    chip = CompiledChip.load(path / CHIP) if (path / CHIP).is_file() else None
    expected = result.text("chip_hash")
    if chip is not None and expected and chip.hash != expected:
        raise InputError(str(path / CHIP), chip.hash[:12], f"the chip of the result, whose hash starts {expected[:12]}")
    logs = tuple(read_log(file, path) for file in sorted(path.rglob(METRICS), key=lambda f: (len(f.parts), f)))
    return Run(path, result, chip, logs)


def read_result(path: Path) -> Entry:
    """Read `result.json`.

    Raises:
        InputError: no JSON object, or one that holds NaN or infinity, which JSON does not know.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "unreadable", f"a JSON object ({error})") from error
    if not isinstance(content, dict):
        raise InputError(str(path), type(content).__name__, "a JSON object")
    return Entry(content)


def read_log(path: Path, folder: Path) -> Log:
    """Read a training log: a header line, then one line of numbers per epoch; blanks are allowed.

    Raises:
        InputError: something that is no number, or no text.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        columns = list(lines[0]) if lines else []
        table = {name: [float(line[name]) if line[name] else None for line in lines] for name in columns}
    except (TypeError, ValueError, csv.Error) as error:
        raise InputError(str(path), "unreadable", f"a header and lines of numbers ({error})") from error
    finite = {name: [v if v is None or math.isfinite(v) else None for v in values] for name, values in table.items()}
    first = finite.pop(columns[0]) if columns else []
    epochs = [float(i + 1) if epoch is None else epoch for i, epoch in enumerate(first)]
    title = path.parent.relative_to(folder).as_posix()
    return Log("" if title == "." else title, epochs, finite)
