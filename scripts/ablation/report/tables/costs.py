"""What each cell trains, and what that costs."""

from ablation.report.results import MEMORY, STEP_TIME, THROUGHPUT, CellResult, Results
from ablation.report.table import NONE, Cell, Column, Row, Table
from ablation.report.tables.cells import (
    INTERVALS,
    axis_cells,
    axis_columns,
    estimated,
    first_known,
    kind,
    largest_memory,
    memory_digits,
    places,
    run_ids,
    some_without_memory,
)

COLUMNS = (
    Column("trainable_params", "trained"),
    Column("trainable_share", "share"),
    Column("memory", "memory", "GiB", "lower"),
    Column("step_time", "step", "s", "lower"),
    Column("samples_per_s", "samples/s", "", "higher"),
    Column("final_loss", "final loss", "", "lower"),
)
MEASURED = (STEP_TIME, THROUGHPUT, "final_loss")


def cost_table(results: Results) -> Table:
    """A row a cell: parameters, memory, time and the loss it ended with."""
    digits = {MEMORY: memory_digits(largest_memory(results)), **{name: _places(results, name) for name in MEASURED}}
    rows = [Row([*axis_cells(cell), *_sizes(cell), *_costs(cell, digits)], kind(results, cell)) for cell in results.cells]
    caption = (
        f"Training: {INTERVALS}. Memory: {results.memory_kind}. Step: median time of an optimizer step.{results.packed}"
        " Final loss: of the last steps, on training data."
    )
    return Table("costs", "What each cell trains and costs", caption, [*axis_columns(results), *COLUMNS], rows)


def _places(results: Results, column: str) -> int:
    return places(found.mean for cell in results.cells if (found := cell.estimate(column)))


def _sizes(cell: CellResult) -> list[Cell]:
    trained, total = (first_known(cell, name) for name in ("trainable_params", "total_params"))
    if trained is None or total is None:  # a step that cannot be traced
        return [Cell(NONE), Cell(NONE)]
    count, share = float(trained), float(trained / total)
    return [Cell(f"{int(count):,}", count, runs=run_ids(cell)), Cell(f"{share:.2%}", share, runs=run_ids(cell))]


def _costs(cell: CellResult, digits: dict[str, int]) -> list[Cell]:
    found = [estimated(cell, column, places) for column, places in digits.items()]
    first = found[0]
    text = f"{first.text}{some_without_memory(cell)}"
    return [Cell(text, first.value, first.half_width, first.best, run_ids(cell) if first.runs else ()), *found[1:]]
