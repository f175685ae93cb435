"""Starts the processes that train one model, one a GPU, watches them, and ends them all when one fails.

Not torchrun: it takes SIGTERM for itself, ends with a page of its own, and needs a port that may be taken meanwhile.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ablation.errors import UserError
from ablation.kin import WATCHER
from ablation.training import failures
from ablation.training.nodes import LOST_NODE, OtherNodes
from ablation.training.processes import FORWARDED, LISTENER, REPORT

OOM = 75  # exit status of a process that ran out of memory
POLL_SECONDS = 0.1

Process = subprocess.Popen | OtherNodes


def start(arguments: Sequence[str], count: int, folder: Path, patience_min: float, nodes: int = 1, threads: int = 1) -> int:
    """Run a program ``count`` times, on ``nodes``; ``arguments``: its file, and what it takes.

    Returns 0, or ``OOM`` where that is how one of them ended. Raises :class:`UserError` with the error of the process that
    failed first; the others are killed. Signals that ask to leave are passed on. ``folder``: for the report of a failure.
    The processes hold the locks of this one: nobody has them before the last has ended, ``patience_min`` after the first at
    the most. ``threads``: of a process.
    """
    report, here = folder / f"failure-{os.getpid()}.json", count // nodes
    report.unlink(missing_ok=True)
    processes: list[Process] = []
    try:
        with listening(nodes) as (listener, meeting), passed_on(processes):
            spawn(processes, arguments, range(here), count, meeting, report, listener)
            if nodes > 1:
                processes.append(OtherNodes(arguments, nodes - 1, here, count, meeting, report, threads))
            listener.close()
            return watch(processes, count, report, patience_min)
    finally:
        report.unlink(missing_ok=True)


@contextmanager
def listening(nodes: int) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """A socket that is already there for the others when they look for the first process, and where that is."""
    with socket.create_server(("127.0.0.1" if nodes == 1 else "", 0)) as listener:
        yield listener, ("127.0.0.1" if nodes == 1 else socket.gethostname(), listener.getsockname()[1])


def spawn(
    processes: list[Process],
    arguments: Sequence[str],
    ranks: range,
    world: int,
    meeting: tuple[str, int],
    report: Path,
    listener: socket.socket | None = None,
) -> None:
    """Add this node's processes. ``meeting``: where the first one of all listens, with ``listener``."""
    common = {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(len(ranks)),
        "MASTER_ADDR": meeting[0],
        "MASTER_PORT": str(meeting[1]),
        REPORT: str(report),
        WATCHER: str(os.getpid()),
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # in each until it can heed them
    for local, rank in enumerate(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(local)}
        if rank == 0:
            own[LISTENER] = str(listener.fileno())
            listener.set_inheritable(True)
        process = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **common, **own}, close_fds=False)
        process.rank = rank
        processes.append(process)
        if rank == 0:
            listener.set_inheritable(False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)


def watch(processes: Sequence[Process], world: int, report: Path, patience_min: float = math.inf) -> int:
    """Wait until all have ended well, or one has not; none lives on. See :func:`start`."""
    latest = math.inf
    try:
        while not (ended := failed(processes)) and (last := running(processes)) and time.monotonic() < latest:
            if latest == math.inf and len(last) < len(processes):
                latest = time.monotonic() + 60 * patience_min
            time.sleep(POLL_SECONDS)
    finally:
        end(processes)
    if ended is None and not last:
        return 0
    if ended is None:
        ended, words = last[0], f"did not end within {patience_min:g} minutes (compute.patience_min) of another"
    elif ended.returncode == OOM:
        return OOM
    else:
        words = LOST_NODE if isinstance(ended, OtherNodes) else failures.of_status(ended.returncode)
    failures.claim(report, ended.rank, words)  # unless it has told more itself
    rank, error = failures.claimed(report) or (ended.rank, words)
    raise UserError(f"process {rank + 1} of {world}: {error}")


def failed(processes: Sequence[Process]) -> Process | None:
    """One that ended otherwise than well."""
    return next((process for process in processes if process.poll() not in (None, 0)), None)


def running(processes: Sequence[Process]) -> list[Process]:
    """Those that have not ended, as :func:`failed` has found."""
    return [process for process in processes if process.returncode is None]


def end(processes: Sequence[Process]) -> None:
    """Kill those that still run: they would wait for the others for ever."""
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):  # stuck in a driver: the kernel ends it when it can
            process.wait(30)


@contextmanager
def passed_on(processes: Sequence[Process]) -> Iterator[None]:
    """Signals that ask this process to leave reach the others too."""
    before = {number: signal.getsignal(number) for number in FORWARDED}

    def tell(number: int, frame: object) -> None:
        for process in processes:
            process.send_signal(number)
        if callable(before[number]):
            before[number](number, frame)

    for number in FORWARDED:
        signal.signal(number, tell)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
