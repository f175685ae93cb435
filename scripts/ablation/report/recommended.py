"""The report's table of a study against its recommended configuration, as it was made beside the plan."""

from pathlib import Path
from typing import Any

import pandas as pd

from ablation.study import Study

HEAD = ["parameter", "yours", "recommended", "", "what to write", "why"]
IN_WORDS = {"swept": "one of those swept", "open": "not decided by the study", "absent": "without meaning here"}


def recommended_section(study: Study, folder: Path) -> dict[str, Any] | None:
    """Table and source; None where the study names no recommended configuration, or was not compared with it."""
    path = folder / "recommended.csv"
    if study.recommended is None or not path.is_file():
        return None
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows = [
        {
            "cells": [row.parameter, row.yours, row.recommended, IN_WORDS.get(row.verdict, row.verdict), row.advice, row.why],
            "kind": "bad" if row.verdict == "differs" else "",
        }
        for row in table.itertuples()
    ]
    return {"table": {"head": HEAD, "rows": rows, "text_columns": len(HEAD)}, "source": table["source"].iloc[0]}
