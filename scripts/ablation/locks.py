"""Locks as files. The kernel releases a lock when its holder dies, however it dies."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablation.errors import UserError

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # a cancelled job may take SLURM's KillWait (30 s) to go
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # the last is Lustre's, mounted without flock


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock until it is closed; None where another holds it.

    Raises :class:`UserError` on a file system without locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"{path}: this file system has no file locks ({error.strerror}); mount it with them (Lustre: -o flock; NFS:"
            " version 4), or move this folder to one that has them"
        ) from None
    return descriptor


@contextmanager
def lease_folder(folder: Path, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold a run's folder while inside, so that two jobs never train it at once.

    Waits ``patience`` seconds for a holder that is on its way out, then raises :class:`UserError`.
    """
    path = folder / "state" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= end:
            raise UserError(
                f"{folder}: another job trains this run ({path.read_text() or 'just started'}); stop it, or wait for it"
            )
        time.sleep(POLL_SECONDS)
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)
