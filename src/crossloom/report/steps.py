"""The recipe's steps as a list that one can read: what each did and what its methods said at their end."""

from __future__ import annotations

from dataclasses import dataclass, field

from crossloom.report.pareto import COSTS
from crossloom.report.run import Entry, Number
from crossloom.report.units import count, spoken

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
        left: the candidate that it left: what, number, unit.
    """

    number: int
    name: str
    kind: str
    epochs: Number | None
    told: list[Told]
    left: list[tuple[str, Number, str]] = field(default_factory=list)


def steps(result: Entry) -> list[Step]:
    """The steps in their order."""
    found = []
    for i, row in enumerate(result.at("steps").rows()):
        epochs = row.number("epochs")
        told = [one for name, part in row.at("figures").items() if (one := tell(name, part)).facts or one.columns]
        epochs = epochs if epochs and epochs.value else None
        found.append(
            Step(i + 1, row.text("name"), row.text("kind"), epochs, told, left(result.at("candidates", i + 1)))
        )
    return found


def left(candidate: Entry) -> list[tuple[str, Number, str]]:
    """A candidate's accuracy and costs: what, number, unit."""
    wanted = (("accuracy", "accuracy", "%"), *COSTS)
    return [(what, number, unit) for what, key, unit in wanted if (number := candidate.number(key)) is not None]


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
        deeper = {key: below for key, below in entry.items() if key not in single}
        for key, below in deeper.items():
            for inner, value in below.items():  # layer to {what: value} is a column for each what
                if (cell := _cell(value)) is not None:
                    told.columns.setdefault(spoken(inner), {})[key] = cell
                else:
                    _put(told, f"{name}, {spoken(key)}, {spoken(inner)}", value)
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
        said = [count(item) if type(item) in (int, float) else str(item) for item in content]
        return ", ".join(said) if len(said) <= 12 else f"{count(len(said))} values"
    if isinstance(content, bool):
        return "yes" if content else "no"
    return content if isinstance(content, str) else entry.number()
