"""Lists of pairs: of each owner, with some of the others."""

import numpy as np
from numpy.typing import NDArray


def pairs(starts: NDArray[np.integer], counts: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Owner i goes with the numbers from ``starts[i]`` on, ``counts[i]`` of them: owners and numbers, both [sum of counts]."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) + np.repeat(starts - np.cumsum(counts) + counts, counts)
