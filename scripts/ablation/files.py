"""Writing files and folders so that a reader sees the old or the new content, never half of it, whoever writes the same."""

import csv
import errno
import glob
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablation.errors import UserError
from ablation.formats import KEY, SCHEMA
from ablation.locks import is_at, try_lock, wait_lock

log = logging.getLogger(__name__)

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a full disk, a quota, a limit on the size of a file
NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
LEFT_SECONDS = 86400.0  # what is being written changes more often: older temporaries are those of killed processes


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace ``path`` by ``text`` in UTF-8, as :func:`write_bytes` does."""
    write_bytes(path, text.encode(), durable)


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace ``path`` atomically, and ``durable``: not even a power cut loses it. A file that holds just that stays."""
    if _holds(path, content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON; NaN and Inf are not JSON and are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace ``path`` by ``rows``; the columns are those of all rows, in order of first appearance, then the version."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, [*columns, KEY] if columns else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, KEY: SCHEMA} for row in rows)
    write_text(path, text.getvalue())


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A new file to fill; it takes the place of ``path``, with the mode of a new file.

    Several processes may do so at a time: each fills its own, and the last one's stays.
    """
    temporary = _beside(path)
    temporary.touch(exist_ok=False)
    new = temporary.stat()
    _remove_left(path, new.st_mtime)
    try:
        yield temporary
        if temporary.stat().st_mode != new.st_mode:  # a library has made its own
            temporary.chmod(stat.S_IMODE(new.st_mode))
        if durable:
            sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


@contextmanager
def replace_folder(path: Path, resume: bool = False) -> Iterator[Path]:
    """A new folder to fill; it takes the place of ``path`` once it is complete and on disk.

    With ``resume`` it is what an interrupted filling left, and a process that fills it already is waited for. Without, of
    several processes each fills its own, and the last one's stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    held = _lock(lock, resume)
    temporary = _beside(path) if held is None else path.with_name(f".{path.name}.tmp")
    try:
        if not resume:
            remove_folder(temporary)
        temporary.mkdir(exist_ok=resume)
        _remove_left(path, temporary.stat().st_mtime)
        yield temporary
        put_folder(temporary, path)
    except BaseException:
        if not resume:
            remove_folder(temporary)
        raise
    finally:
        if held is not None:
            lock.unlink(missing_ok=True)
            os.close(held)


def put_folder(temporary: Path, path: Path) -> None:
    """Put a complete folder in the place of ``path``, durably. Another that is put there at the same time is replaced."""
    for file in temporary.rglob("*"):
        if file.is_file():
            sync(file)
    sync(temporary)
    while True:
        old = _beside(path)
        with suppress(FileNotFoundError):
            path.rename(old)
        try:
            temporary.replace(path)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)  # what a reader holds open on NFS stays a while
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it; what others remove at the same time, or have removed, is no error."""
    while path.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def usual_mode(path: Path) -> None:
    """Give a file the mode of a new one there: libraries make theirs for the owner alone."""
    probe = _beside(path)
    probe.touch(exist_ok=False)
    path.chmod(stat.S_IMODE(probe.stat().st_mode))
    probe.unlink()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _beside(path: Path) -> Path:
    """A hidden name in the same folder that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _remove_left(path: Path, now: float) -> None:
    """Remove what killed processes have left of :func:`_beside`. ``now``: by the clock of the file system, as ages are."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*-*.tmp"):
        with suppress(OSError):  # put in place meanwhile, or another user's
            if now - max(one.lstat().st_mtime for one in (left, *left.rglob("*"))) > LEFT_SECONDS:
                remove_folder(left) if left.is_dir() else left.unlink()


def _lock(path: Path, waits: bool) -> int | None:
    """A descriptor that holds the lock ``path``, a file that its holder removes; where it ``waits``, surely.

    None where another process holds it, or where the file system has no locks.
    """
    while True:
        try:
            descriptor = try_lock(path)
        except UserError:
            if waits:
                raise
            return None
        if descriptor is None and waits:
            log.warning("waiting for the process that holds %s: it makes the same", path)
            descriptor = wait_lock(path)
        if descriptor is None or is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def sync(path: Path) -> None:
    """Have the kernel write ``path`` to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str | None:
    """The SHA-256 of a file; None where none can be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
