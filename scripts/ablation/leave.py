"""A signal asks a program to leave: it goes on to its next good moment and leaves from there, so that nothing is lost.

SLURM sends SIGUSR1 ahead of the time limit where the profile asks for it, and SIGTERM when it preempts or cancels a job.
"""

import signal

STATUS = 76  # exit status of a program that left before its work was done

_asked: list[str] = []


class Left(Exception):
    """The program leaves because it was asked to; its text names the signal."""


def listen() -> None:
    """From now on the signals ask, and end nothing; a second SIGINT (Ctrl-C) interrupts at once."""
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _hear)


def asked() -> str | None:
    """The first signal that asked to leave."""
    return _asked[0] if _asked else None


def check() -> None:
    """Raise :class:`Left` if a signal asked to leave: for moments at which there is nothing to save."""
    if _asked:
        raise Left(_asked[0])


def _hear(number: int, frame: object) -> None:
    name = signal.Signals(number).name
    if name == "SIGINT" and name in _asked:
        raise KeyboardInterrupt
    _asked.append(name)
