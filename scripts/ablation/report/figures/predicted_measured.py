"""Predicted memory against what a GPU took."""

import math
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from ablation.report.figure import Figure
from ablation.report.figures.choice import best_cells, chosen, gib, looks, numeric
from ablation.report.figures.style import COLUMN, OTHER, OTHER_NAME, above, drawing, plain, plain_numbers, styled
from ablation.report.results import CellResult, Results

RESERVED = "memory.peak_reserved_gib"  # of a CUDA device alone
BAND = 0.1
Row = tuple[CellResult, float, float]


def predicted_measured(results: Results) -> Figure | None:
    """A point a cell, with the diagonal; None where no GPU was measured."""
    if not {RESERVED, "predicted_reserved_gib"} <= set(results.runs):
        return None
    rows: list[Row] = []
    for cell in best_cells(results):
        predicted = numeric(cell, "predicted_reserved_gib")
        measured = pd.Series(cell.counted(RESERVED), dtype=float).mean()
        if math.isfinite(predicted) and math.isfinite(measured) and predicted > 0 < measured:
            rows.append((cell, predicted, float(measured)))
    if not rows:
        return None
    caption = (
        "Peak memory that PyTorch's allocator reserves: predicted without a GPU, and measured (mean over seeds)."
        f" The line is equality, the band ±{BAND:.0%}." + chosen(results)
    )
    errors = [predicted / measured - 1 for _, predicted, measured in rows]
    worst = max(range(len(rows)), key=lambda i: abs(errors[i]))
    alt = (
        f"Predicted against measured reserved memory of {len(rows)} cells, {gib(min(r[2] for r in rows))} to"
        f" {gib(max(r[2] for r in rows))} GiB. Median error {np.median(np.abs(errors)):.1%}, largest"
        f" {errors[worst]:+.1%} ({rows[worst][0].label})."
    )
    return Figure("predicted-measured", "Predicted and measured memory", caption, alt, partial(_draw, results, rows))


@styled()
def _draw(results: Results, rows: list[Row]) -> Drawing:
    figure = drawing(COLUMN, 3.4)
    axes, look = figure.subplots(), looks(results)
    handles = {}
    for cell, predicted, measured in rows:
        own = look[cell.strategy]
        (handle,) = axes.plot(predicted, measured, marker=own.marker, color=own.colour, mec="white", mew=0.4, ls="", ms=5.5)
        handles.setdefault(plain(cell.strategy, 24) if own is not OTHER else OTHER_NAME, handle)
    values = np.array([row[1:] for row in rows])
    low, high = values.min(), values.max()
    far = high > 8 * low
    line = np.array([low / 1.3, high * 1.3]) if far else np.array([max(0, low - 0.15 * high), high * 1.12])
    axes.plot(line, line, color="0.3", lw=0.8, zorder=1)
    axes.fill_between(line, line * (1 - BAND), line * (1 + BAND), color="0.88", lw=0, zorder=0)
    axes.set(xlim=line, ylim=line, xlabel="predicted reserved memory, GiB", ylabel="measured reserved memory, GiB")
    if far:
        axes.set(xscale="log", yscale="log")
        plain_numbers(axes, "both")
    axes.set_aspect("equal")
    above(figure, list(handles.values()), list(handles))
    return figure
