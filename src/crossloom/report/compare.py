"""Several finished runs side by side: recipes × chips, in groups of one network on one data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossloom.codesign import Result
from crossloom.errors import InputError
from crossloom.report.accuracy import RUNGS, spread
from crossloom.report.page import command, environment_for_templates
from crossloom.report.pareto import COSTS, Front, Point, fronts
from crossloom.report.run import RESULT, Entry, read_result

DECIDES = ("area", "energy", "latency")
"""Costs that a run is dominated by, beside accuracy; crossbars of two chips may differ in size."""


@dataclass(frozen=True)
class Line:
    """One run in its group.

    Attributes:
        number: in its group, from 1.
        name: the folder's name, or its path where two have one name.
        recipe: its name, `plain` where the run had none.
        chip: its name, with the start of its hash where chips of one name differ.
        point: accuracy on the group's rung, with its spread, and the costs.
        from_float: accuracy less that of the run's own float rung, a fraction; None without one.
        from_dense: accuracy less that of the run's own dense candidate, both on the integer rung; None without one.
        ratios: each cost over the baseline's.
        best: columns in which no run of the group is better, unless all are equal.
        dominated_by: runs that are nowhere worse in accuracy, area, energy and latency, and somewhere better.
        folder: of the run.
        command: that makes it again.
        hashes: of its configuration and of its chip.
        accuracy: of every rung.
    """

    number: int
    name: str
    recipe: str
    chip: str
    point: Point
    from_float: float | None
    from_dense: float | None
    ratios: dict[str, float]
    best: frozenset[str]
    dominated_by: list[str]
    folder: str
    command: str
    hashes: dict[str, str]
    accuracy: dict[str, float]


@dataclass(frozen=True)
class Group:
    """The runs of one network on one data set; figures of different groups are never held against each other.

    Attributes:
        network, data: their names.
        rung: of the accuracy: the highest one that all runs have.
        baseline: the run whose costs the ratios are against.
        lines: the runs in the order given.
        fronts: accuracy against each cost; [] for one run.
        remarks: what a reader must know before comparing.
    """

    network: str
    data: str
    rung: str
    baseline: str
    lines: list[Line]
    fronts: list[Front]
    remarks: list[str]


def compare(folders: Sequence[str | os.PathLike[str]], baseline: str | os.PathLike[str] | None = None) -> list[Group]:
    """Finished runs side by side, one group for each network and data set.

    Args:
        folders: of the runs, at least two with the baseline.
        baseline: the run that costs are divided by in its group; one that is not among `folders` comes first. None,
            and other groups: the group's first run.

    Raises:
        InputError: fewer than two runs, one given twice, one that is not complete, one without accuracies, or runs of
            one network that have no rung in common.
    """
    paths = [Path(folder) for folder in folders]
    if baseline is not None and Path(baseline).resolve() not in [path.resolve() for path in paths]:
        paths.insert(0, Path(baseline))
    places = [path.resolve() for path in paths]
    if twice := [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise InputError("runs", twice[0], "each run once")
    if len(paths) < 2:
        raise InputError("runs", str(paths[0]) if paths else None, "at least two finished runs")
    first = None if baseline is None else places.index(Path(baseline).resolve())
    results = [Result.load(path) for path in paths]
    for path, result in zip(paths, results, strict=True):
        if not result.accuracy:
            raise InputError(f"{path / RESULT}: accuracy", {}, "accuracy on at least one rung (`--evaluate`)")
    together = Entry([read_result(path / RESULT).content for path in paths])
    names = [path.name if [p.name for p in paths].count(path.name) == 1 else str(path) for path in paths]
    kinds = list(dict.fromkeys((result.network, result.data) for result in results))
    return [
        group(kind, [i for i, r in enumerate(results) if (r.network, r.data) == kind], first, results, together, names)
        for kind in kinds
    ]


def group(
    kind: tuple[str, str], members: Sequence[int], first: int | None, results: Sequence[Result], together: Entry,
    names: Sequence[str],
) -> Group:  # fmt: skip
    """The runs of one network and data set.

    Args:
        kind: network and data set.
        members: which runs.
        first: the run given as baseline, if any.
        results: all records.
        together: the same as one list, for the figures' pointers.
        names: of all runs.
    """
    mine = [results[i] for i in members]
    rung = highest([result.accuracy for result in mine], [names[i] for i in members])
    points = [_point(together.at(i), rung, names[i]) for i in members]
    base = points[members.index(first) if first in members else 0]
    marks = winners(points)
    chips = {result.hardware: {r.hardware_hash for r in mine if r.hardware == result.hardware} for result in mine}
    lines = []
    for n, (i, result, point) in enumerate(zip(members, mine, points, strict=True)):
        dense = result.candidates
        tag = f" #{result.hardware_hash[:6]}" if len(chips[result.hardware]) > 1 else ""
        lines.append(
            Line(
                number=n + 1,
                name=point.name,
                recipe=recipe_name(result),
                chip=result.hardware + tag,
                point=point,
                from_float=None if rung == "float" else _less(result.accuracy.get(rung), result.accuracy.get("float")),
                from_dense=dense[-1].accuracy - dense[0].accuracy if len(dense) > 1 else None,
                ratios={c: x.value / base.costs[c].value for c, x in point.costs.items() if base.costs[c].value},
                best=frozenset(column for column, best in marks.items() if n in best),
                dominated_by=[other.name for other in points if other.dominates(point, DECIDES)],
                folder=result.run_dir,
                command=command(together.at(i)),
                hashes={"config": result.config_hash, "chip": result.chip_hash},
                accuracy=result.accuracy,
            )
        )
    return Group(*kind, rung, base.name, lines, fronts(points), remarks(mine, points, rung))


def _less(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _point(result: Entry, rung: str, name: str) -> Point:
    accuracy = result.number("accuracy", rung)
    assert accuracy is not None
    costs = {cost: number for cost, key, _ in COSTS if (number := result.number(key)) is not None}
    return Point(name, accuracy, costs, spread(result, rung)[0], result.number("images", rung))


def highest(accuracies: Sequence[Mapping[str, float]], names: Sequence[str]) -> str:
    """The highest rung of the ladder that all runs have.

    Raises:
        InputError: there is none.
    """
    common = [rung for rung in RUNGS if all(rung in one for one in accuracies)]
    if not common:
        has = "; ".join(f"{name}: {', '.join(one)}" for name, one in zip(names, accuracies, strict=True))
        raise InputError("runs", has, "runs that have a rung in common")
    return common[-1]


def winners(points: Sequence[Point]) -> dict[str, set[int]]:
    """Which points are best in accuracy and in each cost; none where all are equal."""
    columns = {"accuracy": [-point.accuracy.value for point in points]}
    for cost, _, _ in COSTS:
        columns[cost] = [point.costs[cost].value for point in points]
    return {
        name: {i for i, value in enumerate(values) if value == min(values)}
        for name, values in columns.items()
        if min(values) < max(values)
    }


def recipe_name(result: Result) -> str:
    """What to call a run's recipe: its name, or `plain`."""
    return "plain" if result.recipe is None else str(result.recipe.get("name") or "unnamed")


def remarks(results: Sequence[Result], points: Sequence[Point], rung: str) -> list[str]:
    """What makes these runs less than equal."""
    found = []
    order = list(RUNGS)
    above = [r for r in order[order.index(rung) + 1 :] if any(r in result.accuracy for result in results)]
    if above:
        lacking = [p.name for p, r in zip(points, results, strict=True) if above[0] not in r.accuracy]
        found.append(f"accuracy is on the {rung} rung, since these have no {above[0]} rung: {', '.join(lacking)}")
    images = [(f"{p.images.value:g}" if p.images else "an unknown number", p.name) for p in points]
    if len({number for number, _ in images}) > 1:
        told = ", ".join(f"{number} ({name})" for number, name in images)
        found.append(f"accuracies are of different numbers of test images: {told}")
    if len({result.data_fingerprint for result in results}) > 1:
        found.append("the images differ (other training images, or another normalisation): see each run's config.yaml")
    named: dict[str, list[Any]] = {}
    for result in results:
        if result.recipe is not None and result.recipe not in named.setdefault(recipe_name(result), []):
            named[recipe_name(result)].append(result.recipe)
    found += [f"recipes called {name} differ from run to run" for name, several in named.items() if len(several) > 1]
    return found


def record(groups: Sequence[Group]) -> dict[str, Any]:
    """The comparison as JSON values: costs in SI units, accuracies and their differences as fractions."""
    keys = {cost: key for cost, key, _ in COSTS}

    def plain(line: Line) -> dict[str, Any]:
        return {
            "run": line.name, "run_dir": line.folder, "recipe": line.recipe, "hardware": line.chip,
            "accuracy": line.point.accuracy.value,
            "std": line.point.spread.value if line.point.spread else None,
            "images": int(line.point.images.value) if line.point.images else None,
            "accuracy_of_rungs": line.accuracy, "from_float": line.from_float, "from_dense": line.from_dense,
            **{keys[cost]: number.value for cost, number in line.point.costs.items()},
            "ratios": {keys[cost]: ratio for cost, ratio in line.ratios.items()},
            "best": sorted(keys.get(column, column) for column in line.best), "dominated_by": line.dominated_by,
            "config_hash": line.hashes["config"], "chip_hash": line.hashes["chip"],
        }  # fmt: skip

    return {
        "groups": [
            {
                "network": one.network, "data": one.data, "rung": one.rung, "baseline": one.baseline,
                "runs": [plain(line) for line in one.lines], "remarks": one.remarks,
            }
            for one in groups
        ]
    }  # fmt: skip


def page(groups: Sequence[Group]) -> str:
    """The comparison as one HTML file that opens offline.

    A figure's pointer is that in the list of all runs' `result.json`, in the order in which they were compared.
    """
    content = {"groups": groups, "runs": [line for one in groups for line in one.lines]}
    return environment_for_templates().get_template("compare.html.j2").render(content)
