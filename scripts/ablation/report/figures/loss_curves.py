"""The training loss of a few cells."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from ablation.report.figure import Figure
from ablation.report.figures.choice import best_of_each_strategy, looks, names, ranked
from ablation.report.figures.style import PAGE, above, drawing, plain, plain_numbers, styled
from ablation.report.results import CellResult, Results

SMOOTHING = 0.1  # share of a run that its curve is averaged over
MOST = 7  # strategies
Curve = tuple[CellResult, np.ndarray, np.ndarray]  # steps; a row a seed


def loss_curves(results: Results) -> Figure | None:
    """The best cell of each strategy and its baseline: mean over the seeds, and their range. None where nothing trained."""
    curves = [curve for cell in _cells(results) if (curve := _curve(results, cell))]
    if not curves:
        return None
    strategies = results.runs["strategy"].nunique()
    which = f"best cells of the {MOST} best of {strategies} strategies" if strategies > MOST else "best cell of each strategy"
    caption = (
        f"Training loss: the {which} by {results.primary.label}{_and_baseline(results)}. Mean over the seeds, smoothed over a"
        f" tenth of the run; the band is the range of the seeds."
    )
    ends = "; ".join(f"{cell.label}: {losses[:, 0].mean():.3g} to {losses[:, -1].mean():.3g}" for cell, _, losses in curves)
    return Figure("loss-curves", "Training loss", caption, f"Training loss over {curves[0][1][-1]:g} steps. {ends}.",
                  partial(_draw, results, curves))  # fmt: skip


@styled()
def _draw(results: Results, curves: list[Curve]) -> Drawing:
    figure = drawing(PAGE, 2.7)
    axes, look, drawn = figure.subplots(), looks(results), {}
    for i, ((cell, steps, losses), name) in enumerate(zip(curves, names(results, [c[0] for c in curves]), strict=True)):
        own, again = look[cell.strategy], cell.strategy in drawn
        colour = "black" if again else own.colour
        every = (i / len(curves) * 0.12, 0.12)  # apart, so that the markers of curves that coincide stay visible
        (drawn[cell.strategy],) = axes.plot(
            steps, losses.mean(axis=0), color=colour, ls=(0, (1, 1)) if again else own.line, marker="" if again else own.marker,
            markevery=every, ms=4, mec="white", mew=0.4,
            label=plain(name, 44) + (" (baseline)" if results.is_baseline(cell) else ""),
        )  # fmt: skip
        if len(losses) > 1:
            axes.fill_between(steps, losses.min(axis=0), losses.max(axis=0), color=colour, alpha=0.15, lw=0)
    values = np.concatenate([losses.ravel() for _, _, losses in curves])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 8 * values.min():
        axes.set_yscale("log")
        axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    plain_numbers(axes, "y")
    axes.set(xlabel="optimizer step", ylabel="training loss")
    axes.margins(x=0.01)
    above(figure, *axes.get_legend_handles_labels())
    return figure


def _cells(results: Results) -> list[CellResult]:
    """The best cells, and the baseline, of several that of the best, where it is none of them."""
    best = best_of_each_strategy(results)
    if len(best) > MOST:
        rank = {id(results.cells[number]): place for place, number in enumerate(ranked(results))}
        kept = {id(cell) for cell in sorted(best, key=lambda cell: rank[id(cell)])[:MOST]}
        best = [cell for cell in best if id(cell) in kept]
    baseline = _baseline(results)
    return best if baseline is None or any(cell is baseline for cell in best) else [*best, baseline]


def _baseline(results: Results) -> CellResult | None:
    best = results.best()
    of_best = results.baseline_of(best) if best else None
    return of_best or next((results.cells[i] for i in results.baselines), None)


def _and_baseline(results: Results) -> str:
    if not results.baselines:
        return ""
    return ", and the baseline" if len(results.baselines) == 1 else ", and the baseline of the best of all"


def _curve(results: Results, cell: CellResult) -> Curve | None:
    """The smoothed losses of a cell's runs at the steps that all have; a curve that memory cut short does not count."""
    found = [results.curves[run] for run in cell.counted("run") if run in results.curves and len(results.curves[run]["loss"])]
    found = [frame for frame in found if np.isfinite(frame["loss"].astype(float)).any()]
    if not found:
        return None
    shortest = min(found, key=lambda frame: frame["step"][-1])["step"].astype(float)
    return cell, shortest, np.stack([np.interp(shortest, frame["step"], _smooth(frame["loss"])) for frame in found])


def _smooth(losses: np.ndarray) -> np.ndarray:
    known = pd.Series(losses.astype(float)).where(np.isfinite(losses.astype(float)))
    return known.rolling(max(1, round(SMOOTHING * len(known))), min_periods=1).mean().to_numpy()
