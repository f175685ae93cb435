"""Loops whose rounds are alike: who traces a step need not see them all, and finds the same whatever the batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_most: ContextVar[int | None] = ContextVar("most", default=None)


def rounds(count: int) -> range:
    """The numbers of ``count`` rounds of which each allocates what the one before it has given back."""
    most = _most.get()
    return range(count if most is None else min(count, most))


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """Within it, no loop has more rounds than ``count``: results are wrong, but not their shapes."""
    token = _most.set(count)
    try:
        yield
    finally:
        _most.reset(token)
