"""Published claims and what became of them."""

from collections.abc import Mapping, Sequence

from ablation.report.table import Cell, Column, Kind, Row, Table, texts

MARKS = {"refuted": "✗", "confirmed": "✓", "not comparable": "–"}  # verdicts, in the order of the table
KINDS: dict[str, Kind] = {"refuted": "bad", "not comparable": "before"}


def claim_table(folder_rows: Sequence[Mapping[str, str]]) -> Table:
    """A row a claim, the refuted ones first: what was published, what is ours, and the verdict.

    Where all are from one source the caption names it; where there are several, they are a column.
    """
    sources = {row["source"] for row in folder_rows}
    columns = [
        Column(name, label, numeric=False)
        for name, label in (
            ("verdict", "verdict"),
            ("says", "published"),
            ("claimed", "claimed"),
            ("ours", "ours"),
            ("basis", "basis"),
            ("reason", "remarks"),
            *((("source", "source"),) if len(sources) > 1 else ()),
        )
    ]
    rows = [
        Row(_cells(row, [column.name for column in columns]), KINDS.get(row["verdict"], ""))
        for row in sorted(folder_rows, key=lambda row: list(MARKS).index(row["verdict"]))
    ]
    by = f"Published by: {sources.pop()}. " if len(sources) == 1 and "" not in sources else ""
    caption = (
        f"{by}Ours: counted in the network, predicted before any run, or measured by the runs, as the basis says."
        " Not comparable: the remark says why, and it counts neither way."
    )
    return Table("claims", "Published claims", caption, columns, rows)


def _cells(row: Mapping[str, str], names: Sequence[str]) -> list[Cell]:
    verdict = f"{MARKS[row['verdict']]} {row['verdict']}"
    numbers = texts(*(row[name] or None for name in ("claimed", "ours", "basis")))
    return [Cell(verdict), Cell(row["says"]), *numbers, *(Cell(row[name]) for name in names[5:])]
