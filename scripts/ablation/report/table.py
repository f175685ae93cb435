"""A table of the report, whatever form it is written in: CSV, Markdown, LaTeX, the page, the PDF."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

NONE = "–"
Kind = Literal["", "before", "baseline", "bad", "group"]
"""Of a row: the model before training; the study's baseline; what failed or was refuted; a heading above other rows."""


@dataclass(frozen=True)
class Column:
    """One column. ``numeric`` ones are set flush right."""

    name: str
    """In CSV files: a word, such as ``depth_mae``."""
    label: str
    """As people read it."""
    unit: str = ""
    better: Literal["", "lower", "higher"] = ""
    """Which side is better, shown as an arrow."""
    numeric: bool = True

    @property
    def head(self) -> str:
        """``depth MAE, m ↓``."""
        arrow = {"": "", "lower": "\N{NO-BREAK SPACE}↓", "higher": "\N{NO-BREAK SPACE}↑"}[self.better]
        return f"{self.label}{', ' + self.unit if self.unit else ''}{arrow}"


@dataclass(frozen=True)
class Cell:
    """One entry: as printed, and for sorting and CSV as a number with its interval."""

    text: str
    value: float | None = None
    half_width: float | None = None
    """Half the width of the 95 % interval, where there is one."""
    best: bool = False
    """Whether the interval allows to call it the best of its column: printed bold."""
    runs: Sequence[str] = ()
    """The runs that it comes from, by id."""


@dataclass(frozen=True)
class Row:
    """Cells, one for each column."""

    cells: Sequence[Cell]
    kind: Kind = ""


@dataclass(frozen=True)
class Table:
    """A table with what has to be said of it. ``name`` is that of its files."""

    name: str
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row] = field(default_factory=list)


def texts(*values: object) -> list[Cell]:
    """Cells of plain text; a dash for None."""
    return [Cell(NONE if value is None else str(value)) for value in values]
