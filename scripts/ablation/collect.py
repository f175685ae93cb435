"""One tidy table of a study: a row a run, whatever became of it."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

NOT_RUN = {"oom": "oom (predicted)", "invalid": "invalid"}  # outcome of runs that were not submitted, by verdict


def collect(plan: Path, runs: Path, submitted: Collection[str]) -> pd.DataFrame:
    """The plan joined with each run's ``metrics.json`` under ``runs``; a nested value's column is ``time.step_median_s``.

    What is known of a run that ran out of memory is in ``oom.*``; what it measured until then is in the columns of all.
    Metrics are named ``metric.*``, those of the pretrained model ``before.*``. Runs whose verdict is not among ``submitted``
    keep it as outcome, whatever lies in their folder from another time.
    """
    table = pd.read_csv(plan, dtype={"run": str, "strategy": str})
    rows = [
        _result(runs / run / "metrics.json") if verdict in submitted else {"outcome": NOT_RUN[verdict]}
        for run, verdict in zip(table["run"], table["verdict"], strict=True)
    ]
    return pd.concat([table, pd.DataFrame(rows, index=table.index)], axis=1)


def _result(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"outcome": "not run"}
    content = json.loads(path.read_text())
    row = {key: content.get(key) for key in ("outcome", "device", "steps", "epochs", "final_loss")}
    row["gpu"] = _gpu(path.with_name("manifest.json"))
    row["diagnosis"] = "; ".join(d["name"] for d in content.get("diagnoses", []))
    row.update(_flat("oom", content.get("oom", {})))
    row.update(_flat("parameters", content.get("parameters", {})))
    row.update(_flat("time", content.get("time", {})))
    row.update(_flat("memory", content.get("memory", {})))
    row.update(_flat("metric", content.get("metrics", {})))
    row.update(_flat("before", content.get("metrics_before", {})))
    return row


def _gpu(manifest: Path) -> str | None:
    """The name of the GPU that a run was trained on."""
    return json.loads(manifest.read_text())["device"].get("name") if manifest.is_file() else None


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(f"{prefix}.{name}", value) if isinstance(value, dict) else {f"{prefix}.{name}": value})
    return flat
