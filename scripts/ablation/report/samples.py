"""What was measured, as arrays: a row a cell, a column a unit that cells are paired by."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablation.report.results import OOM, Results

METRIC = "metric."


@dataclass(frozen=True)
class Samples:
    """One column of the runs."""

    values: np.ndarray
    """(cells, units); NaN where there is no value."""
    seeds: np.ndarray
    """(units,): the seed of each, as a number from 0."""
    items: int
    """How many held-out items the units are of; 0 where a unit is a seed."""


def by_seed(results: Results, column: str) -> Samples:
    """A unit a seed. What a run measured until it ran out of memory does not count."""
    runs, cells, seeds = results.runs, results.cell_of, results.seed_of
    values = np.full((len(results.cells), seeds.max(initial=-1) + 1), np.nan)
    if column in runs:
        counts = (runs["outcome"] != OOM).to_numpy()
        values[cells[counts], seeds[counts]] = pd.to_numeric(runs[column])[counts]
    return Samples(values, np.arange(values.shape[1]), 0)


def by_item(results: Results, column: str) -> Samples:
    """A unit a held-out item and seed; a seed alone where a run's value is not the mean of its items, or they are not known."""
    over_seeds, metric, items = by_seed(results, column), column.removeprefix(METRIC), results.items
    if not column.startswith(METRIC) or metric not in items:
        return over_seeds
    runs, cells, seeds = results.runs, results.cell_of, results.seed_of
    rows = pd.Series(np.arange(len(runs)), index=runs["run"]).reindex(items["run"]).to_numpy()
    of_item = pd.to_numeric(items[metric]).to_numpy(float)
    names, item = np.unique(items["item"].astype(str), return_inverse=True)
    means = pd.Series(of_item).groupby(rows).mean().reindex(np.arange(len(runs))).to_numpy()
    overall = over_seeds.values[cells, seeds]
    if not np.allclose(means, overall, rtol=1e-3, atol=0, equal_nan=True):
        return over_seeds
    values = np.full((len(results.cells), over_seeds.values.shape[1], len(names)), np.nan)
    values[cells[rows], seeds[rows], item] = of_item
    return Samples(values.reshape(len(values), -1), np.repeat(over_seeds.seeds, len(names)), len(names))
