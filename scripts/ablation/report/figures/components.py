"""What the memory of a cell is made of, as predicted."""

import math
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Drawing

from ablation.report.figure import Figure
from ablation.report.figures.choice import best_cells, chosen, gib, known, names, numeric
from ablation.report.figures.style import HATCHES, PAGE, above, drawing, plain, row_height, row_name, styled, to_the_limit
from ablation.report.results import MEMORY, CellResult, Results

# What the allocator hands out first, so that the measured peak of tensors can be compared with where it ends.
PARTS = {
    "frozen_weights": "frozen weights", "trained_weights": "trained weights", "gradients": "gradients",
    "optimizer": "optimizer", "activations": "activations", "temporaries": "temporaries", "batch": "batch",
    "communication": "communication", "workspace": "workspaces", "slack": "fragmentation", "context": "CUDA context",
}  # fmt: skip
COLOURS = ("#0173b2", "#56b4e9", "#de8f05", "#029e73", "#cc78bc", "#ece133", "#ca9161", "#d55e00", "#fbafe4", "0.75", "0.93")
SMALL = 0.015  # share of the memory of every cell below which a part is not shown by itself
Row = tuple[CellResult, list[float], float]


def components(results: Results) -> Figure | None:
    """Bars of predicted memory by component, a row a cell; None where nothing was predicted."""
    columns = [f"{part}_gib" for part in PARTS]
    if "predicted_gib" not in results.runs:
        return None
    rows: list[Row] = []
    for cell in best_cells(results):
        sizes = [numeric(cell, column) for column in columns]
        if math.isfinite(numeric(cell, "predicted_gib")) and any(size > 0 for size in sizes):
            measured = known(cell, MEMORY)
            rows.append((cell, [max(0.0, np.nan_to_num(s)) for s in sizes], measured.mean if measured else math.nan))
    if not rows:
        return None
    caption = (
        "Predicted peak memory of a training step by component, on each GPU. Parts below"
        f" {SMALL:.1%} in every cell are taken together as “other”. Diamonds: measured peak of what is allocated"
        f" ({results.memory_kind}), which holds neither fragmentation nor context"
        + (", and on a CPU no workspaces." if "CPU" in results.memory_kind else ".")
        + chosen(results)
    )
    return Figure("memory-components", "Memory by component", caption, _alt(results, rows), partial(_draw, results, rows))


@styled()
def _draw(results: Results, rows: list[Row]) -> Drawing:
    texts = names(results, [row[0] for row in rows])
    figure = drawing(PAGE, 1.2 + row_height(texts) * len(rows))
    axes = figure.subplots()
    sizes = np.array([row[1] for row in rows])
    totals = sizes.sum(axis=1)
    shares = (sizes / totals[:, None]).max(axis=0)
    kinds = list(zip(PARTS.values(), COLOURS, [*HATCHES, "////"], sizes.T, shares >= SMALL, strict=True))
    left, places = np.zeros(len(rows)), np.arange(len(rows))
    handles, labels = [], []
    for name, colour, hatch, size, large in _ordered(kinds):
        if not large:
            continue
        bars = axes.barh(places, size, 0.68, left=left, color=colour, hatch=hatch, edgecolor="0.2", linewidth=0.4, label=name)
        left, handles, labels = left + size, [*handles, bars], [*labels, name]
    measured = np.array([row[2] for row in rows])
    if np.isfinite(measured).any():
        (mark,) = axes.plot(measured, places, "D", ms=4, mfc="white", mec="black", mew=1, zorder=5, label="measured")
        handles, labels = [*handles, mark], [*labels, "measured peak"]
    axes.set_yticks(places, [row_name(text, len(rows)) for text in texts])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="memory of a GPU, GiB", ylabel="cell")
    axes.grid(False, axis="y")
    budget = results.runs["budget_gib"].dropna() if "budget_gib" in results.runs else []
    if len(budget):
        limit = float(budget.iloc[0])
        to_the_limit(axes, limit, totals.max(), f"limit of {plain(results.study.hardware)}: {gib(limit)} GiB")
    above(figure, handles, labels)
    return figure


def _ordered(kinds: list) -> list:
    """The parts, with the small ones as one, before what a CPU does not have."""
    small = sum((kind[3] for kind in kinds if not kind[4]), np.zeros(len(kinds[0][3])))
    return [*kinds[:8], ("other", "white", "", small, small.max() > 0), *kinds[8:]]


def _alt(results: Results, rows: list[Row]) -> str:
    most = max(rows, key=lambda row: sum(row[1]))
    least = min(rows, key=lambda row: sum(row[1]))
    largest = sorted(zip(most[1], PARTS.values(), strict=True), reverse=True)[:3]
    parts = ", ".join(f"{name} {gib(size)}" for size, name in largest)
    return (
        f"Predicted memory of {len(rows)} cells by component, from {gib(sum(least[1]))} GiB ({least[0].label}) to"
        f" {gib(sum(most[1]))} GiB ({most[0].label}), of which {parts} GiB."
    )
