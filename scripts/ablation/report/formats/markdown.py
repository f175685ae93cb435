"""A table as GitHub's Markdown."""

import re
import unicodedata

from ablation.report.table import Cell, Row, Table

SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")  # what GitHub takes for more than text, formulas and entities too
ENDS = ("Cc", "Zl", "Zp")  # what may end a line


def as_markdown(table: Table) -> str:
    """A heading, the caption, and the table; what is best of its column is bold."""
    head = [escaped(column.head) for column in table.columns]
    align = ["---:" if column.numeric else ":---" for column in table.columns]
    rows = [_cells(row, len(table.columns)) for row in table.rows]
    lines = [head, align, *rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    caption = f"{escaped(table.caption)}\n\n" if table.caption else ""
    return f"### {escaped(table.title)}\n\n{caption}{body}\n"


def escaped(text: str) -> str:
    """``text`` so that Markdown shows it as it is, on one line."""
    one_line = text if text.isprintable() else "".join(" " if unicodedata.category(c) in ENDS else c for c in text)
    return SPECIAL.sub(r"\\\1", one_line).strip()


def _cells(row: Row, count: int) -> list[str]:
    cells = [*row.cells, *[Cell("")] * (count - len(row.cells))]
    strong = row.kind == "group"
    return [
        f"**{escaped(cell.text)}**" if cell.text.strip() and (cell.best or strong) else escaped(cell.text) for cell in cells
    ]
