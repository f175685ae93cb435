"""Ways to one effective batch (batch x accumulation x GPUs): whether they train alike, and what each costs."""

from collections.abc import Mapping

import numpy as np

from ablation.report.results import MEMORY, THROUGHPUT, CellResult, Results
from ablation.report.table import NONE, Cell, Column, Row, Table
from ablation.report.tables.cells import (
    INTERVALS,
    axis_cells,
    axis_columns,
    estimated,
    largest_memory,
    memory_digits,
    number_cell,
    plain_number,
    run_ids,
    runs_with,
)

Curve = Mapping[str, np.ndarray]
SPLIT = ("batch", "accumulation", "gpus")


def split_table(results: Results) -> Table | None:
    """A row a cell that shares its effective batch with others of the study, next to them; None where there is none.

    Losses and gradients are compared with those of the first cell of its kind, seed by seed, at each point of their curves.
    """
    digits = memory_digits(largest_memory(results))
    rows = [_row(results, cell, cells[0], digits) for cells in _alike(results) for cell in cells]
    if not rows:
        return None
    columns = [
        Column("split", "batch × accum. × GPUs", numeric=False),
        Column("effective_batch", "effective batch"),
        *axis_columns(results, without=SPLIT),
        Column("final_loss", "final loss", "", "lower"),
        Column("loss_apart", "loss differs by"),
        Column("grad_norm_apart", "gradient norm by"),
        Column("samples_per_s", "samples/s", "", "higher"),
        Column("speed", "speed"),
        Column("memory", "memory", "GiB", "lower"),
        Column("predicted", "predicted", "GiB"),
    ]
    caption = (
        f"Cells that differ in the split of one effective batch alone: {INTERVALS}. Differences are the largest relative ones"
        f" {_points(results)}, over all seeds, to the first row with the same effective batch; speed is relative to it, too."
        f" Memory: {results.memory_kind}; predicted: what the card must have.{results.packed}"
    )
    return Table("splits", "One effective batch, split in several ways", caption, columns, rows)


def largest_difference(one: Curve, other: Curve, column: str) -> float | None:
    """The largest relative difference of ``column`` at any point that both curves have; None without one."""
    if column not in one or column not in other:
        return None
    shared, at, at_other = np.intersect1d(one["step"], other["step"], return_indices=True)
    if not len(shared):
        return None
    value, reference = one[column][at].astype(float), other[column][at_other].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.abs(value - reference) / np.abs(reference)
    return None if np.isnan(apart).all() else float(np.nanmax(apart))


def _alike(results: Results) -> list[list[CellResult]]:
    """Cells that differ in their split alone, two or more together."""
    groups: dict[tuple, list[CellResult]] = {}
    for cell in results.cells:
        rest = tuple(str(cell.first(axis)) for axis in results.axes if axis not in SPLIT)
        groups.setdefault((cell.first("effective_batch"), *rest), []).append(cell)
    return [cells for cells in groups.values() if len(cells) > 1]


def _row(results: Results, cell: CellResult, first: CellResult, digits: int) -> Row:
    effective, loss = cell.first("effective_batch"), cell.estimate("final_loss")
    speed, reference = cell.estimate(THROUGHPUT), first.estimate(THROUGHPUT)
    ended = number_cell(cell, loss, 3, runs_with(cell, "final_loss"))
    # A loss may be of any size: four digits that tell, without the interval.
    ended = Cell(f"{loss.mean:.4g}", ended.value, ended.half_width, runs=ended.runs) if ended.value is not None else ended
    return Row(
        [
            Cell(" × ".join(str(int(cell.first(axis))) for axis in SPLIT)),
            Cell(str(int(effective)), float(effective)),
            *axis_cells(cell, without=SPLIT),
            ended,
            *(Cell("") if cell is first else _apart(results, cell, first, column) for column in ("loss", "grad_norm")),
            estimated(cell, THROUGHPUT, 1),
            plain_number(speed.mean / reference.mean if speed and reference else None, 2, runs_with(cell, THROUGHPUT)),
            estimated(cell, MEMORY, digits),
            plain_number(cell.first("predicted_gib"), digits, run_ids(cell)),
        ]
    )


def _apart(results: Results, cell: CellResult, first: CellResult, column: str) -> Cell:
    """The largest difference over all seeds, such as ``3e-07``."""
    reference = dict(zip(first.column("seed"), first.ids, strict=True))
    pairs = [(run, reference.get(seed)) for seed, run in zip(cell.column("seed"), cell.ids, strict=True)]
    ids = [pair for pair in pairs if set(pair) <= results.curves.keys()]
    found = {(a, b): largest_difference(results.curves[a], results.curves[b], column) for a, b in ids}
    known = {ids: value for ids, value in found.items() if value is not None}
    if not known:
        return Cell(NONE)
    return Cell(f"{max(known.values()):.0e}", max(known.values()), runs=[run for pair in known for run in pair])


def _points(results: Results) -> str:
    """What a point of the curves is: a step, or the mean of a stretch of steps where there are many."""
    longest = max((int(np.diff(curve["step"]).max(initial=1)) for curve in results.curves.values()), default=1)
    return "at any step" if longest < 2 else f"of means over stretches of {longest} steps"
