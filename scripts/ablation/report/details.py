"""Each run, as far as a reader wants to follow a number to it: settings, numbers, origin, files, and how to repeat it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ablation.report.content import RunDetail
from ablation.report.results import MEMORY, OOM, PACKED, STEP_TIME, THROUGHPUT, Results, in_words
from ablation.report.table import NONE
from ablation.report.tables.runs import RAN, remark

FILES = {
    "settings": "run.yaml", "log": "trainer.log", "history": "history.csv", "result": "metrics.json", "origin": "manifest.json",
    "modules": "model.txt", "adapter": "adapter/", "weights": "model.safetensors", "TensorBoard": "tensorboard/",
}  # fmt: skip
UNTIL_OOM = {MEMORY, STEP_TIME, THROUGHPUT, "final_loss"}  # no measures of a run that ran out of memory


def run_details(results: Results, name: str, folder: Path) -> list[RunDetail]:
    """All runs of the study ``name``, in the order of the plan; ``folder``: the study's, as the project's root sees it."""
    return [_detail(results, row, folder) for row in results.records]


def repeat_command(run: str, folder: Path) -> str:
    """Trains a run again in a folder of its own and compares the two, from the project's root."""
    return f"snakemake verify --profile local --config {shlex.quote(f'reference={folder}')} runs={shlex.quote(run)}"


def _detail(results: Results, row: dict[str, Any], folder: Path) -> RunDetail:
    run = row["run"]
    ran, curve = row["outcome"] in RAN, results.curves.get(run)
    return RunDetail(
        id=run,
        outcome=in_words(row["outcome"]),
        axes={axis.rsplit(".", 1)[-1]: _text(row[axis]) for axis in (*results.axes, "seed") if not pd.isna(row[axis])},
        numbers=_numbers(results, row),
        remark=remark(row),
        origin=_origin(row),
        command=repeat_command(run, folder) if ran else "",
        curve={} if curve is None else {name: curve[name].tolist() for name in ("step", "loss")},
        links=_links(folder, run) if ran else {},
        pictures=_pictures(folder, run) if ran else (),
    )


def _numbers(results: Results, row: Mapping[str, Any]) -> dict[str, str]:
    """What a run measured, by label, with units."""
    found = {}
    for metric in results.metrics:
        if text := _number(row.get(f"metric.{metric.name}"), metric.digits):
            found[metric.label] = f"{text} {metric.unit}".rstrip()
    memory = "memory, as live tensors on the CPU" if row.get("memory.kind") == "cpu" else "memory, peak allocated"
    others = [
        ("trained parameters", "parameters.trainable", ",.0f", ""),
        (memory, MEMORY, ".3f", " GiB"),
        ("memory, predicted", "predicted_gib", ".2f", " GiB"),
        ("step, median", STEP_TIME, ".3f", " s"),
        ("throughput", THROUGHPUT, ".2f", " samples/s"),
        ("runs on the card at a time", PACKED, ".0f", ""),
        ("steps", "steps", ",.0f", ""),
        ("epochs", "epochs", ".2f", ""),
        ("final loss", "final_loss", ".4g", ""),
        ("decay of the average, last", "average_decay", ".4g", ""),
    ]
    for label, column, form, unit in others:
        value = None if row["outcome"] == OOM and column in UNTIL_OOM else row.get(column)
        if value is not None and not pd.isna(value):
            found[label] = f"{value:{form}}{unit}"
    return found


def _origin(row: Mapping[str, Any]) -> dict[str, str]:
    """On what, by what code and when a run was trained; what is not known is left out."""
    packages = [f"{name} {row[f'origin.{name}']}" for name in ("torch", "peft", "accelerate") if _known(row, f"origin.{name}")]
    parts = {
        "machine": row.get("origin.host"),
        "GPU": row.get("gpu"),
        "driver": row.get("origin.device.driver"),
        "CPU": row.get("origin.cpu"),
        "SLURM job": row.get("origin.slurm_job"),
        "Python": row.get("origin.python"),
        "packages": ", ".join(packages) or None,
        "code": code_of(row),
        "trained": row.get("origin.written"),
    }
    return {label: _text(value) for label, value in parts.items() if value is not None and not pd.isna(value)}


def code_of(row: Mapping[str, Any]) -> str | None:
    """The commit that a run was trained with; None outside a git checkout."""
    commit, changed = row.get("origin.commit"), row.get("origin.changed")
    if not isinstance(commit, str):
        return None
    return commit[:12] + (" with local changes" if not pd.isna(changed) and changed else "")


def _links(folder: Path, run: str) -> dict[str, str]:
    """What lies in the run's folder."""
    there = set(_names(folder / "runs" / run))
    return {label: f"runs/{run}/{name}" for label, name in FILES.items() if name.rstrip("/") in there}


def _pictures(folder: Path, run: str) -> list[str]:
    names = _names(folder / "runs" / run / "pictures")
    return [f"runs/{run}/pictures/{name}" for name in sorted(names) if name.endswith(".png")]


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _known(row: Mapping[str, Any], column: str) -> bool:
    return isinstance(row.get(column), str)


def _number(value: Any, digits: int) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _text(value: Any) -> str:
    """A value of a table; whole floats (a column with gaps) as integers."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return NONE if value is None else str(value)
