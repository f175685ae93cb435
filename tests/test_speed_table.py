"""docs/speed.md: what the benchmarks found, each row with a test that its two sides are equal."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT
from recording import Row, read_all, record, told
from write_speed_table import PAGE, page

ROWS = [row for found in read_all().values() for row in found["rows"]]


def named(path: Path) -> set[str]:
    found = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(read_all()), "run `make speed-table`"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_the_test_that_a_row_names_is_there(row):
    path, _, name = row.test.partition("::")
    assert name in named(ROOT / path)


@pytest.mark.parametrize("name", sorted(read_all()))
def test_what_made_a_record_is_there(name):
    assert "recording" in (ROOT / f"benchmarks/{name}.py").read_text()


def test_a_record_is_read_back(tmp_path):
    row = Row("one thing", 4.0, 1.0, "s", "tests/test_speed_table.py::test_a_record_is_read_back")
    record("thing", [row], tmp_path)
    found = read_all(tmp_path)
    assert found["thing"]["rows"] == [row] and found["thing"]["cores"] >= 1 and "torch" in found["thing"]["versions"]
    assert "| one thing | 4 s | 1 s | 0.25 | thing |" in page(found)
    assert told([row]) == "one thing: 4 -> 1 s, ratio 0.250\n"
