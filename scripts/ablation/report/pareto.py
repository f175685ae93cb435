"""Which cells are worth their memory and time: the front over quality, peak memory and step time."""

from dataclasses import dataclass

import numpy as np

from ablation.report.comparisons import ended
from ablation.report.results import MEMORY, STEP_TIME, Results
from ablation.report.samples import METRIC, by_seed
from ablation.report.statistics import intervals

FRONT, UNTOLD = "on the front", "cannot be told"


@dataclass(frozen=True)
class Standing:
    """Where a cell stands."""

    cell: int
    """Index into the results' cells."""
    front: str
    """On the front, dominated by which cell, or that intervals overlap; of a cell without all three numbers, how it ended."""
    dominated_by: int | None = None

    @property
    def ranked(self) -> bool:
        """Whether it has all three numbers."""
        return self.front in (FRONT, UNTOLD) or self.dominated_by is not None


def standings(results: Results) -> list[Standing]:
    """Each cell against all others, in their order.

    A cell is dominated when another is at least as good in all three means, and better in one by more than the half width of
    their difference's interval, paired by seed. Where none is by that much, it cannot be told; nor can it with one seed.
    """
    values = _values(results)
    means = np.stack([intervals(one)[0] for one in values])
    known = ~np.isnan(means).any(axis=0)
    return [_standing(results, i, values, means) if known[i] else _unknown(results, i) for i in range(len(known))]


def _values(results: Results) -> np.ndarray:
    """(3, cells, seeds): what is to be low."""
    metric = results.primary
    quality, memory, step = (by_seed(results, column).values for column in (METRIC + metric.name, MEMORY, STEP_TIME))
    return np.stack([quality if metric.lower_is_better else -quality, memory, step])


def _standing(results: Results, i: int, values: np.ndarray, means: np.ndarray) -> Standing:
    rivals = np.flatnonzero((means <= means[:, [i]]).all(axis=0) & (means < means[:, [i]]).any(axis=0))
    if not len(rivals):
        return Standing(i, FRONT)
    told = rivals[np.any([_below_zero(one[rivals] - one[i]) for one in values], axis=0)]
    if not len(told):
        return Standing(i, UNTOLD)
    by = int(told[np.lexsort(means[::-1, told])[0]])  # the one of the best quality
    return Standing(i, f"dominated by {results.cells[by].label}", by)


def _below_zero(differences: np.ndarray) -> np.ndarray:
    mean, half_width = intervals(differences)
    return mean + half_width < 0  # NaN is not


def _unknown(results: Results, i: int) -> Standing:
    cell = results.cells[i]
    return Standing(i, ended(cell) if set(cell.outcomes) != {"completed"} else "not measured")
