"""Which cells can be told apart: paired differences to the baseline, and the best of a column."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablation.report.results import CellResult, Results, in_words
from ablation.report.samples import METRIC, by_item
from ablation.report.statistics import Paired, holm, intervals, paired
from ablation.settings import Metric

ALPHA = 0.05
BETTER, WORSE, UNTOLD, EQUAL = "better", "worse", "cannot be told apart", "equal in every pair"
ONE_PAIR, NO_PAIR, NO_SPREAD = "one pair gives no interval", "no pair", "the same in every pair: no interval"
ONE_TRAINING = "one training"
"""Both levels are the same in all that was in force: :mod:`ablation.alike`."""
ONE_SEED = " (one seed)"
"""Added to what was told from one seed: it holds for these trained weights over the items, not for training again."""
BOLD = (
    "Bold: the best mean and all that paired tests cannot tell apart from it (p < 0.05, Holm-corrected over all pairs of"
    " cells). Nothing is bold where no cell can be told apart from the best, or with one seed."
)
"""The convention of :func:`best_cells`, for captions."""


@dataclass(frozen=True)
class Difference:
    """A cell minus the baseline in one metric."""

    cell: int
    """Index into the results' cells."""
    baseline: int
    """The same of what it is compared with."""
    mean: float | None
    half_width: float | None
    """Of the plain 95 % interval; None with one pair, or where all are the same."""
    p: float | None
    """Holm-adjusted over the cells that are compared in this metric."""
    pairs: int
    seeds: int
    verdict: str
    """Better, worse, or why that cannot be said; of a cell without a value, how its runs ended."""

    @property
    def told(self) -> bool:
        """Whether it is better or worse, be it with one seed."""
        return self.verdict.removesuffix(ONE_SEED) in (BETTER, WORSE)


def differences(results: Results, metric: Metric) -> list[Difference]:
    """All other cells against their baselines, in the order of the cells; nothing of those that have none.

    Paired by held-out item and seed, or by seed alone where the metric is not the mean of its items.
    """
    if not results.baselines:
        return []
    of = np.array([-1 if one is None else one for one in results.compared.of])
    sample = by_item(results, METRIC + metric.name)
    found = paired(sample.values - sample.values[of], sample.seeds)
    others = (of >= 0) & (of != np.arange(len(of)))
    adjusted = holm(np.where(others, careful(found, counted=True), np.nan))
    return [_difference(results, found, i, adjusted[i], metric) for i in np.flatnonzero(others).tolist()]


def best_cells(results: Results, column: str, lower: bool) -> set[int]:
    """Indices of the cells that are bold in a column, by the convention of :data:`BOLD`.

    The best is picked by looking, so that it counts as tested against all pairs, not against its own alone.
    """
    sample = by_item(results, column)
    return bold(sample.values if lower else -sample.values, sample.seeds, counted=column.startswith(METRIC))


def bold(values: np.ndarray, seeds: np.ndarray, counted: bool) -> set[int]:
    """The same for ``values`` (cells, units), of which the lowest mean is the best; ``counted``: see :func:`careful`."""
    known = ~np.isnan(values).all(axis=1)
    if np.count_nonzero(known) < 2:
        return set()
    best = int(np.nanargmin(intervals(values)[0]))
    found = paired(values - values[best], seeds)
    tested = known & (found.seeds > 1)
    tested[best] = False
    count = np.count_nonzero(known)
    apart = holm(np.where(tested, careful(found, counted), np.nan), count * (count - 1) // 2) < ALPHA
    return {best, *np.flatnonzero(tested & ~apart).tolist()} if apart.any() else set()


def ended(cell: CellResult) -> str:
    """How the runs of a cell ended: ``OOM`` where all did the same, else ``2 diverged, 1 OOM``."""
    outcomes = cell.outcomes
    if len(outcomes) == 1:
        return in_words(next(iter(outcomes)))
    return ", ".join(f"{count} {in_words(outcome)}" for outcome, count in outcomes.items())


def verdict_of(mean: float, p: float | None, pairs: int, seeds: int, lower: bool) -> str:
    """A difference with its adjusted p in words; no p: all pairs are the same."""
    if pairs == 1:
        return ONE_PAIR
    if p is None:
        return NO_SPREAD if mean else EQUAL
    if p >= ALPHA:
        return UNTOLD
    return (BETTER if (mean < 0) == lower else WORSE) + (ONE_SEED if seeds == 1 else "")


def _difference(results: Results, found: Paired, i: int, p: float, metric: Metric) -> Difference:
    of, cell, pairs, seeds = results.compared.of[i], results.cells[i], int(found.pairs[i]), int(found.seeds[i])
    if not pairs:
        known = not pd.isna(cell.column(METRIC + metric.name)).all()
        return Difference(i, of, None, None, None, 0, 0, NO_PAIR if known else ended(cell))
    mean = float(found.mean[i])
    spread = pairs > 1 and found.half_width[i] > 0
    half_width, p = (float(found.half_width[i]), float(p)) if spread else (None, None)
    return Difference(i, of, mean, half_width, p, pairs, seeds, verdict_of(mean, p, pairs, seeds, metric.lower_is_better))


def careful(found: Paired, counted: bool) -> np.ndarray:
    """p-values, but 1 for what may be ``counted``, as an accuracy is, and differs by the same in all pairs.

    That happens by chance, and nothing is known of its spread. Memory and time may well do so.
    """
    return np.where((found.half_width == 0) & counted, 1.0, found.p)
