"""Predicted memory beside what was measured."""

from ablation.report.results import CellResult, Results, in_words
from ablation.report.table import NONE, Cell, Column, Row, Table
from ablation.report.tables.cells import (
    INTERVALS,
    MEASURED_RESERVED,
    axis_cells,
    axis_columns,
    estimated,
    kind,
    memory_digits,
    plain_number,
    run_ids,
)


def memory_table(results: Results) -> Table | None:
    """A row a cell; None for plans without predictions."""
    if "predicted_gib" not in results.runs:
        return None
    card, digits = results.study.hardware, memory_digits(results.runs["predicted_gib"].max())
    columns = [
        *axis_columns(results),
        Column("needed", "needs", "GiB", "lower"),
        Column("verdict", f"fits {card}?", numeric=False),
        Column("predicted_reserved", "predicted reserved", "GiB"),
        Column("measured_reserved", "measured reserved", "GiB"),
        Column("error", "error"),
    ]
    rows = [Row([*axis_cells(cell), *_held(cell, digits)], kind(results, cell)) for cell in results.cells]
    measured = MEASURED_RESERVED in results.runs and results.runs[MEASURED_RESERVED].notna().any()
    caption = (
        f"Needs: what the allocator reserves and 0.5 GiB of CUDA context, predicted before any run, against the {card}'s"
        f" {_budget(results)} GiB. " + (f"Measured: {INTERVALS}. Error: predicted over measured, less one." if measured else
        "Nothing was measured on a CUDA device, so the predictions stand alone.")
    )  # fmt: skip
    return Table("memory", "Predicted and measured memory", caption, columns, rows)


def _held(cell: CellResult, digits: int) -> list[Cell]:
    verdict, runs = cell.first("memory_verdict"), run_ids(cell)
    predicted, measured = (cell.estimate(column) for column in ("predicted_reserved_gib", MEASURED_RESERVED))
    error = predicted.mean / measured.mean - 1 if predicted and measured else None
    return [
        plain_number(cell.first("predicted_gib"), digits, runs),
        Cell(in_words(verdict) if isinstance(verdict, str) else NONE),
        plain_number(cell.first("predicted_reserved_gib"), digits, runs),
        estimated(cell, MEASURED_RESERVED, digits),
        Cell(NONE) if error is None else Cell(f"{error:+.1%}", error, runs=runs),
    ]


def _budget(results: Results) -> str:
    return f"{results.runs['budget_gib'].iloc[0]:g}" if "budget_gib" in results.runs else "usable"
