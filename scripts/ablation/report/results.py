"""The collected runs of a study, by cell: what tables and figures are made from."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from ablation.report.statistics import Estimate, estimate
from ablation.study import Study

MEMORY = "memory.peak_allocated_gib"
STEP_TIME = "time.step_median_s"
THROUGHPUT = "time.samples_per_s"
OOM, PREDICTED_OOM = "oom", "oom (predicted)"  # outcomes, as collected


@dataclass(frozen=True)
class CellResult:
    """The runs of one combination of axes, over its seeds."""

    axes: dict[str, Any]
    runs: pd.DataFrame

    @property
    def label(self) -> str:
        """Short name of the cell, from the axes that vary in the study and mean something in it."""
        known = {axis.rsplit(".", 1)[-1]: value for axis, value in self.axes.items() if value is not None}
        return ", ".join(f"{value}" if axis == "strategy" else f"{axis} {value}" for axis, value in known.items())

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return str(self.runs["strategy"].iloc[0])

    @property
    def outcomes(self) -> dict[str, int]:
        """How many runs ended how."""
        return self.runs["outcome"].value_counts().to_dict()

    @property
    def out_of_memory(self) -> int:
        """How many runs ran out of memory, or would have by the plan."""
        return sum(self.outcomes.get(outcome, 0) for outcome in (OOM, PREDICTED_OOM))

    def estimate(self, column: str) -> Estimate | None:
        """Mean and interval of a column over the seeds. What a run measured until it ran out of memory does not count."""
        runs = self.runs[self.runs["outcome"] != OOM]
        return estimate(runs[column].tolist()) if column in runs else None


class Results:
    """A study and its table of runs."""

    def __init__(self, study: Study, runs: pd.DataFrame):
        self.study, self.runs = study, runs
        self.metrics = study.metrics()
        self.primary = self.metrics[0]

    @cached_property
    def axes(self) -> list[str]:
        """All axes but the seed."""
        extra = self.study.sweep.model_extra or {}
        return [a for a in ("strategy", "rank", "batch", "accumulation", "precision", "gpus", *extra) if a in self.runs]

    @cached_property
    def varying(self) -> list[str]:
        """The axes that take more than one value; the strategy always counts."""
        return [axis for axis in self.axes if axis == "strategy" or self.runs[axis].nunique(dropna=False) > 1]

    @cached_property
    def cells(self) -> list[CellResult]:
        """The cells in the order of the plan."""
        groups = self.runs.groupby(self.axes, sort=False, dropna=False)
        return [CellResult({a: _plain(frame[a].iloc[0]) for a in self.varying}, frame) for _, frame in groups]

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """The axes that have one value throughout."""
        return {axis: _plain(self.runs[axis].iloc[0]) for axis in self.axes if axis not in self.varying}

    def is_baseline(self, cell: CellResult) -> bool:
        """Whether a cell is the study's baseline."""
        wanted = self.study.baseline or {}
        return bool(wanted) and all(
            axis not in cell.runs or _plain(cell.runs[axis].iloc[0]) == value for axis, value in wanted.items()
        )

    def before(self, metric: str) -> float | None:
        """A metric of the pretrained model: the mean, where runs had different ones."""
        column = f"before.{metric}"
        known = self.runs[column].dropna() if column in self.runs else []
        return float(known.mean()) if len(known) else None

    def best(self) -> CellResult | None:
        """The cell with the best mean of the primary metric."""
        known = [(cell.estimate(f"metric.{self.primary.name}"), cell) for cell in self.cells]
        known = [(found.mean, i, cell) for i, (found, cell) in enumerate(known) if found]
        if not known:
            return None
        return min(known)[2] if self.primary.lower_is_better else max(known, key=lambda k: (k[0], -k[1]))[2]

    @property
    def memory_kind(self) -> str:
        """What the memory column holds, in words."""
        rows = self.runs.dropna(subset="memory.kind").to_dict("records") if "memory.kind" in self.runs else []
        return " / ".join(sorted({_measured_as(row) for row in rows})) or "memory"


def in_words(outcome: str) -> str:
    """An outcome as the report prints it."""
    return outcome.replace(OOM, OOM.upper())


def _measured_as(row: dict[str, Any]) -> str:
    if row["memory.kind"] == "cpu":
        return "CPU, peak of live tensors"
    stands_in = f", emulated {row['memory.card']}" if row.get("memory.emulated") is True else ""  # NaN where not known
    return f"CUDA allocator, peak allocated{stands_in}"


def _plain(value: Any) -> Any:
    """A pandas cell as a Python value; whole floats (a column with gaps) as integers, gaps as None."""
    if pd.isna(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.item() if hasattr(value, "item") else value
