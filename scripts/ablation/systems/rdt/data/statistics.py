"""Mean and spread of the states of a data set."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablation.systems.rdt.data.unified import SIZE


class Statistics(NamedTuple):
    """Over all steps in use, in the unified vector [128]; slots without a value hold 0."""

    state_mean: NDArray[np.float64]
    state_std: NDArray[np.float64]


def statistics_of(episodes: Iterable[NDArray[np.floating]]) -> Statistics:
    """Of the states [N, 128] of each episode; the spreads are joined without cancellation (Chan, Golub, LeVeque 1979)."""
    count, mean, squares = 0, np.zeros(SIZE), np.zeros(SIZE)
    for states in episodes:
        new, of_new = len(states), states.mean(axis=0, dtype=np.float64)
        apart = of_new - mean
        squares += ((states - of_new) ** 2).sum(axis=0) + apart**2 * count * new / (count + new)
        mean += apart * new / (count + new)
        count += new
    return Statistics(mean, np.sqrt(squares / count))
