"""A signal asks a program to leave: it goes on to its next good moment and leaves from there, so that nothing is lost.

SLURM sends SIGUSR1 ahead of the time limit where the profile asks for it, and SIGTERM when it preempts or cancels a job.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STATUS = 76  # exit status of a program that left before its work was done
SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

_asked: list[str] = []


class Left(BaseException):
    """The program leaves because it was asked to; its text names the signal. No Exception, which others would catch."""


def listen() -> None:
    """From now on the signals ask, and end nothing; a second SIGINT (Ctrl-C) interrupts at once."""
    for number in SIGNALS:
        signal.signal(number, _hear)


def asked() -> str | None:
    """The first signal that asked to leave."""
    return _asked[0] if _asked else None


def check() -> None:
    """Raise :class:`Left` if a signal asked to leave: for moments at which there is nothing to save."""
    if _asked:
        raise Left(_asked[0])


@contextmanager
def at_once() -> Iterator[None]:
    """Inside, there is nothing to save: a signal ends the work under way with :class:`Left`."""
    check()
    before = {number: signal.signal(number, _leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    _hear(number, frame)
    check()


def _hear(number: int, frame: object) -> None:
    name = signal.Signals(number).name
    if name == "SIGINT" and name in _asked:
        raise KeyboardInterrupt
    _asked.append(name)
