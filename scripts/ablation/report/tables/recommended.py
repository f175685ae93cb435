"""A study against its recommended configuration, as it was compared beside the plan."""

from pathlib import Path

import pandas as pd

from ablation.report.table import Cell, Column, Row, Table
from ablation.study import Study

COLUMNS = [
    Column(name, label, numeric=False)
    for name, label in (
        ("parameter", "parameter"),
        ("yours", "yours"),
        ("recommended", "recommended"),
        ("verdict", "verdict"),
        ("advice", "what to write"),
        ("why", "why"),
    )
]
IN_WORDS = {"swept": "one of those swept", "open": "not decided by the study", "absent": "without meaning here"}


def recommended_table(study: Study, folder: Path) -> Table | None:
    """A row a parameter; None where the study names no recommended configuration, or was not compared with it."""
    path = folder / "recommended.csv"
    if study.recommended is None or not path.is_file():
        return None
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows = [
        Row(
            [Cell(IN_WORDS.get(row["verdict"], row["verdict"]) if c.name == "verdict" else row[c.name]) for c in COLUMNS],
            "bad" if row["verdict"] == "differs" else "",
        )
        for row in found.to_dict("records")
    ]
    sources = "; ".join(dict.fromkeys(found["source"]))
    caption = f"Recommended by {sources}."
    return Table("recommended", "Configuration and what is recommended", caption, COLUMNS, rows)
