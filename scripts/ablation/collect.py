"""One tidy table of a study: a row a run, whatever became of it, with all that its report needs."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from ablation import formats, planned
from ablation.curve import read_curve
from ablation.errors import UserError

NOT_RUN = {"oom": "oom (predicted)", "invalid": "invalid"}  # outcome of runs that were not submitted, by verdict
NESTED = ("items", "items_before", "notes", "attempts")  # kept as JSON
ORIGIN = ("host", "cpu", "cpu_capability", "python", "written", "slurm_job", "times", "energy_j", "objective")
PACKAGES = ("torch", "peft", "accelerate")


def collect(plan: Path, runs: Path, submitted: Collection[str]) -> pd.DataFrame:
    """The plan joined with what each run left under ``runs``; a nested value's column is ``time.step_median_s``.

    What is known of a run that ran out of memory is in ``oom.*``; what it measured until then is in the columns of all.
    Metrics are named ``metric.*``, those of the pretrained model ``before.*``, the same by held-out item is JSON in ``items``
    and ``items_before``; the history is in lists, ``curve.*``; on what it ran in ``origin.*``. Runs whose verdict is not among
    ``submitted`` keep it as outcome, whatever lies in their folder from another time.
    """
    table = read_plan(plan)
    rows = [
        result_of(runs / run) if verdict in submitted else {"outcome": NOT_RUN[verdict]}
        for run, verdict in zip(table["run"], table["verdict"], strict=True)
    ]
    found = pd.concat([table, pd.DataFrame(rows, index=table.index)], axis=1)
    return found.drop(columns=formats.KEY, errors="ignore").assign(**{formats.KEY: formats.SCHEMA})


def flat_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table without what does not fit in a cell of a CSV file."""
    return table.drop(columns=[name for name in table if name in NESTED or name.startswith("curve.")])


def read_plan(path: Path) -> pd.DataFrame:
    """A row a run, as it was planned. Raises :class:`UserError` for a file that is none."""
    try:
        table = pd.read_csv(path, dtype={"run": str, "strategy": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no plan ({error})") from None
    if not {"run", "verdict"} <= set(table):
        raise UserError(f"{path}: is no plan (it has no columns run and verdict)")
    formats.check(path, table.get(formats.KEY, pd.Series([0])).max())
    return table.drop(columns=planned.COLUMN, errors="ignore")


def result_of(folder: Path) -> dict[str, Any]:
    """What a run left in its folder, by column of the table."""
    path = folder / "metrics.json"
    if not path.is_file():
        return {"outcome": "not run"}
    content = json.loads(path.read_text(encoding="utf-8"))
    formats.check(path, content.get(formats.KEY))
    row = {key: content.get(key) for key in ("outcome", "device", "steps", "epochs", "final_loss", "average_decay")}
    row.update(_origin(folder / "manifest.json"))
    row["diagnosis"] = "; ".join(d["name"] for d in content.get("diagnoses", []))
    row.update(_flat("oom", content.get("oom", {})))
    row.update(_flat("parameters", content.get("parameters", {})))
    row.update(_flat("time", content.get("time", {})))
    row.update(_flat("memory", _of_ranks(content.get("memory", {}))))
    row.update(_flat("metric", content.get("metrics", {})))
    row.update(_flat("before", content.get("metrics_before", {})))
    row.update({name: json.dumps(content[name]) for name in NESTED if content.get(name)})
    row.update(_flat("curve", read_curve(folder / "history.csv")))
    return row


def _of_ranks(memory: dict[str, Any]) -> dict[str, Any]:
    """The peaks of several processes as text, such as ``0.169, 0.165``: a table has no lists."""
    if "ranks" not in memory:
        return memory
    known = [f"{peak:.3f}" for peak in memory["ranks"] if peak is not None]
    return memory | {"ranks": ", ".join(known) or None}


def _origin(path: Path) -> dict[str, Any]:
    """On which machine and by which code a run was trained; ``gpu``: the name of its GPU."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    found = {name: content.get(name) for name in ORIGIN} | {name: content["packages"].get(name) for name in PACKAGES}
    return {"gpu": content["device"].get("name"), **_flat("origin", {**found, **content["code"], "device": content["device"]})}


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(f"{prefix}.{name}", value) if isinstance(value, dict) else {f"{prefix}.{name}": value})
    return flat
