"""Which cells a figure shows where there are more than one can read, and their numbers in words."""

import math

import pandas as pd

from ablation.report.figures.style import LOOKS, OTHER, Look, plain
from ablation.report.results import OOM, PREDICTED_OOM, CellResult, Results
from ablation.report.statistics import Estimate
from ablation.settings import Metric

MOST = 40  # cells that one figure shows


def metric_column(results: Results) -> str:
    """The column of the primary metric."""
    return f"metric.{results.primary.name}"


def cell_means(results: Results, column: str) -> list[float]:
    """Mean of a column for each of ``results.cells``; NaN where there is none. What ran out of memory does not count.

    All at once: asking thousands of cells one by one takes seconds.
    """
    if column not in results.runs:
        return [math.nan] * len(results.cells)
    number = results.runs.groupby(results.axes, sort=False, dropna=False).ngroup().to_numpy()
    values = pd.to_numeric(results.runs[column], errors="coerce").where(results.runs["outcome"] != OOM)
    return [value if math.isfinite(value) else math.nan for value in values.groupby(number).mean()]


def ranked(results: Results) -> list[int]:
    """Numbers of the cells, the best by the primary metric first, those without it last and in the order of the plan."""
    means, sign = cell_means(results, metric_column(results)), 1 if results.primary.lower_is_better else -1
    return sorted(range(len(means)), key=lambda i: (math.isnan(means[i]), 0 if math.isnan(means[i]) else sign * means[i], i))


def best_cells(results: Results, most: int = MOST) -> list[CellResult]:
    """At most so many cells, the best by the primary metric, in the order of the plan."""
    return [results.cells[i] for i in sorted(ranked(results)[:most])]


def chosen(results: Results, most: int = MOST) -> str:
    """A sentence of a caption that says so; nothing where all cells are shown."""
    count = len(results.cells)
    return f" Of {count:,} cells the {most} best by {results.primary.label} are shown." if count > most else ""


def best_of_each_strategy(results: Results) -> list[CellResult]:
    """The best cell of each strategy, in the order of the plan; its first cell where none was evaluated."""
    first: dict[str, int] = {}
    for i in ranked(results):
        first.setdefault(results.cells[i].strategy, i)
    return [results.cells[i] for i in sorted(first.values())]


def looks(results: Results) -> dict[str, Look]:
    """How each strategy is drawn. Where there are more than looks, the best have one of their own."""
    order = list(dict.fromkeys(results.cells[i].strategy for i in ranked(results)))[: len(LOOKS)]
    planned = [name for name in dict.fromkeys(results.runs["strategy"].astype(str)) if name in order]
    own = dict(zip(planned, LOOKS, strict=False))
    return {name: own.get(name, OTHER) for name in dict.fromkeys(results.runs["strategy"].astype(str))}


def known(cell: CellResult, column: str) -> Estimate | None:
    """A cell's estimate of a column, if it is a number."""
    found = cell.estimate(column)
    return found if found and math.isfinite(found.mean) else None


def numeric(cell: CellResult, column: str) -> float:
    """The mean of a planned number over a cell's runs, whatever became of them; NaN where there is none."""
    return float(pd.to_numeric(pd.Series(cell.column(column)), errors="coerce").mean())


def without_memory(cell: CellResult) -> bool:
    """Whether no run of the cell had memory enough."""
    return cell.out_of_memory == len(cell.places)


def ran_out(cell: CellResult) -> str:
    """``OOM``, or ``OOM (predicted)`` where none was tried."""
    return "OOM" if OOM in cell.outcomes else PREDICTED_OOM.replace(OOM, "OOM")


def shown(found: Estimate | None, digits: int) -> str:
    """``0.512 ± 0.023``."""
    if found is None:
        return "–"
    return f"{found.mean:.{digits}f}" + ("" if found.half_width is None else f" ± {found.half_width:.{digits}f}")


def gib(value: float) -> str:
    """Two decimals, or for what is small as many as tell."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def metric_label(metric: Metric) -> str:
    """``depth MAE, m ↓``: an axis of a metric."""
    return f"{metric.label}{', ' + metric.unit if metric.unit else ''} {'↓' if metric.lower_is_better else '↑'}"


def direction(metric: Metric) -> str:
    """A sentence that explains the arrow."""
    return "↓: lower is better." if metric.lower_is_better else "↑: higher is better."


def names(results: Results, cells: list[CellResult], strategy: bool = True) -> list[str]:
    """Short names of cells, of what tells them apart: an axis that has one value among them is left out.

    Without ``strategy`` names tell apart the cells of each strategy.
    """
    varying = [axis for axis in results.varying if len({repr(cell.axes.get(axis)) for cell in cells}) > 1]
    own = {(cell.strategy, axis): set() for cell in cells for axis in varying}
    for cell in cells:
        for axis in varying:
            own[cell.strategy, axis].add(repr(cell.axes.get(axis)))
    found = []
    for cell in cells:
        told = [axis for axis in varying if strategy or (axis != "strategy" and len(own[cell.strategy, axis]) > 1)]
        kept = [axis for axis in told if cell.axes.get(axis) is not None]
        parts = [f"{cell.axes[a]}" if a == "strategy" else f"{a.rsplit('.', 1)[-1]} {cell.axes[a]}" for a in kept]
        found.append(", ".join(map(plain, parts)) or (plain(cell.strategy) if strategy else ""))
    return found
