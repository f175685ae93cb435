"""Reading files that others write at this very moment, perhaps on other machines: never half of one, never an error."""

import csv
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

TAIL = 16_384  # bytes at the end of a file that grows
BAR = re.compile(r"\s*\d+%\|")
ERROR = re.compile(r"(?:.*/\w+\])?(error: .*|[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*)")  # alone, or behind a progress bar
CLOCKS_DIFFER = 5.0  # seconds that another machine's clock may be ahead without being wrong


class Seen(NamedTuple):
    """A file as it was read: ``value`` (None where there is none), when it was ``modified`` by its file system's clock,
    and for how long it has been ``unchanged`` by ours, which is 0 at the first look."""

    value: Any = None
    modified: float | None = None
    unchanged: float = 0.0

    def silence(self, now: float, *recorded: Any) -> float | None:
        """Seconds since the file was written, None where there is none; ``recorded``: times that the writer put into it.

        Clocks differ: the one that says least counts, one that is ahead of ours does not, and never less than what we saw.
        """
        if self.modified is None:
            return None
        ages = [now - moment for moment in (self.modified, *map(number, recorded)) if moment is not None]
        return max(self.unchanged, min((max(age, 0.0) for age in ages if age > -CLOCKS_DIFFER), default=0.0))


ABSENT = Seen()


class Files:
    """Files read again only when they changed. What cannot be read now is as it was before."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, Callable], tuple[tuple, float, Any]] = {}

    def read(self, path: Path, parse: Callable[[Path], Any]) -> Seen:
        """The file's content as ``parse`` finds it."""
        try:
            status = path.stat()
        except OSError:
            self._known.pop((path, parse), None)
            return ABSENT
        mark = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._known.get((path, parse))
        if known is None or known[0] != mark:
            value = known[2] if known else None
            with suppress(OSError, ValueError, RecursionError, csv.Error):
                value = parse(path)
            known = self._known[path, parse] = (mark, time.monotonic(), value)
        return Seen(known[2], status.st_mtime, time.monotonic() - known[1])


def as_record(path: Path) -> dict[str, Any] | None:
    """A JSON object; None for any other JSON."""
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else None


def as_events(path: Path) -> list[dict[str, Any]]:
    """The last lines of a file of JSON objects, but for torn ones."""
    found = []
    for line in last_lines(path):
        with suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return [event for event in found if isinstance(event, dict)]


def as_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row and None not in row.values()]


def last_lines(path: Path) -> list[str]:
    """The end of a text, by lines."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        return file.read().decode("utf-8", "replace").splitlines()


def error_in(lines: Sequence[str] | None) -> str | None:
    """The error that a log ends with, or the first line of it: those that follow are indented."""
    for line in reversed(lines or ()):
        if found := ERROR.match(line):
            return words(found[1].removeprefix("error: "))
        if line.strip() and (not line.startswith("  ") or BAR.match(line)):
            return None
    return None


def names_in(folder: Path) -> frozenset[str]:
    """Names of a folder's entries; none where there is no folder."""
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except OSError:
        return frozenset()


def part(record: Any, *path: str) -> Any:
    """What a record holds at ``path``; None where it holds nothing there."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def number(value: Any) -> float | None:
    """A finite number, or None for whatever else stands there."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18  # NaN is not less
    return value if good else None


def words(value: Any) -> str:
    """Text from a file on one line, without what would steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
