"""Writing files so that a reader sees the old or the new content, never half of it."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablation.formats import KEY, SCHEMA

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a full disk, a quota, a limit on the size of a file


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` atomically and durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


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


def unfinished(path: Path) -> Path:
    """The folder that :func:`replace_folder` fills before it becomes ``path``."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def replace_folder(path: Path, resume: bool = False) -> Iterator[Path]:
    """A folder to fill; it takes the place of ``path`` once it is complete and on disk.

    A fresh one, unless what an interrupted filling left is to be continued (``resume``).
    """
    temporary = unfinished(path)
    if not resume:
        shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True, exist_ok=resume)
    yield temporary
    for file in temporary.rglob("*"):
        if file.is_file():
            sync(file)
    sync(temporary)
    shutil.rmtree(path, ignore_errors=True)
    temporary.replace(path)
    sync(path.parent)


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
