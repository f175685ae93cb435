"""One tidy table of a study: a row a run, whatever became of it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

NOT_RUN = {"oom": "oom (predicted)", "invalid": "invalid"}  # outcome of runs that were not submitted, by verdict


def collect(plan: Path, runs: Path) -> pd.DataFrame:
    """The plan joined with each run's ``metrics.json`` under ``runs``; nested values become ``time.step_median_s`` and so on.

    Metrics are named ``metric.*``, those of the pretrained model ``before.*``. Runs that were not submitted keep their
    verdict as outcome.
    """
    table = pd.read_csv(plan, dtype={"run": str, "strategy": str})
    results = [_result(runs / run / "metrics.json") for run in table["run"]]
    found = pd.DataFrame(results, index=table.index)
    found["outcome"] = (
        found.get("outcome", pd.Series(index=table.index, dtype=object)).fillna(table["verdict"].map(NOT_RUN)).fillna("not run")
    )
    return pd.concat([table, found], axis=1)


def _result(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    row = {key: content.get(key) for key in ("outcome", "device", "steps", "epochs", "final_loss", "oom")}
    row["diagnosis"] = "; ".join(d["name"] for d in content.get("diagnoses", []))
    row.update(_flat("parameters", content.get("parameters", {})))
    row.update(_flat("time", content.get("time", {})))
    row.update(_flat("memory", content.get("memory", {})))
    row.update(_flat("metric", content.get("metrics", {})))
    row.update(_flat("before", content.get("metrics_before", {})))
    return row


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(f"{prefix}.{name}", value) if isinstance(value, dict) else {f"{prefix}.{name}": value})
    return flat
