"""Which conditions of a sample are hidden, so that the network also learns to act without them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Hidden(NamedTuple):
    """What the network is not told."""

    frequency: bool
    """The control frequency becomes 0."""
    state: bool
    """The state becomes the mean of the data set."""
    mask: bool
    """The mask becomes 0."""
    text: bool
    """The instruction becomes empty."""
    images: NDArray[np.bool_]
    """Images that become background [history, cameras]."""


def nothing_hidden(history: int, cameras: int) -> Hidden:
    """Everything is told."""
    return Hidden(False, False, False, False, np.zeros((history, cameras), bool))


def draw_hidden(rng: np.random.Generator, probability: float, history: int, cameras: int) -> Hidden:
    """Each with ``probability``, each on its own."""
    frequency, state, mask, text = (rng.random(4) < probability).tolist()
    return Hidden(frequency, state, mask, text, rng.random((history, cameras)) < probability)
