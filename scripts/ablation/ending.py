"""The end of a forward pass: the backward pass begins with it, so what it forgot would be computed again at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ending: ContextVar[bool] = ContextVar("ending", default=False)


def is_ending() -> bool:
    """Whether a module is called :func:`ending` the pass."""
    return _ending.get()


@contextmanager
def ending() -> Iterator[None]:
    """What is called within it ends its forward pass, and is not recomputed: that would lower the peak by little."""
    token = _ending.set(True)
    try:
        yield
    finally:
        _ending.reset(token)
