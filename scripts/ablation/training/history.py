"""The record of a run, a row an optimizer step: kept on disk as it grows, cut back when a run resumes."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from ablation.files import sync, write_text
from ablation.formats import KEY, SCHEMA


class History:
    """Rows of named numbers in a CSV file that survives a crash at any row."""

    def __init__(self, path: Path, writes: bool = True):
        """What ``path`` holds. One process of many ``writes``."""
        self.path, self.writes = path, writes
        self.rows = self._read()

    def cut(self, steps: int) -> None:
        """Continue after ``steps`` optimizer steps; later rows are forgotten. A kill leaves the old rows or these."""
        del self.rows[steps:]
        self._rewrite()

    def sync(self) -> None:
        """Have all rows on disk: a checkpoint of a step is worth nothing without them."""
        if self.writes and self.rows:
            sync(self.path)

    def append(self, row: Mapping[str, float | int]) -> None:
        """Add the row of a step."""
        row = {**row, KEY: SCHEMA}
        self.rows.append(row)
        if len(self.rows) == 1:
            self._rewrite()
        elif self.writes:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.rows[0], extrasaction="ignore").writerow(row)

    def column(self, name: str, last: int | None = None) -> list[float]:
        """The values of one column, all or the ``last`` ones."""
        return [float(row[name]) for row in (self.rows if last is None else self.rows[-last:])]

    def _read(self) -> list[dict]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if None not in row.values() and None not in row]

    def _rewrite(self) -> None:
        if not self.writes:
            return
        text = io.StringIO(newline="")
        if self.rows:
            writer = csv.DictWriter(text, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
