"""A lease on a run's folder: one job trains a run at a time, and another that wants it waits until that one has ended.

The lease is a locked file, so the kernel ends it with its holder, however it dies, and it outlives Snakemake. The file says who
holds it and when that last gave a sign of life: where the lock stays though its holder hangs, it is taken over.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablation import leave
from ablation.errors import UserError
from ablation.locks import POLL_SECONDS, is_at, try_lock

BEAT_SECONDS = 10.0
STALE_SECONDS = 300.0  # by the clock of the job that waits, since clocks of machines differ
FILE = "lease.json"
LENGTH = 200  # bytes
HELD = "ABLATION_LEASE"  # environment variable of all processes of the holder: which file it locked


@contextmanager
def hold(folder: Path, say=lambda text: None) -> Iterator[None]:
    """Hold the lease on ``folder`` while inside. ``say`` is told once for whom it waits.

    Raises :class:`ablation.leave.Left` when asked to leave while it waits, :class:`UserError` on a file system without locks.
    """
    with _holding(_wait(_file(folder), say)):
        yield


@contextmanager
def hold_if_free(folder: Path) -> Iterator[bool]:
    """Hold the lease on ``folder`` while inside if nobody else does; whether that is so."""
    path = _file(folder)
    descriptor = try_lock(path)
    if descriptor is None:
        yield False
    elif not is_at(descriptor, path):  # taken over just now
        os.close(descriptor)
        yield False
    else:
        with _holding(descriptor):
            yield True


def _file(folder: Path) -> Path:
    path = folder / "state" / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def _holding(descriptor: int) -> Iterator[None]:
    """Give signs of life by ``descriptor``, and close it in the end."""
    outer = os.environ.get(HELD)
    os.environ[HELD] = str(os.fstat(descriptor).st_ino)
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(descriptor, done), daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        os.environ.pop(HELD)
        if outer is not None:
            os.environ[HELD] = outer
        os.close(descriptor)


def check(folder: Path) -> None:
    """Raise :class:`UserError` if another job has taken over the lease that this process, or the one that started it, holds."""
    held = mark()
    if held and held != str(_identity(folder / "state" / FILE)):
        raise UserError(f"{folder}: this job gave no sign of life for long and another has taken over its run; it ends here")


def mark() -> str:
    """What all processes of the holder call the lease, and no other holder of it does; empty without a lease."""
    return os.environ.get(HELD, "")


def holder(path: Path) -> dict[str, Any]:
    """What a lease file says: ``host``, ``process``, ``slurm_job``, ``since`` and ``beat`` (Unix seconds); {} if unreadable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _wait(path: Path, say) -> int:
    """The descriptor that holds the lock, once it is free or its holder has been silent for too long."""
    seen, since, told = None, 0.0, False
    while True:
        descriptor = try_lock(path)
        if descriptor is not None:
            if is_at(descriptor, path):
                return descriptor
            os.close(descriptor)  # a lease that was taken over just now
            continue
        leave.check()
        beat = holder(path).get("beat")
        if beat != seen:
            seen, since = beat, time.monotonic()
        elif time.monotonic() - since > STALE_SECONDS:
            say(f"{_named(path)} has been silent for {STALE_SECONDS:.0f} s: taking over")
            _replace(path, beat)
        if not told:
            say(f"waiting for the job that trains this run: {_named(path)}")
            told = True
        time.sleep(POLL_SECONDS)


def _replace(path: Path, beat: float | None) -> None:
    """Take the file from under a silent holder, unless it beat again or another job was first."""
    guard = try_lock(path.with_name(f".{FILE}.takeover"))
    if guard is not None:
        if holder(path).get("beat") == beat:
            path.unlink(missing_ok=True)
        os.close(guard)


def _identity(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _named(path: Path) -> str:
    found = holder(path)
    job = f", SLURM job {found['slurm_job']}" if found.get("slurm_job") else ""
    return f"process {found.get('process', '?')} on {found.get('host', '?')}{job}"


def _beat(descriptor: int, done: threading.Event) -> None:
    """Write the holder into its file, and again every few seconds: by the descriptor, so never into a successor's."""
    who = {"host": socket.gethostname(), "process": os.getpid(), "slurm_job": os.environ.get("SLURM_JOB_ID")}
    since = time.time()
    while True:
        text = json.dumps({**who, "since": round(since, 3), "beat": round(time.time(), 3)}).ljust(LENGTH).encode()
        with suppress(OSError):  # a full disk must not end the signs of life
            os.pwrite(descriptor, text, 0)  # in one piece, over what is there: nobody reads half, nor nothing
            os.ftruncate(descriptor, len(text))
        if done.wait(BEAT_SECONDS):
            return
