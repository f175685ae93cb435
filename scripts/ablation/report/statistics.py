"""Means and intervals over seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean, the half width of its 95 % t interval (None for fewer than two values), and the number of values."""

    mean: float
    half_width: float | None
    count: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and t interval of ``values``; None when there is none. NaN counts as no value.

    The t interval keeps its nominal coverage with three seeds, where a bootstrap covers 79 % instead of 95 %.
    """
    known = np.asarray([value for value in values if value is not None and not np.isnan(value)], float)
    if not len(known):
        return None
    if len(known) == 1:
        return Estimate(float(known[0]), None, 1)
    spread = known.std(ddof=1) / np.sqrt(len(known))
    return Estimate(float(known.mean()), float(spread * student.ppf((1 + LEVEL) / 2, len(known) - 1)), len(known))
