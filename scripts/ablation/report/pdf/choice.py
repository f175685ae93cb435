"""What of a report is printed: an ablation section, not a dump. All of it is in the page and in the files beside."""

from collections import Counter
from dataclasses import replace
from itertools import accumulate

from ablation.report.table import Row, Table

LEFT_OUT = ("runs", "components")
"""A row a run, which a reader of paper cannot sort, filter or follow; and what the figure of components shows."""
LINES = 30
"""Of a table, at most: a row whose text is broken into lines takes several."""
LINE = 40  # letters, about
MOST_TEXT = 240  # letters of an entry
ALWAYS = ("before", "baseline")
"""Kinds of rows that others are read against."""


def chosen(table: Table) -> tuple[Table, str]:
    """The table with what an ablation section tells of it, and a sentence on the rest; there may be no row left."""
    return CHOICES[table.name](table) if table.name in CHOICES and table.rows else (table, "")


def _primary_alone(table: Table) -> tuple[Table, str]:
    metric = table.rows[0].cells[0].text
    rows = [replace(row, cells=row.cells[1:]) for row in table.rows if row.cells[0].text == metric]
    rest = " The other metrics are in tables/differences.csv." if len(rows) < len(table.rows) else ""
    return replace(table, columns=table.columns[1:], rows=rows), f"Of {metric}.{rest}"


def _compared(table: Table) -> tuple[Table, str]:
    """The claims that could be compared, and of the others how many could not for which reason."""
    reason = next(i for i, column in enumerate(table.columns) if column.name == "reason")
    rows = [row for row in table.rows if row.kind != "before"]
    counts = Counter(row.cells[reason].text for row in table.rows if row.kind == "before").most_common()
    told = "; ".join(f"{count} as {text}" for text, count in counts)
    missing = len(table.rows) - len(rows)
    note = f"Of {len(table.rows)} claims {missing} are not comparable: {told}." if missing else ""
    return replace(table, rows=rows), note


def _differing(table: Table) -> tuple[Table, str]:
    rows = [row for row in table.rows if row.kind == "bad"]
    return replace(table, rows=rows), f"{len(rows)} of {len(table.rows)} parameters differ from what is recommended."


CHOICES = {"differences": _primary_alone, "claims": _compared, "recommended": _differing}


def cut(table: Table, most: int = LINES) -> tuple[Table, str]:
    """The table with as many of its rows as take ``most`` lines, in order, and a note on what is missing, or an empty one.

    They are those with the best values of the first column that has a better side, beside the model before training and the
    baseline; the first ones where no column has. A heading stays where one of its rows does. Very long entries are shortened.
    """
    rows = [i for i, row in enumerate(table.rows) if row.kind != "group"]
    ranked, label = _ranked(table, rows)
    first = [i for i in rows if table.rows[i].kind in ALWAYS]
    order = [*first, *(i for i in ranked if i not in first)]
    lines = accumulate(_lines(table.rows[i]) for i in order)
    kept = {i for i, upto in zip(order, lines, strict=True) if upto <= most}
    note = ""
    if len(kept) < len(rows):
        which = f"The {len(kept)} rows with the best {label}" if label else f"The first {len(kept)} rows"
        note = f"{which} of {len(rows)}; all are in tables/{table.name}.csv."
    shown = [_shortened(row) for i, row in enumerate(table.rows) if i in kept or _heads(table, i, kept)]
    return replace(table, rows=shown), note


def _lines(row: Row) -> int:
    return max((-(-min(len(cell.text), MOST_TEXT) // LINE) for cell in row.cells), default=1) or 1


def _shortened(row: Row) -> Row:
    long = any(len(cell.text) > MOST_TEXT for cell in row.cells)
    cells = [
        replace(cell, text=cell.text if len(cell.text) <= MOST_TEXT else f"{cell.text[:MOST_TEXT]}…") for cell in row.cells
    ]
    return replace(row, cells=cells) if long else row


def _ranked(table: Table, rows: list[int]) -> tuple[list[int], str]:
    for place, column in enumerate(table.columns):
        values = {i: value for i in rows if (value := table.rows[i].cells[place].value) is not None} if column.better else {}
        if values:
            sign = 1 if column.better == "lower" else -1
            return sorted(rows, key=lambda i: (i not in values, sign * values.get(i, 0.0), i)), column.label
    return rows, ""


def _heads(table: Table, at: int, kept: set[int]) -> bool:
    """Whether a row is the heading of one that is kept."""
    if table.rows[at].kind != "group":
        return False
    below: list[Row] = list(table.rows[at + 1 :])
    length = next((i for i, row in enumerate(below) if row.kind == "group"), len(below))
    return bool(kept & set(range(at + 1, at + 1 + length)))
