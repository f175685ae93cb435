"""How fast runs are against each other: as probes measured it on the card, else estimated from the operations they execute."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ablation.hardware import Card
from ablation.study import AXES
from ablation.sweep import Run

SPEED_AXES = ("strategy", "rank", "precision", "batch")
STEP_SECONDS = ("step_median_s", "time.step_median_s", "step_s")  # columns of a probe, the first that there is
Key = tuple[str, ...]


@dataclass(frozen=True)
class Speed:
    """Samples a second and GPU against the fastest of the same ``group``; groups cannot be compared."""

    relative: float
    measured: bool
    group: str


class Measured:
    """Samples/s of one GPU, from a study's probe.csv, of the cells that completed on ``card``.

    ``note`` says what was not used and why.
    """

    def __init__(self, path: Path, card: Card, runs: Sequence[Run]):
        self._axes = (*SPEED_AXES, *sorted({axis for run in runs for axis in run.axes} - set(AXES)))
        self.note = ""
        self._known: dict[Key, float] = {}
        rows = _rows(path)
        others = {row.get("device") or "an unnamed device" for row in rows} - {card.name}
        if others:
            self.note = f"{path} was measured on {', '.join(sorted(others))}: not used for {card.name}"
        for row in rows:
            seconds = next((row[name] for name in STEP_SECONDS if row.get(name)), None)
            if row.get("device") == card.name and seconds and row.get("outcome") == "completed":
                self._known[self._key(row)] = float(row["batch"]) * float(row["accumulation"]) / float(seconds)

    def __call__(self, run: Run) -> float | None:
        return self._known.get(self._key(run.axes))

    def _key(self, cell: Mapping[str, Any]) -> Key:
        return tuple(_plain(cell.get(axis)) for axis in self._axes)


def speeds(runs: Sequence[Run], measured: Callable[[Run], float | None], flops: Callable[[Run], float]) -> list[Speed]:
    """The speed of each run. ``flops``: its operations a sample, asked for only where something was not measured.

    An estimate takes the operations a second of what was measured in the same precision. Without that, precisions cannot be
    compared, and each is a group of its own.
    """
    known = [measured(run) for run in runs]
    rates: dict[str, list[float]] = {}
    if not all(known):
        for run, found in zip(runs, known, strict=True):
            if found:
                rates.setdefault(run.axes["precision"], []).append(found * flops(run))
    rate = {precision: median(values) for precision, values in rates.items()}
    values = [found or rate.get(run.axes["precision"], 1.0) / flops(run) for run, found in zip(runs, known, strict=True)]
    unrated = {run.axes["precision"] for run, found in zip(runs, known, strict=True) if not found} - set(rate)
    comparable = not unrated or len({run.axes["precision"] for run in runs}) == 1
    groups = ["" if comparable else run.axes["precision"] for run in runs]
    best = {group: max(v for v, g in zip(values, groups, strict=True) if g == group) for group in groups}
    return [
        Speed(value / best[group], found is not None, group) for value, found, group in zip(values, known, groups, strict=True)
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _plain(value: Any) -> str:
    """A value of a run and the text of a table, written alike."""
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return "" if value is None else str(value)
