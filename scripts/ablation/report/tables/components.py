"""Of what the predicted memory of each cell is made."""

from ablation.report.results import CellResult, Results
from ablation.report.table import NONE, Cell, Column, Row, Table
from ablation.report.tables.cells import axis_cells, axis_columns, kind, memory_digits, plain_number, run_ids

LABELS = {
    "frozen_weights": "frozen weights",
    "trained_weights": "trained weights",
    "workspace": "cuBLAS",
    "communication": "buckets",
}


def component_table(results: Results) -> Table | None:
    """A row a cell, a column a component that any cell has; None for plans without predictions."""
    if "predicted_gib" not in results.runs:
        return None
    digits = memory_digits(results.runs["predicted_gib"].max())
    parts = [name for name in component_columns(results) if results.runs[name].max() >= 0.5 * 10**-digits]
    columns = [
        *axis_columns(results),
        *(Column(name.removesuffix("_gib"), _label(name), "GiB") for name in parts),
        Column("in_all", "in all", "GiB", "lower"),
        Column("peak_phase", "peak in", numeric=False),
    ]
    rows = [Row([*axis_cells(cell), *_cells(cell, parts, digits)], kind(results, cell)) for cell in results.cells]
    caption = (
        "Predicted memory at the peak of the step, by what it holds, in GiB; the parts sum to the whole. Slack: reserved by the"
        " allocator beyond its tensors. Context: CUDA's own. Components below the last digit in every cell are left out."
    )
    return Table("components", "Predicted memory by component", caption, columns, rows)


def component_columns(results: Results) -> list[str]:
    """The plan's columns that sum to ``predicted_gib``, in its order."""
    names = list(results.runs)
    start, end = names.index("predicted_gib"), names.index("peak_phase") if "peak_phase" in names else len(names)
    return [name for name in names[start + 1 : end] if name.endswith("_gib")]


def _cells(cell: CellResult, parts: list[str], digits: int) -> list[Cell]:
    phase, runs = cell.first("peak_phase"), run_ids(cell)
    numbers = [plain_number(cell.first(name), digits, runs) for name in [*parts, "predicted_gib"]]
    return [*numbers, Cell(phase if isinstance(phase, str) else NONE)]


def _label(name: str) -> str:
    part = name.removesuffix("_gib")
    return LABELS.get(part, part.replace("_", " "))
