"""The recipe's steps as a list that one can read: what each did and what its methods said at their end."""

from __future__ import annotations

from dataclasses import dataclass, field

from crossloom.report.run import Entry, Number
from crossloom.report.units import spoken

Cell = Number | str
"""A number of `result.json`, or words."""


@dataclass
class Told:
    """What one method said at its end.

    Attributes:
        method: its name.
        facts: single values.
        columns: values by layer (or by whatever else their keys name): heading to row to value.
    """

    method: str
    facts: list[tuple[str, Cell]] = field(default_factory=list)
    columns: dict[str, dict[str, Cell]] = field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        """Names of the table's rows, in the order in which they come."""
        return list(dict.fromkeys(row for column in self.columns.values() for row in column))


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        number: from 1.
        name: of the step.
        kind: training or mapping.
        epochs: of training, or None.
        told: by method, those that said something.
    """

    number: int
    name: str
    kind: str
    epochs: Number | None
    told: list[Told]


def steps(result: Entry) -> list[Step]:
    """The steps in their order."""
    found = []
    for i, row in enumerate(result.at("steps").rows()):
        epochs = row.number("epochs")
        told = [one for name, part in row.at("figures").items() if (one := tell(name, part)).facts or one.columns]
        found.append(Step(i + 1, row.text("name"), row.text("kind"), epochs if epochs and epochs.value else None, told))
    return found


def tell(method: str, part: Entry) -> Told:
    """A method's figures: single values as facts, values by key as columns, deeper ones by their path.

    Lists of records, such as the residuals of every update, are left to the charts.
    """
    told = Told(method)
    if not isinstance(part.content, dict):
        _put(told, "result", part)
    for name, entry in part.items():
        _put(told, spoken(name), entry)
    return told


def _put(told: Told, name: str, entry: Entry) -> None:
    if isinstance(entry.content, dict):
        single = {key: cell for key, below in entry.items() if (cell := _cell(below)) is not None}
        if single:
            told.columns[name] = single
        for key, below in entry.items():
            if key not in single:
                _put(told, f"{name}, {spoken(key)}", below)
    elif (cell := _cell(entry)) is not None:
        told.facts.append((name, cell))


def _cell(entry: Entry) -> Cell | None:
    """A value that fits a table's cell, or None for a container of containers and for nothing."""
    content = entry.content
    if content is None or isinstance(content, dict):
        return None
    if isinstance(content, list):
        if any(isinstance(item, (dict, list)) for item in content):
            return None
        return ", ".join(row.text() for row in entry.rows()) if len(content) <= 12 else f"{len(content)} values"
    if isinstance(content, bool):
        return "yes" if content else "no"
    return content if isinstance(content, str) else entry.number()
