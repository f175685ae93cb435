"""A process and the processes that belong to it: the one that started it, and those it started."""

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

WATCHER = "ABLATION_WATCHER"  # environment variable of a training's processes: the process that started all of them
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """Have this process killed when ``parent``, which started it, dies; at once if that has happened."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def is_own(number: int) -> bool:
    """Whether process ``number`` is this one, a descendant of it, or trains with it (they have the same launcher)."""
    ours = {os.getpid(), int(os.environ.get(WATCHER, os.getpid()))}
    while number > 1:
        if number in ours:
            return True
        number = _parent(number)
    return False


def _parent(number: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[1])
    return 0
