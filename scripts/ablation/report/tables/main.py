"""The main table in the form of a paper's: what each cell trains, costs and reaches, and how far it is from the baseline."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ablation.report.baselines import counterpart
from ablation.report.comparisons import BOLD, ONE_SEED, Difference, best_cells, differences
from ablation.report.numbers import difference, enough_digits
from ablation.report.results import MEMORY, OOM, STEP_TIME, THROUGHPUT, CellResult, Results
from ablation.report.statistics import estimate
from ablation.report.table import NONE, Cell, Column, Row, Table
from ablation.report.tables.cells import (
    INTERVALS,
    axis_cells,
    axis_columns,
    ended,
    estimated,
    first_known,
    kind,
    largest_memory,
    memory_digits,
    metric_column,
    metric_name,
    no_memory,
    number_cell,
    parameters,
    run_ids,
    runs_with,
    some_without_memory,
)
from ablation.settings import Metric

MOST_COLUMNS = 9
COSTS = 3  # columns
MARKS = {"*": "*: p < 0.05, Holm-corrected.", "†": "†: the same over the items, with one seed."}
UNITS = ((120.0, "s", 1.0), (7200.0, "min", 60.0), (float("inf"), "h", 3600.0))  # below so many seconds, the unit


def main_table(results: Results) -> Table:
    """A row a cell, with as many metrics as fit in nine columns; the model before training stands first."""
    costs, against = _Costs(results), _against_baseline(results)
    metrics = shown_metrics(results)
    bold = {metric.name: _best(results, metric_name(metric), metric.lower_is_better) for metric in metrics}
    columns = [
        *axis_columns(results),
        *costs.columns,
        *(metric_column(metric) for metric in metrics),
        *([Column("difference", "Δ baseline", results.primary.unit)] if against else []),
        Column("runs", "runs"),
    ]
    digits = enough_digits([found.mean for found in against.values()], results.primary.digits)
    rows = [_before(results, columns, metrics)]
    for i, cell in enumerate(results.cells):
        qualities = [estimated(cell, metric_name(m), m.digits, i in bold[m.name]) for m in metrics]
        apart = [_difference(results, cell, against.get(i), digits)] if against else []
        rows.append(Row([*axis_cells(cell), *costs.cells(i, cell), *qualities, *apart, ended(cell)], kind(results, cell)))
    marks = "".join(row.cells[-2].text[-1:] for row in rows) if against else ""
    return Table("main", "Results", _caption(results, costs, bool(against), marks), columns, rows)


def metrics_table(results: Results) -> Table | None:
    """A row a cell: the metrics for which the main table has no place; None where it has them all."""
    rest = _known(results)[len(shown_metrics(results)) :]
    if not rest:
        return None
    bold = {metric.name: _best(results, metric_name(metric), metric.lower_is_better) for metric in rest}
    columns = [*axis_columns(results), *map(metric_column, rest)]
    rows = [_before(results, columns, rest)]
    for i, cell in enumerate(results.cells):
        qualities = [estimated(cell, metric_name(m), m.digits, i in bold[m.name]) for m in rest]
        rows.append(Row([*axis_cells(cell), *qualities], kind(results, cell)))
    return Table("metrics", "Further metrics", f"On held-out data: {INTERVALS}. {BOLD}", columns, rows)


def shown_metrics(results: Results) -> list[Metric]:
    """The metrics of the main table: the most important one, and those after it for which there is room."""
    others = len(results.varying) + COSTS + bool(results.baselines) + 1
    return (_known(results) or [results.primary])[: max(1, MOST_COLUMNS - others)]


class _Costs:
    """Trained parameters, memory, and the time of an epoch; of a step, where it is not known how long an epoch is."""

    def __init__(self, results: Results):
        self._digits = memory_digits(largest_memory(results))
        self._smallest = _best(results, MEMORY, lower=True)
        self._quickest = _best(results, THROUGHPUT, lower=False)
        times, self.of_epochs = _times(results)
        self._times = times.tolist()
        longest = float(times.max()) if times.notna().any() else 0.0
        self._unit, self._seconds = next((unit, seconds) for limit, unit, seconds in UNITS if longest < limit)
        self._places = next(places for limit, places in ((100, 0), (10, 1), (1, 2), (0, 3)) if longest / self._seconds >= limit)
        self.columns = [
            Column("trainable_params", "trained"),
            Column("memory", "memory", "GiB", "lower"),
            Column("epoch_time" if self.of_epochs else "step_time", "epoch" if self.of_epochs else "step", self._unit, "lower"),
        ]

    def cells(self, i: int, cell: CellResult) -> list[Cell]:
        """Of the cell with this index."""
        trained = first_known(cell, "trainable_params")
        memory = estimated(cell, MEMORY, self._digits, i in self._smallest)
        if memory.value is not None and (text := some_without_memory(cell)):
            memory = Cell(memory.text + text, memory.value, memory.half_width, memory.best, run_ids(cell))
        times = [self._times[place] / self._seconds for place in cell.places]
        found = number_cell(cell, estimate(times), self._places, runs_with(cell, STEP_TIME), i in self._quickest)
        return [Cell(NONE) if trained is None else parameters(float(trained)), memory, found]


def _times(results: Results) -> tuple[pd.Series, bool]:
    """Seconds an epoch of each run, else seconds a step; and which of them."""
    runs = results.runs
    if STEP_TIME not in runs:
        return pd.Series(float("nan"), runs.index), False
    steps = runs[STEP_TIME].where(runs["outcome"] != OOM).astype(float)
    if not {"steps", "epochs"} <= set(runs):
        return steps, False
    epochs = steps * runs["steps"].astype(float) / runs["epochs"].where(runs["epochs"] > 0).astype(float)
    return (epochs, True) if epochs.notna().any() else (steps, False)


def _known(results: Results) -> list[Metric]:
    return [metric for metric in results.metrics if metric_name(metric) in results.runs]


def _best(results: Results, column: str, lower: bool) -> set[int]:
    return best_cells(results, column, lower) if column in results.runs else set()


def _against_baseline(results: Results) -> Mapping[int, Difference]:
    """The difference of each cell to the baseline in the primary metric, by index; empty without a baseline that was run."""
    if metric_name(results.primary) not in results.runs:
        return {}
    return {found.cell: found for found in differences(results, results.primary)}


def _difference(results: Results, cell: CellResult, found: Difference | None, digits: int) -> Cell:
    if found is None:
        return Cell("baseline" if results.is_baseline(cell) else NONE)
    if found.mean is None:
        return Cell(no_memory(cell) or NONE, runs=run_ids(cell))
    mark = ("†" if found.verdict.endswith(ONE_SEED) else "*") if found.told else ""
    text = difference(found.mean, found.half_width, digits) + mark
    return Cell(text, found.mean, found.half_width, runs=runs_with(cell, metric_name(results.primary)))


def _before(results: Results, columns: Sequence[Column], metrics: Sequence[Metric]) -> Row:
    """The model before training: its metrics alone."""
    name = "pretrained" if results.study.settings.weight_files() else "untrained"
    known = {metric.name: (results.before(metric.name), metric.digits) for metric in metrics}
    cells = [Cell(name)]
    for column in columns[1:]:
        value, digits = known.get(column.name, (None, 0))
        cells.append(Cell(NONE if value is None else f"{value:.{digits}f}", value))
    return Row(cells, "before")


def _caption(results: Results, costs: _Costs, compared: bool, marks: str) -> str:
    time = "Epoch: a pass over the training data at the median time of a step" if costs.of_epochs else "Step: its median time"
    baseline = " ".join(filter(None, ("the baseline", counterpart(results))))
    against = f" Δ: paired difference to {baseline} in {results.primary.label}, ± half its 95 % interval." if compared else ""
    against += "".join(f" {MARKS[mark]}" for mark in MARKS if mark in marks)
    card = results.study.hardware
    oom = f" OOM: out of memory on the {card}." if any(cell.out_of_memory for cell in results.cells) else ""
    fixed = ", ".join(f"{axis.rsplit('.', 1)[-1]} {value}" for axis, value in results.fixed.items() if value is not None)
    throughout = f" Throughout: {fixed}." if fixed else ""
    of_costs = f"Memory: {results.memory_kind}. {time}.{results.packed}"
    return f"{INTERVALS[0].upper()}{INTERVALS[1:]}.{throughout} {of_costs}{against} {BOLD}{oom}"
