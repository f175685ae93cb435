"""Each held-out item before and after fine-tuning."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from ablation.report.figure import Figure
from ablation.report.figures.choice import best_of_each_strategy, direction, looks, metric_label, names, ranked
from ablation.report.figures.style import PAGE, above, drawing, plain, styled
from ablation.report.results import CellResult, Results
from ablation.settings import Metric

MOST, STRATEGIES = 40, 4


@dataclass(frozen=True)
class After:
    """A cell's items: ``mean``, ``low`` and ``high`` over its seeds, by item."""

    cell: CellResult
    items: pd.DataFrame


def before_after(results: Results) -> Figure | None:
    """A row a held-out item: the model before, and the best cell of each strategy. None below two items."""
    metric = next((metric for metric in results.metrics if metric.name in results.items), None)
    if metric is None:
        return None
    after = [found for cell in _cells(results) if (found := _after(results, cell, metric))]
    before = _before(results, metric)
    items = _order(before, after)
    if len(items) < 2:
        return None
    shown = items if len(items) <= MOST else [items[int(i)] for i in np.linspace(0, len(items) - 1, MOST).round()]
    count = results.runs["strategy"].nunique()
    caption = (
        f"{metric.label} of each held-out item before training and after, for the best cell of each strategy"
        + (f" (the {STRATEGIES} best of {count})" if count > STRATEGIES else "")
        + f": mean over seeds, and their range as a line. {direction(metric)} In the order of the values before training."
        + (f" Of {len(items):,} items {MOST} are shown, evenly spread over that order." if len(items) > MOST else "")
    )
    draw = partial(_draw, results, metric, before, after, shown)
    return Figure("before-after", "Held-out items before and after", caption, _alt(metric, before, after, items), draw)


@styled()
def _draw(results: Results, metric: Metric, before: pd.Series, after: list[After], items: list[str]) -> Drawing:
    row = 0.16 + 0.06 * len(after) if len(items) <= 14 else 0.2
    figure = drawing(PAGE, 0.85 + row * len(items))
    axes, look, places = figure.subplots(), looks(results), np.arange(len(items))
    old = before.reindex(items).to_numpy(float)
    gap = min(0.24, 0.7 / max(1, len(after)))
    for i, (found, name) in enumerate(zip(after, names(results, [one.cell for one in after]), strict=True)):
        own, numbers = look[found.cell.strategy], found.items.reindex(items)
        heights = places + (i - (len(after) - 1) / 2) * gap
        axes.hlines(heights, old, numbers["mean"], color="0.72", lw=0.6, zorder=1)
        axes.hlines(heights, numbers["low"], numbers["high"], color=own.colour, lw=1.4, zorder=2)
        axes.plot(numbers["mean"], heights, marker=own.marker, color=own.colour, mec="white", mew=0.4, ls="", zorder=3,
                  label=plain(name, 40))  # fmt: skip
    if np.isfinite(old).any():
        axes.plot(old, places, marker="|", ms=10, mew=1.6, color="black", ls="", zorder=4, label="before training")
    axes.set_yticks(places, [plain(item, 40) for item in items])
    axes.set(ylim=(len(items) - 0.4, -0.6), xlabel=metric_label(metric), ylabel="held-out item")
    axes.yaxis.grid(True)
    above(figure, *axes.get_legend_handles_labels())
    return figure


def _cells(results: Results) -> list[CellResult]:
    best = best_of_each_strategy(results)
    if len(best) <= STRATEGIES:
        return best
    rank = {id(results.cells[number]): place for place, number in enumerate(ranked(results))}
    kept = {id(cell) for cell in sorted(best, key=lambda cell: rank[id(cell)])[:STRATEGIES]}
    return [cell for cell in best if id(cell) in kept]


def _after(results: Results, cell: CellResult, metric: Metric) -> After | None:
    rows = results.items[results.items["run"].isin(cell.ids)]
    values = pd.to_numeric(rows[metric.name], errors="coerce").replace([np.inf, -np.inf], np.nan).dropna()
    if values.empty:
        return None
    return After(cell, values.groupby(rows["item"].astype(str), sort=False).agg(mean="mean", low="min", high="max"))


def _before(results: Results, metric: Metric) -> pd.Series:
    column = f"before.{metric.name}"
    if column not in results.items:
        return pd.Series(dtype=float)
    values = pd.to_numeric(results.items[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
    return values.groupby(results.items["item"].astype(str), sort=False).mean()


def _order(before: pd.Series, after: list[After]) -> list[str]:
    """The items by their value before training; those without one last."""
    items = list(dict.fromkeys(item for found in after for item in found.items.index))
    return before.reindex(items).sort_values(kind="stable", na_position="last").index.tolist()


def _alt(metric: Metric, before: pd.Series, after: list[After], items: list[str]) -> str:
    sign = 1 if metric.lower_is_better else -1
    parts = []
    for found in after:
        change = (found.items["mean"] - before.reindex(found.items.index)).dropna()
        better = int((sign * change < 0).sum())
        parts.append(
            f"{found.cell.label}: {better} of {len(change)} better, mean {found.items['mean'].mean():.{metric.digits}f}"
        )
    mean = before.reindex(items).mean()
    start = f"{metric.label} of {len(items)} held-out items, before training {mean:.{metric.digits}f} in the mean."
    return f"{start} {'; '.join(parts)}."
