"""From two traces of a step to any other: every storage of a step is affine in its batch, and in its rank."""

from dataclasses import replace

import numpy as np

from ablation.vram.trace import Trace


def along(first: Trace, at_first: int, second: Trace, at_second: int, wanted: int) -> Trace | None:
    """The trace where the value that was ``at_first`` and ``at_second`` is ``wanted``.

    Exact: nothing is rounded. None where the two traces differ in more than sizes, or no whole sizes come out.
    """
    if not _alike(first, second):
        return None
    start, end = (np.append(trace.sizes, trace.parameters) for trace in (first, second))
    slope, rest = np.divmod(end - start, at_second - at_first)
    found = start + slope * (wanted - at_first)
    if rest.any() or (found < 0).any():
        return None
    total, trained = found[-2:].tolist()
    return replace(first, sizes=found[:-2], parameters=(total, trained))


def _alike(first: Trace, second: Trace) -> bool:
    return (
        first.existing == second.existing
        and first.marks == second.marks
        and np.array_equal(first.events, second.events)
        and np.array_equal(first.kinds, second.kinds)
        and first.modules == second.modules
    )
