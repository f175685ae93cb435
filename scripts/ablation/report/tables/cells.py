"""What the tables share: numbers as they are printed, the columns of the axes, and what stands in place of a number."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from ablation.report.results import MEMORY, OOM, PREDICTED_OOM, CellResult, Results, in_words
from ablation.report.statistics import Estimate
from ablation.report.table import NONE, Cell, Column, Kind
from ablation.settings import Metric

MEASURED_RESERVED = "memory.peak_reserved_gib"  # of a CUDA device alone
LABELS = {"accumulation": "accum.", "gpus": "GPUs"}
INTERVALS = "mean ± half the 95 % t interval over seeds; without ±, one run or an interval below the last digit"


def shown(found: Estimate | None, digits: int) -> str:
    """``0.512 ± 0.023``; without the interval where there is only one value, or where it would be printed as zero."""
    if found is None:
        return NONE
    width = "" if found.half_width is None else f"{found.half_width:.{digits}f}"
    return f"{found.mean:.{digits}f}" + (f" ± {width}" if width and float(width) else "")


def estimated(cell: CellResult, column: str, digits: int, best: bool = False) -> Cell:
    """The mean of a column over the seeds of ``cell``; ``OOM`` where none of its runs had memory enough."""
    return number_cell(cell, cell.estimate(column), digits, runs_with(cell, column), best)


def number_cell(cell: CellResult, found: Estimate | None, digits: int, runs: Sequence[str], best: bool = False) -> Cell:
    """The same for an estimate that comes from ``runs``."""
    if missing := no_memory(cell):
        return Cell(missing, runs=run_ids(cell))
    if found is None:
        return Cell(NONE)
    return Cell(shown(found, digits), found.mean, found.half_width, best, runs)


def plain_number(value: Any, digits: int, runs: Sequence[str] = ()) -> Cell:
    """A number that has no interval; a dash where there is none."""
    if value is None or pd.isna(value):
        return Cell(NONE)
    return Cell(f"{value:.{digits}f}", float(value), runs=runs)


def run_ids(cell: CellResult) -> list[str]:
    """All runs of a cell."""
    return cell.ids


def first_known(cell: CellResult, column: str) -> Any:
    """What the first of a cell's runs that has a column has there; None without one."""
    return next((value for value in cell.column(column) if not pd.isna(value)), None)


def runs_with(cell: CellResult, column: str) -> list[str]:
    """The runs that a cell's mean of ``column`` is made of."""
    values = cell.counted(column)
    return [run for run, value in zip(cell.counted("run"), values, strict=True) if not pd.isna(value)] if values else []


def axis_columns(results: Results, without: Sequence[str] = ()) -> list[Column]:
    """A column for each axis that varies; those of numbers are set as such."""
    names = [axis for axis in results.varying if axis not in without]
    return [Column(axis, _label(axis), numeric=pd.api.types.is_numeric_dtype(results.runs[axis])) for axis in names]


def axis_cells(cell: CellResult, without: Sequence[str] = ()) -> list[Cell]:
    """A cell's values of these axes; a dash where an axis means nothing."""
    return [_axis_cell(value) for axis, value in cell.axes.items() if axis not in without]


def metric_column(metric: Metric) -> Column:
    """The column of a metric, with its unit and which side is better."""
    return Column(metric.name, metric.label, metric.unit, "lower" if metric.lower_is_better else "higher")


def metric_name(metric: Metric) -> str:
    """Where the collected table holds a metric."""
    return f"metric.{metric.name}"


def parameters(count: float) -> Cell:
    """A number of parameters, short: ``1.26 M``."""
    for size, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return Cell(f"{count / size:.3g} {word}" if count < 999.5 * size else f"{count / size:.0f} {word}", float(count))
    return Cell(str(int(count)), float(count))


def memory_digits(*values: float | None) -> int:
    """Decimals for a column of GiB: two, or three where the largest is below ten."""
    known = [value for value in values if value is not None and not pd.isna(value)]
    return 2 if known and max(known) >= 10 else 3


def places(values: Iterable[float | None]) -> int:
    """Decimals with which the smallest of ``values`` has three digits that tell; between one and seven."""
    known = [abs(value) for value in values if value and math.isfinite(value)]
    return min(max(2 - math.floor(math.log10(min(known))), 1), 7) if known else 3


def largest_memory(results: Results) -> float | None:
    """The largest peak that a run measured, in GiB; what one measured until it ran out does not count."""
    measured = results.runs.loc[results.runs["outcome"] != OOM, MEMORY] if MEMORY in results.runs else []
    return float(measured.max()) if len(measured) else None


def kind(results: Results, cell: CellResult) -> Kind:
    """The kind of a cell's row."""
    return "baseline" if results.is_baseline(cell) else ""


def no_memory(cell: CellResult) -> str:
    """What stands in place of the numbers of a cell none of whose runs had memory enough: ``OOM``; else nothing."""
    if cell.out_of_memory < len(cell.places):
        return ""
    return in_words(OOM if OOM in cell.outcomes else PREDICTED_OOM)


def some_without_memory(cell: CellResult) -> str:
    """`` (1 of 3 OOM)``, where the numbers are those of the other runs; else nothing."""
    return f" ({cell.out_of_memory} of {len(cell.places)} OOM)" if 0 < cell.out_of_memory < len(cell.places) else ""


def ended(cell: CellResult) -> Cell:
    """``3``, or ``2 completed, 1 OOM`` where not all runs completed."""
    if set(cell.outcomes) == {"completed"}:
        return Cell(str(len(cell.places)), len(cell.places), runs=run_ids(cell))
    text = ", ".join(f"{count} {in_words(outcome)}" for outcome, count in cell.outcomes.items())
    return Cell(text, cell.outcomes.get("completed", 0), runs=run_ids(cell))


def _label(axis: str) -> str:
    name = axis.rsplit(".", 1)[-1]
    return LABELS.get(name, name)


def _axis_cell(value: Any) -> Cell:
    if value is None:
        return Cell(NONE)
    return Cell(str(value), None if isinstance(value, bool | str) else float(value))
