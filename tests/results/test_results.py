"""The papers' tables as files: the schema, the page, and every committed file and command held to them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from hypothesis import given, settings
from hypothesis import strategies as st

from crossloom.cli.app import app
from crossloom.codesign.results import Budget, ResultsFile, Row, load, load_all, render, schema, schema_text, written
from crossloom.errors import InputError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"

words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)
numbers = st.floats(-1e6, 1e6)
rows = st.builds(
    Row, table=words, row=words, metric=words, unit=st.sampled_from(["%", "points", "arrays", "J", ""]),
    paper=st.none() | numbers, ours=numbers, spread=st.none() | st.floats(0, 10),
    budget=st.builds(Budget, epochs=st.integers(0, 300), images=st.integers(0, 10000), device=words), command=words,
    config_hash=st.none() | st.just("ab" * 32),
)  # fmt: skip


def file(*content: Row) -> ResultsFile:
    return ResultsFile(paper="crimp", title="A paper", network="lenet5", rows=content)


def row(**changes: object) -> Row:
    plain = {
        "table": "T", "row": "R", "metric": "M", "unit": "%", "paper": 99.0, "ours": 98.5, "spread": None,
        "budget": {"epochs": 1, "images": 2, "device": "cpu"}, "command": "crossloom reproduce crimp",
        "config_hash": None,
    }  # fmt: skip
    return Row.model_validate({**plain, **changes})


@settings(max_examples=30, deadline=None)
@given(content=st.lists(rows, max_size=4, unique_by=lambda r: (r.table, r.row, r.metric)))
def test_a_file_is_read_as_it_was_written(content: list[Row], tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("results")
    path = file(*content).save(folder)
    assert path.name == "crimp-lenet5.json"
    assert load(path) == file(*content)
    assert load_all(folder) == [file(*content)]


@settings(max_examples=30, deadline=None)
@given(content=st.lists(rows, min_size=1, max_size=4))
def test_every_row_is_one_line_of_its_table(content: list[Row]) -> None:
    lines = render([file(*content)]).splitlines()
    table = [line for line in lines if line.startswith("| ") and not line.startswith("| row | metric ")]
    assert len(table) == len(content)
    assert sum(line.startswith("| row | metric ") for line in lines) == len({row.table for row in content})
    widths = [len(re.split(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]
    assert set(widths) <= {8, 9}


def test_new_rows_replace_old_ones_in_their_place(tmp_path) -> None:
    file(row(row="a"), row(row="b")).save(tmp_path)
    file(row(row="b", ours=1.0), row(row="c")).save(tmp_path)
    found = load(tmp_path / "crimp-lenet5.json").rows
    assert [(r.row, r.ours) for r in found] == [("a", 98.5), ("b", 1.0), ("c", 98.5)]


def test_numbers_on_the_page() -> None:
    assert written(99.141, "%") == "99.14"
    assert written(-0.5, "points", sign=True) == "−0.50"
    assert written(0.5, "points", sign=True) == "+0.50"
    assert written(-0.001, "points", sign=True) == "0.00"
    assert written(3596, "arrays") == "3596"
    assert written(None, "%") == ""
    page = render([file(row(), row(paper=None, ours=3.0, unit="arrays", spread=0.25))])
    assert "| 99.00 | 98.50 | −0.50 |\n" in page
    assert "|  | 3 ± 0.25 |  |\n" in page
    assert page.count("1 epochs, 2 test images, cpu.") == 1
    other = row(row="b", budget=Budget(epochs=3, images=0, device="cpu"))
    assert "| −0.50 | 3 epochs, cpu |" in render([file(row(), other)])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rows": [{"table": "T"}]}, "rows.0.row"),
        ({"version": 2}, "version"),
        ({"papr": 1}, "papr"),
        ({"rows": "none"}, "rows"),
    ],
)
def test_a_wrong_file_names_its_field(change: dict, field: str, tmp_path) -> None:
    content = {**json.loads(file(row()).model_dump_json()), **change}
    (tmp_path / "crimp-lenet5.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        load_all(tmp_path)
    assert field in str(caught.value)
    (tmp_path / "crimp-lenet5.json").write_text("{")
    with pytest.raises(InputError):
        load_all(tmp_path)


def test_a_file_under_a_wrong_name_is_refused(tmp_path) -> None:
    (tmp_path / "other.json").write_text(file(row()).model_dump_json())
    with pytest.raises(InputError, match=r"crimp-lenet5\.json"):
        load_all(tmp_path)


def test_the_committed_schema_is_the_model() -> None:
    assert (RESULTS / "schema.json").read_text(encoding="utf-8") == schema_text()
    assert {"table", "row", "metric", "unit", "paper", "ours", "spread", "budget", "command"} <= set(
        schema()["$defs"]["Row"]["required"]
    )


def test_the_committed_page_is_that_of_the_committed_files() -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == render(load_all(RESULTS))


def committed_commands() -> list[str]:
    pending = re.findall(r"^- `(crossloom [^`]+)`$", (RESULTS / "PENDING.md").read_text(encoding="utf-8"), re.MULTILINE)
    return sorted({*pending, *(r.command for f in load_all(RESULTS) for r in f.rows)})


def test_there_are_committed_commands() -> None:
    assert len(committed_commands()) >= 10


@pytest.mark.parametrize("line", committed_commands())
def test_every_committed_command_exists(line: str) -> None:
    """The command line parses, and names networks, data and papers that there are."""
    from crossloom.codesign import data_names
    from crossloom.codesign.reproduce import reproductions
    from crossloom.training import network_names

    program, name, *arguments = shlex.split(line)
    assert program == "crossloom"
    command = typer.main.get_command(app).commands[name]
    given = command.make_context(name, arguments).params
    assert given["network"] in network_names()
    if name == "reproduce":
        assert given["network"] in reproductions()[given["paper"]].networks
    else:
        assert given["data"] in data_names()
