"""A table as CSV: numbers in full precision, for who computes with them."""

import csv
import io
from collections.abc import Callable, Iterator

from ablation.report.table import NONE, Cell, Column, Table

EMPTY = ("", NONE)


def as_csv(table: Table) -> str:
    """A line a row. A column of numbers becomes up to three: the number, half the width of its interval, and text.

    Text stands where it says what a number does not, such as ``OOM``.
    """
    fields = [field for i, column in enumerate(table.columns) for field in _fields(table, i, column)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([head for head, _, _ in fields])
    for row in table.rows:
        writer.writerow([value(row.cells[i]) for _, i, value in fields])
    return text.getvalue()


def _fields(table: Table, i: int, column: Column) -> Iterator[tuple[str, int, Callable[[Cell], str]]]:
    """Head, index of the column, and what of a cell stands below it."""
    cells = [row.cells[i] for row in table.rows]
    if not column.numeric or all(cell.value is None for cell in cells):
        yield column.name, i, lambda cell: "" if cell.text == NONE else _text(cell)
        return
    unit = f" [{column.unit}]" if column.unit else ""
    yield f"{column.name}{unit}", i, lambda cell: "" if cell.value is None else _plain(cell.value)
    if any(cell.half_width is not None for cell in cells):
        yield f"{column.name} ±{unit}", i, lambda cell: "" if cell.half_width is None else _plain(cell.half_width)
    if any(cell.value is None and cell.text not in EMPTY for cell in cells):
        yield f"{column.name} text", i, lambda cell: _text(cell) if cell.value is None and cell.text not in EMPTY else ""


def _text(cell: Cell) -> str:
    return cell.text.replace("\r", " ")  # csv.writer does not quote it


def _plain(value: float) -> str:
    """The shortest digits that are this number; whole numbers without a point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
