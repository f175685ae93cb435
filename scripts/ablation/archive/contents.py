"""What of a finished study is given away: all that its report shows and was made from, and what was trained.

Checkpoints, TensorBoard's files and logs stay behind: they are large, or tell of the machine.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pandas as pd

from ablation.errors import UserError
from ablation.outside import MIB, read_json
from ablation.report.results import read_runs
from ablation.report.writing import FILES, FOLDERS
from ablation.settings import NAME, Scale

STUDY, RUNS_TABLE = "study.json", "runs.parquet"
REPORT = (*FILES, *FOLDERS)
TABLES = ("plan.csv", "cards.csv", RUNS_TABLE, "runs.csv", "claims.csv", "plan_claims.csv", "ladder.csv", "recommended.csv",
          "probe.csv", "largest_batch.csv")  # fmt: skip
OF_A_RUN = ("run.yaml", "history.csv", "training.json", "metrics.json", "manifest.json", "model.txt", "README.md",
            "model.safetensors", "adapter", "pictures")  # fmt: skip
RUN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
OF_A_BASE = ("metrics.json", "pictures")


def contents(folder: Path) -> list[str]:
    """Names of the files in a study's ``folder`` that are given away, in order, those of the report included.

    Raises :class:`UserError` where the study is not finished.
    """
    for name in (STUDY, RUNS_TABLE, *REPORT):
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: is not there, so the study has no report yet; run the workflow first")
    found = [STUDY, *TABLES, *REPORT]
    found += [f"base/{base.name}/{name}" for base in sorted((folder / "base").glob("*")) for name in OF_A_BASE]
    found += [f"runs/{run}/{name}" for run in runs(folder) for name in OF_A_RUN]
    return sorted(file for name in found for file in _files(folder, name))


def runs(folder: Path) -> list[str]:
    """The runs of the study's table that have a folder. Raises :class:`UserError` for a table with what is no run's name."""
    names = read_runs(folder / RUNS_TABLE)["run"].tolist()
    if wrong := [name for name in names if not (isinstance(name, str) and RUN.fullmatch(name))]:
        raise UserError(f"{folder / RUNS_TABLE}: {wrong[0]!r} is the name of no run")
    return [name for name in names if (folder / "runs" / name).is_dir()]


def texts(table: pd.DataFrame) -> list[str]:
    """The columns of a table that hold text."""
    return [name for name in table if table[name].map(lambda value: isinstance(value, str)).any()]


def name_and_scale(study: Path) -> tuple[str, str]:
    """What the folders of a study are called, by its ``study.json``."""
    try:
        content = read_json(study, 64 * MIB)
        name, scale = content["name"], content["study"]["scale"]
        if re.fullmatch(NAME, name) and scale in get_args(Scale):
            return name, scale
        raise ValueError
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{study}: is no resolved study") from None


def _files(folder: Path, name: str) -> Iterator[str]:
    path = folder / name
    if path.is_file():
        yield name
    elif path.is_dir():
        for file in path.rglob("*"):
            if file.is_file() and not file.name.startswith("."):
                yield file.relative_to(folder).as_posix()
