"""The collected runs of a study, by cell: what tables and figures are made from."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablation import formats
from ablation.alike import Alike, alike
from ablation.baseline import Compared, compared
from ablation.errors import UserError
from ablation.objective import marked
from ablation.report.statistics import Estimate, estimate
from ablation.settings import Metric
from ablation.study import Study
from ablation.sweep import expand

MEMORY = "memory.peak_allocated_gib"
STEP_TIME = "time.step_median_s"
THROUGHPUT = "time.samples_per_s"
PACKED = "time.packed"  # runs on a run's card at a time, itself among them, at most
OOM, PREDICTED_OOM = "oom", "oom (predicted)"  # outcomes, as collected


@dataclass(frozen=True, eq=False)
class CellResult:
    """The runs of one combination of axes, over its seeds."""

    axes: dict[str, Any]
    table: Mapping[str, Sequence[Any]]
    """All runs of the study, column by column."""
    places: Sequence[int]
    """Which of them are this cell's, in order."""

    def column(self, name: str) -> list[Any]:
        """A column of its runs; empty where there is no such column."""
        values = self.table.get(name)
        return [] if values is None else [values[place] for place in self.places]

    def first(self, name: str) -> Any:
        """A column of its first run; None where there is no such column."""
        return self.table[name][self.places[0]] if name in self.table else None

    def counted(self, name: str) -> list[Any]:
        """A column of the runs whose measurements count."""
        values = self.column(name)
        if OOM not in self.outcomes:
            return values
        return [value for value, outcome in zip(values, self.column("outcome"), strict=False) if outcome != OOM]

    @cached_property
    def ids(self) -> list[str]:
        """Its runs."""
        return self.column("run")

    @cached_property
    def label(self) -> str:
        """Short name of the cell, from the axes that vary in the study and mean something in it."""
        known = {axis.rsplit(".", 1)[-1]: value for axis, value in self.axes.items() if value is not None}
        return ", ".join(f"{value}" if axis == "strategy" else f"{axis} {value}" for axis, value in known.items())

    @cached_property
    def strategy(self) -> str:
        """Name of the strategy."""
        return str(self.first("strategy"))

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """How many runs ended how, the most frequent first."""
        return dict(Counter(self.column("outcome")).most_common())

    @property
    def out_of_memory(self) -> int:
        """How many runs ran out of memory, or would have by the plan."""
        return sum(self.outcomes.get(outcome, 0) for outcome in (OOM, PREDICTED_OOM))

    def estimate(self, column: str) -> Estimate | None:
        """Mean and interval of a column over the seeds. What a run measured until it ran out of memory does not count."""
        if column not in self._estimates:
            self._estimates[column] = estimate(self.counted(column))
        return self._estimates[column]

    @cached_property
    def _estimates(self) -> dict[str, Estimate | None]:
        return {}


def read_runs(path: Path) -> pd.DataFrame:
    """The table of the collected runs. Raises :class:`UserError` for a file that is none."""
    try:
        runs = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no table of collected runs ({str(error).splitlines()[0]})") from None
    formats.check(path, runs[formats.KEY].max() if formats.KEY in runs else 0)
    return runs


class Results:
    """A study and its table of runs."""

    def __init__(self, study: Study, runs: pd.DataFrame):
        self.study, self.runs = study, marked(study, runs)
        self.metrics = study.metrics()
        self.primary = next(filter(self._measured, self.metrics), self.metrics[0])

    def _measured(self, metric: Metric) -> bool:
        column = f"metric.{metric.name}"
        return column in self.runs and bool(self.runs[column].notna().any())

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
        table = {name: self.runs[name].tolist() for name in self.runs}
        places = np.argsort(self.cell_of, kind="stable")
        groups = np.split(places, np.flatnonzero(np.diff(self.cell_of[places])) + 1) if len(places) else []
        return [
            CellResult({axis: _plain(table[axis][group[0]]) for axis in self.varying}, table, group.tolist())
            for group in groups
        ]

    @cached_property
    def cell_of(self) -> np.ndarray:
        """The index of each run's cell."""
        return self.runs.groupby(self.axes, sort=False, dropna=False).ngroup().to_numpy()

    @cached_property
    def seed_of(self) -> np.ndarray:
        """The seed of each run, as a number from 0."""
        return pd.factorize(self.runs["seed"], sort=True)[0]

    @cached_property
    def alike(self) -> list[Alike]:
        """Of the runs that took all their steps, those that were one training by what was in force."""
        if "steps" not in self.runs:
            return []
        done = self.runs[self.runs["outcome"].eq("completed") & self.runs["steps"].notna()]
        steps = dict(zip(done["run"], done["steps"].astype(int), strict=True))
        return alike(self.study, expand(self.study, "study"), steps)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The runs, each by column."""
        return self.runs.to_dict("records")

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """The axes that have one value throughout."""
        return {axis: _plain(self.runs[axis].iloc[0]) for axis in self.axes if axis not in self.varying}

    @cached_property
    def items(self) -> pd.DataFrame:
        """A row a run and held-out item: ``run``, ``strategy``, ``seed``, ``item``, each metric, and ``before.<metric>``."""
        if "items" not in self.runs or self.runs["items"].isna().all():
            return pd.DataFrame([], columns=["run", "strategy", "seed", "item"])
        known = self.runs[self.runs["items"].notna()]
        own = known[["run", "strategy", "seed"]].reset_index(drop=True)
        after = _frame(known["items"].tolist())
        found = own.loc[after.pop("of")].reset_index(drop=True).join(after)
        if "items_before" not in known or known["items_before"].isna().all():
            return found
        texts = known["items_before"].fillna("[]")  # many runs share one evaluation of the pretrained model
        codes, unique = pd.factorize(texts)
        before = _frame(unique.tolist()).drop_duplicates(["of", "item"], keep="last")
        before = before.rename(columns={name: f"before.{name}" for name in before if name not in ("of", "item")})
        base = pd.Series(codes, index=known["run"].tolist())
        found.insert(3, "of", base[found["run"]].to_numpy())
        return found.merge(before, on=["of", "item"], how="left").drop(columns="of")

    @cached_property
    def curves(self) -> dict[str, dict[str, np.ndarray]]:
        """By run: ``step``, ``loss`` and ``grad_norm``, at most 200 points; of runs that have trained."""
        if "curve.loss" not in self.runs:
            return {}
        known = self.runs[self.runs["curve.loss"].notna()]
        columns = [name for name in known if name.startswith("curve.")]
        return {
            run: {
                name.removeprefix("curve."): np.asarray(values)
                for name, values in zip(columns, row, strict=True)
                if values is not None
            }
            for run, row in zip(known["run"], known[columns].itertuples(index=False, name=None), strict=True)
        }

    @cached_property
    def notes(self) -> dict[str, str]:
        """How the evaluation was done, as the runs say; several ways are listed side by side."""
        found: dict[str, dict[str, None]] = {}
        for text in self.runs["notes"].dropna().unique() if "notes" in self.runs else []:
            for key, value in json.loads(text).items():
                found.setdefault(key, {})[value] = None
        return {key: " / ".join(values) for key, values in found.items()}

    @cached_property
    def compared(self) -> Compared:
        """Which baseline each cell is compared with, by index."""
        cells = [{axis: _plain(cell.first(axis)) for axis in self.axes} for cell in self.cells]
        return compared(self.study.baseline, cells)

    @cached_property
    def baselines(self) -> list[int]:
        """The cells that others are compared with, in order; several where the study's baseline leaves axes open."""
        return [i for i, of in enumerate(self.compared.of) if of == i]

    def is_baseline(self, cell: CellResult) -> bool:
        """Whether a cell is the study's baseline, or one of them."""
        return self.baseline_of(cell) is cell

    def baseline_of(self, cell: CellResult) -> CellResult | None:
        """What a cell is compared with."""
        of = self.compared.of[self._place_of[id(cell)]]
        return None if of is None else self.cells[of]

    @cached_property
    def _place_of(self) -> dict[int, int]:
        return {id(cell): i for i, cell in enumerate(self.cells)}

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
        if "memory.kind" not in self.runs:
            return "memory"
        columns = [name for name in ("memory.kind", "memory.card", "memory.emulated", "memory.ranks") if name in self.runs]
        told = self.runs.dropna(subset="memory.kind")[columns]
        if "memory.ranks" in told:
            told = told.assign(**{"memory.ranks": told["memory.ranks"].notna().map({True: "several", False: None})})
        rows = told.drop_duplicates().to_dict("records")
        return " / ".join(sorted({_measured_as(row) for row in rows})) or "memory"

    @cached_property
    def packed(self) -> str:
        """A sentence for captions on the runs that shared their card; nothing where none did."""
        count = int((self.runs[PACKED] > 1).sum()) if PACKED in self.runs else 0
        one = f"{count} of {len(self.runs)} runs shared a card with others: such times cannot be compared."
        return f" {one}" if count else ""


def in_words(outcome: str) -> str:
    """An outcome as the report prints it."""
    return outcome.replace(OOM, OOM.upper())


def _measured_as(row: dict[str, Any]) -> str:
    if row["memory.kind"] == "cpu":
        return f"CPU, peak of live tensors{_of_largest(row)}"
    stands_in = f", emulated {row['memory.card']}" if row.get("memory.emulated") is True else ""  # NaN where not known
    return f"CUDA allocator, peak allocated{stands_in}{_of_largest(row)}"


def _of_largest(row: dict[str, Any]) -> str:
    return " in the process that needed most" if isinstance(row.get("memory.ranks"), str) else ""


def _frame(texts: Sequence[str]) -> pd.DataFrame:
    """A row an item of each list of items, with its place among ``texts`` in ``of``."""
    lists = [json.loads(text) for text in texts]
    found = pd.DataFrame([item for items in lists for item in items])
    found["of"] = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    return found if "item" in found else found.assign(item=pd.Series(dtype=object))


def _plain(value: Any) -> Any:
    """A pandas cell as a Python value; whole floats (a column with gaps) as integers, gaps as None."""
    if pd.isna(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.item() if hasattr(value, "item") else value
