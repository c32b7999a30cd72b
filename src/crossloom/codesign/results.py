"""The papers' tables beside ours: `results/<paper>-<network>.json`, its schema, and the page made from all of them.

A file is one JSON object (`ResultsFile`), one per paper and network. A row is one number of a paper's table, or one
that the paper lacks, with ours, what it took and the command that makes it again. A number of the paper's that we do
not reach stays in the file as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crossloom.codesign.config import explained
from crossloom.errors import InputError
from crossloom.weave.store import write_text

VERSION = 1
"""Of the format; raised when an older reader would misread a file."""

FOLDER = Path("results")
"""Where the files lie."""

SCHEMA = "schema.json"


class Strict(BaseModel):
    """Base: immutable, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Budget(Strict):
    """What a number took."""

    epochs: int = Field(ge=0)
    """Training epochs, all phases; 0: nothing was trained."""

    images: int = Field(ge=0)
    """Test images that the number was measured on; 0: none was needed."""

    device: str
    """What computed it, such as `cpu` or a GPU's name."""


class Row(Strict):
    """One number."""

    table: str
    """Of the paper, or a heading of ours where the paper has no such table."""

    row: str
    """Of that table."""

    metric: str
    """What is measured."""

    unit: str
    """`%`, `points`, `arrays`, an SI unit, or empty."""

    paper: float | None
    """The paper's number; null where it gives none."""

    ours: float
    """Our number, as measured."""

    spread: float | None
    """Standard deviation of ours over repeated runs; null for a single run."""

    budget: Budget
    """What ours took."""

    command: str
    """Makes our number again."""

    config_hash: str | None
    """Hash of the run's configuration; null where no run was needed."""


class ResultsFile(Strict):
    """All rows of one paper and network."""

    version: Literal[1] = 1
    """Of this format."""

    paper: str
    """Short name, as `crossloom reproduce` takes it."""

    title: str
    """Of the paper, with authors, venue and year."""

    network: str
    """Name of the network."""

    rows: tuple[Row, ...]
    """In the order of the paper."""

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.paper}-{self.network}.json"

    def merged(self, rows: Iterable[Row]) -> ResultsFile:
        """With `rows` in place of those for the same table, row and metric, or behind them."""
        new = {(r.table, r.row, r.metric): r for r in rows}
        kept = [new.pop((r.table, r.row, r.metric), r) for r in self.rows]
        return self.model_copy(update={"rows": (*kept, *new.values())})

    def save(self, folder: str | os.PathLike[str] = FOLDER) -> Path:
        """Write into a folder, atomically; rows of a file that is there already are merged.

        Raises:
            InputError: the file that is there is damaged.
            OSError: it cannot be written.
        """
        path = Path(folder) / self.name
        whole = load(path).merged(self.rows) if path.is_file() else self
        write_text(path, whole.model_dump_json(indent=2) + "\n")
        return path


def load(path: str | os.PathLike[str]) -> ResultsFile:
    """A results file.

    Raises:
        InputError: it cannot be read or does not follow the schema; the field is named.
    """
    try:
        return ResultsFile.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except ValidationError as error:
        found = explained(error, ResultsFile)
        raise InputError(f"{path}: {found.field}", found.value, found.expected, found.nearest) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("results", str(path), f"a readable file ({error})") from error


def load_all(folder: str | os.PathLike[str] = FOLDER) -> list[ResultsFile]:
    """Every results file of a folder, by name."""
    paths = sorted(path for path in Path(folder).glob("*.json") if path.name != SCHEMA)
    files = [load(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        if path.name != file.name:
            raise InputError("results", str(path), f"the file name {file.name}, by its paper and network")
    return files


def schema() -> dict[str, Any]:
    """The JSON schema of a results file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ResultsFile.model_json_schema()}


def schema_text() -> str:
    """The schema as it stands in `results/schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def render(files: Iterable[ResultsFile]) -> str:
    """The results page as Markdown."""
    lines = [
        "# Results",
        "",
        "Generated by `crossloom results render` from `results/*.json`; do not edit. Each number comes with the",
        "command that makes it again. *Paper* is empty where the paper gives no number.",
        "",
    ]
    paper = None
    for file in sorted(files, key=lambda f: (f.paper, f.network)):
        if file.paper != paper:
            lines += [f"## {file.paper}", "", file.title, ""]
            paper = file.paper
        lines += [f"### {file.network}", ""]
        for table, rows in groupby(sorted(file.rows, key=_table_order(file)), key=lambda row: row.table):
            lines += [f"**{table}**", "", *_table(list(rows))]
        lines += [*(f"- `{command}`" for command in dict.fromkeys(row.command for row in file.rows)), ""]
    return "\n".join(lines)


def written(value: float | None, unit: str, sign: bool = False) -> str:
    """A number as tables show it: per cent and points with two decimals, others with six significant digits."""
    if value is None:
        return ""
    form = ("+" if sign else "") + (".2f" if unit in ("%", "points") else ".6g")
    text = f"{value:{form}}"
    return (text[1:] if float(text) == 0 and text[0] in "+-" else text).replace("-", "−")


def _table_order(file: ResultsFile) -> Callable[[Row], int]:
    """Rows of one table together, tables in the order in which they first appear."""
    tables = list(dict.fromkeys(row.table for row in file.rows))
    return lambda row: tables.index(row.table)


def _table(rows: list[Row]) -> list[str]:
    """One table as Markdown; what all rows took stands below it once."""
    budgets = {_budget(row) for row in rows}
    one = len(budgets) == 1
    lines = [
        "| row | metric | unit | paper | ours | difference |" + ("" if one else " budget |"),
        "|---|---|---|--:|--:|--:|" + ("" if one else "---|"),
        *(_line(row, not one) for row in rows),
        "",
    ]
    return [*lines, f"{budgets.pop()}.", ""] if one else lines


def _budget(row: Row) -> str:
    """What a number took, in words."""
    took = (f"{row.budget.epochs} epochs", f"{row.budget.images} test images")
    return ", ".join([*(words for words in took if not words.startswith("0 ")), row.budget.device])


def _line(row: Row, with_budget: bool) -> str:
    ours = written(row.ours, row.unit) + (f" ± {row.spread:.2g}" if row.spread is not None else "")
    difference = None if row.paper is None else row.ours - row.paper
    numbers = (written(row.paper, row.unit), ours, written(difference, row.unit, sign=True))
    cells = (row.row, row.metric, row.unit, *numbers, *([_budget(row)] if with_budget else []))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
