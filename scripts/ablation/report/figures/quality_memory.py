"""What quality a cell reaches and what memory it takes."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from ablation.report.figure import Figure
from ablation.report.figures.choice import (
    best_cells,
    cell_means,
    chosen,
    direction,
    gib,
    known,
    looks,
    metric_column,
    metric_label,
    names,
    numeric,
    ran_out,
    shown,
    without_memory,
)
from ablation.report.figures.labels import label_points
from ablation.report.figures.style import (
    COLUMN,
    OTHER,
    OTHER_NAME,
    PAGE,
    Look,
    above,
    drawing,
    folded,
    plain,
    plain_numbers,
    styled,
    to_the_limit,
    window,
)  # fmt: skip
from ablation.report.results import MEMORY, CellResult, Results
from ablation.report.statistics import Estimate
from ablation.settings import Metric

NAMED = 14  # points of which each is named
LISTED = 10  # cells without memory that are named
Point = tuple[CellResult, Estimate, Estimate]


def quality_memory(results: Results) -> Figure | None:
    """A point a cell: the primary metric against peak memory, each with its interval. None where nothing was measured."""
    found = [(cell, known(cell, metric_column(results)), known(cell, MEMORY)) for cell in best_cells(results)]
    points: list[Point] = [row for row in found if row[1] and row[2]]
    if not points:
        return None
    failed = [results.cells[i] for i in _without_memory(results)]
    limit, front = _limit(results), _front(results, points)
    caption = (
        f"Mean over the seeds of a cell, with 95 % t intervals of both where there are two seeds or more; intervals that leave"
        f" the axes are cut. {direction(results.primary)} Memory: {results.memory_kind}."
        + (f" The card leaves {gib(limit)} GiB to tensors." if limit else "")
        + " The thin line is the Pareto front of the means. Hollow points: some seeds ran out of memory."
        + (" At the right: cells none of whose runs had memory enough." if failed else "")
        + chosen(results)
        + (f" Of more than {NAMED} cells only those of the front are named." if len(points) > NAMED else "")
    )
    draw = partial(_draw, results, points, front, failed, limit)
    return Figure("quality-memory", "Quality against memory", caption, _alt(results, points, front, failed, limit), draw)


@styled()
def _draw(results: Results, points: list[Point], front: list[int], failed: list[CellResult], limit: float | None) -> Drawing:
    texts = [folded(text, 28) if text else "" for text in names(results, [cell for cell, _, _ in points], strategy=False)]
    wide = bool(failed) or len(points) > 8 or max(map(len, texts)) > 20
    figure = drawing(PAGE if wide else COLUMN, 3.2 if wide else 2.9)
    axes, side = figure.subplots(1, 2, width_ratios=[1, 0.34]) if failed else (figure.subplots(), None)
    look = looks(results)
    for cell, quality, memory in points:
        _point(axes, look[cell.strategy], quality, memory, hollow=cell.out_of_memory > 0)
    steps = [(points[i][2].mean, points[i][1].mean) for i in front]
    if len(front) > 1:
        axes.plot(*zip(*steps, strict=True), color="0.35", lw=0.7, drawstyle="steps-post", zorder=1, gid="front")
    _frame(axes, points, results.primary)
    if limit:
        to_the_limit(
            axes, limit, max(m.mean for _, _, m in points), f"limit of {plain(results.study.hardware)}: {gib(limit)} GiB"
        )
    axes.set_xlabel("peak memory, GiB")
    axes.set_ylabel(metric_label(results.primary))
    if side is not None:
        _list(side, failed, names(results, [*(p[0] for p in points), *failed])[len(points) :], look)
    if len(look) > 1 or len(front) > 1:
        above(figure, *_legend(points, failed, look, len(front) > 1))
    order = [*front, *(i for i in range(len(points)) if i not in front)] if len(points) <= NAMED else front
    everywhere = [(m.mean, q.mean, q.half_width or 0) for _, q, m in points]
    places = [(points[i][2].mean, points[i][1].mean) for i in order]
    label_points(axes, places, [texts[i] for i in order], everywhere, steps)
    return figure


def _point(axes: Axes, look: Look, quality: Estimate, memory: Estimate, hollow: bool) -> None:
    axes.errorbar(
        memory.mean, quality.mean, xerr=memory.half_width, yerr=quality.half_width, color=look.colour, marker=look.marker,
        mfc="white" if hollow else look.colour, mec=look.colour, elinewidth=0.8, capsize=1.8, ls="", zorder=3,
    )  # fmt: skip


def _frame(axes: Axes, points: list[Point], metric: Metric) -> None:
    """Limits, with room for names at the sides."""
    _, quality, memory = zip(*points, strict=True)
    low, high, span = window([m.mean for m in memory], [m.half_width for m in memory], 0)
    axes.set_xlim(low - 0.1 * span, high + 0.25 * span)
    least = 5 * 10.0**-metric.digits  # below, tables print nothing different
    axes.set_ylim(*window([m.mean for m in quality], [m.half_width for m in quality], least)[:2])
    plain_numbers(axes, "both")


def _list(axes: Axes, failed: Sequence[CellResult], called: Sequence[str], look: dict[str, Look]) -> None:
    """The cells without memory, named one below the other; their height means nothing."""
    some = list(failed[:LISTED])
    axes.set(xlim=(0, 1), ylim=(0, LISTED + 1), xticks=[], yticks=[], xlabel="out of memory")
    axes.set_facecolor("0.95")
    axes.grid(False)
    for i, (cell, name) in enumerate(zip(some, called[:LISTED], strict=True)):
        need, height = numeric(cell, "predicted_gib"), LISTED + 0.4 - i
        how = f"predicted {gib(need)} GiB" if ran_out(cell) != "OOM" and need == need else ran_out(cell)
        own = look[cell.strategy]
        fill = own.colour if ran_out(cell) == "OOM" else "white"
        axes.plot(0.06, height, marker=own.marker, color=own.colour, mfc=fill, ls="")
        axes.annotate(
            f"{plain(name, 26)}\n{how}", (0.12, height), fontsize=5.6, va="center", linespacing=1.05, annotation_clip=False
        )
    if len(failed) > LISTED:
        axes.text(0.12, 0.35, f"and {len(failed) - LISTED:,} more", fontsize=5.6, va="center", style="italic")


def _legend(points: list[Point], failed: Sequence[CellResult], look: dict[str, Look], front: bool) -> tuple[list, list[str]]:
    there = {cell.strategy for cell in [*(p[0] for p in points), *failed[:LISTED]]}
    own = [name for name in look if name in there and look[name] is not OTHER]
    handles = [Line2D([], [], color=look[n].colour, marker=look[n].marker, ls="") for n in own]
    labels = [plain(name, 24) for name in own]
    if len(own) < len(there):
        handles.append(Line2D([], [], color=OTHER.colour, marker=OTHER.marker, ls=""))
        labels.append(OTHER_NAME)
    if front:
        handles.append(Line2D([], [], color="0.35", lw=0.7))
        labels.append("Pareto front")
    return handles, labels


def _front(results: Results, points: list[Point]) -> list[int]:
    """The points that no other beats in both means, from little memory to much."""
    sign, best, front = 1 if results.primary.lower_is_better else -1, np.inf, []
    for i in sorted(range(len(points)), key=lambda i: (points[i][2].mean, sign * points[i][1].mean)):
        if sign * points[i][1].mean < best:
            best = sign * points[i][1].mean
            front.append(i)
    return front


def _limit(results: Results) -> float | None:
    """What the card leaves to tensors, in GiB; without runs that say so, what it has."""
    for column in ("memory.budget_gib", "oom.budget_gib", "budget_gib"):
        values = results.runs[column].dropna() if column in results.runs else []
        if len(values):
            return float(values.min())
    return None


def _without_memory(results: Results) -> list[int]:
    if not any(name.startswith("oom") for name in results.runs["outcome"].astype(str).unique()):
        return []
    measured = cell_means(results, metric_column(results))
    return [i for i, cell in enumerate(results.cells) if measured[i] != measured[i] and without_memory(cell)]


def _alt(results: Results, points: list[Point], front: list[int], failed: Sequence[CellResult], limit: float | None) -> str:
    metric = results.primary
    unit = f" {metric.unit}" if metric.unit else ""
    some = [
        f"{points[i][0].label}: {shown(points[i][1], metric.digits)}{unit} at {gib(points[i][2].mean)} GiB" for i in front[:6]
    ]
    count = f"{len(points)} cell{'s' * (len(points) > 1)}"
    text = f"{metric.label} against peak memory of {count}. On the Pareto front: {'; '.join(some)}."
    text += f" The limit of {results.study.hardware} is {gib(limit)} GiB." if limit else ""
    return text + (f" Out of memory: {'; '.join(cell.label for cell in failed[:LISTED])}." if failed else "")
