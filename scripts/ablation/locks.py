"""Locks as files. The kernel releases a lock when its holder dies, however it dies."""

import errno
import fcntl
import os
from pathlib import Path

from ablation.errors import UserError

POLL_SECONDS = 0.5
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # the last is Lustre's, mounted without flock


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock until it is closed; None where another holds it.

    Raises :class:`UserError` on a file system without locks.
    """
    return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def wait_lock(path: Path) -> int:
    """The same, once nobody else holds it: for locks that are held for moments."""
    return _lock(path, fcntl.LOCK_EX)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether a lock that was got is on the file that is at ``path`` now, not on one that was removed or replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _lock(path: Path, how: int) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)  # as open() does: the umask says who may
    if not lock_or_close(descriptor, path, how):
        return None
    os.set_inheritable(descriptor, True)  # so that it is held until the last process of a training has ended
    return descriptor


def lock_or_close(descriptor: int, path: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> bool:
    """Whether the open file or folder ``path`` is locked by ``descriptor`` now; closed where another has locked it.

    Raises :class:`UserError` on a file system without locks.
    """
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError as error:
        os.close(descriptor)
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"{path}: this file system has no file locks ({error.strerror}); mount it with them (Lustre: -o flock; NFS:"
            " version 4), or move this folder to one that has them"
        ) from None
    return True
