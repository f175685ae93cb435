"""Which cells are worth their memory and time."""

import numpy as np

from ablation.report.pareto import FRONT, UNTOLD, Standing, standings
from ablation.report.results import MEMORY, STEP_TIME, Results
from ablation.report.samples import METRIC, by_seed
from ablation.report.statistics import Estimate, intervals
from ablation.report.table import Cell, Column, Row, Table
from ablation.report.tables.cells import axis_cells, axis_columns, kind, metric_column, number_cell, run_ids


def pareto_table(results: Results) -> Table | None:
    """A row a cell: quality, memory, step time, and whether another is better; None where no two cells have all three."""
    found = standings(results)
    if sum(one.ranked for one in found) < 2:
        return None
    metric = results.primary
    columns = [
        *axis_columns(results),
        metric_column(metric),
        Column("memory_gib", "memory", "GiB", "lower"),
        Column("step_s", "step", "s", "lower"),
        Column("front", "front", numeric=False),
    ]
    quality, memory, step = (_estimates(results, column) for column in (METRIC + metric.name, MEMORY, STEP_TIME))
    rows = []
    for cell, one, *numbers in zip(results.cells, found, quality, memory, step, strict=True):
        runs = run_ids(cell)
        shown = [number_cell(cell, number, digits, runs) for number, digits in zip(numbers, (metric.digits, 3, 3), strict=True)]
        rows.append(Row([*axis_cells(cell), *shown, Cell(one.front, runs=runs)], kind(results, cell)))
    title = f"Quality against cost: {_counted(found)}"
    return Table("pareto", title, _caption(results, found), columns, rows)


def _counted(found: list[Standing]) -> str:
    front, ranked = sum(one.front == FRONT for one in found), sum(one.ranked for one in found)
    return f"{front} of {ranked} cells on the front"


def _estimates(results: Results, column: str) -> list[Estimate | None]:
    """Of all cells at once."""
    values = by_seed(results, column).values
    counts = (~np.isnan(values)).sum(axis=1).tolist()
    found = zip(*(part.tolist() for part in intervals(values)), counts, strict=True)
    return [Estimate(mean, half if count > 1 else None, count) if count else None for mean, half, count in found]


def _caption(results: Results, found: list[Standing]) -> str:
    said = ["Mean ± 95 % t interval over seeds. On the front: no other cell is at least as good in all three means."]
    if any(one.dominated_by is not None for one in found):
        said.append("Dominated: one is, and better in one by more than the interval of their difference, paired by seed.")
    if any(one.front == UNTOLD for one in found):
        said.append("Cannot be told: one is, but better in none by more than the interval of their difference.")
    if results.runs["seed"].nunique() == 1:
        said.append("One seed gives no interval: the front is that of single runs.")
    return " ".join(said) + results.packed
