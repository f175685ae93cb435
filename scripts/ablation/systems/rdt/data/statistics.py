"""Mean and spread of the states of a data set."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablation.systems.rdt.data.episode import Episode, recording
from ablation.systems.rdt.data.unified import SIZE, aloha_to_unified


class Statistics(NamedTuple):
    """Over all steps in use, in the unified vector [128]; slots without a value hold 0."""

    state_mean: NDArray[np.float64]
    state_std: NDArray[np.float64]


def statistics_of(episodes: Sequence[Episode]) -> Statistics:
    """One pass, an episode at a time; the spreads are joined without cancellation (Chan, Golub, LeVeque 1979)."""
    count, mean, squares = 0, np.zeros(SIZE), np.zeros(SIZE)
    for episode in episodes:
        states = states_of(episode)
        new, of_new = len(states), states.mean(axis=0)
        apart = of_new - mean
        squares += ((states - of_new) ** 2).sum(axis=0) + apart**2 * count * new / (count + new)
        mean += apart * new / (count + new)
        count += new
    return Statistics(mean, np.sqrt(squares / count))


def states_of(episode: Episode) -> NDArray[np.float64]:
    """The states of the steps in use [N, 128]."""
    with recording(episode.path) as opened:
        return aloha_to_unified(opened.qpos(episode.first, episode.steps))[0].astype(np.float64)

