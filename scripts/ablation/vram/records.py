"""Records of predicted against measured memory: one JSON file a measurement, and what all of them say of the predictor.

A record: ``gpu``, ``source``, ``measures`` (``reserved`` by CUDA's allocator, or ``allocated`` on a CPU), where it is from, and
``cases``, each with ``name``, ``predicted_gib``, ``measured_gib``, ``error_percent`` and ``outcome``, and what else is known.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablation.errors import UserError

Case = dict[str, Any]
Record = dict[str, Any]
NEEDED = ("name", "predicted_gib", "measured_gib", "error_percent", "outcome")
COVERED = 0.95  # share of the predictions that the predictor's margin must cover
DIGITS = 4


@dataclass(frozen=True)
class Errors:
    """How far predictions are off, in percent of what was measured, whatever the sign."""

    count: int
    median: float
    mean: float
    p95: float
    maximum: float


def case(name: str, predicted_gib: float | None, measured_gib: float | None, outcome: str = "completed", **more: Any) -> Case:
    """One case of a record. No size: it could not be predicted, or no peak was reached because the run ended before."""
    sizes = {"predicted_gib": predicted_gib, "measured_gib": measured_gib}
    numbers = {key: None if size is None else round(size, DIGITS) for key, size in sizes.items()}
    error = None if None in sizes.values() else round(100 * (predicted_gib / measured_gib - 1), DIGITS)
    return {"name": name, **numbers, "error_percent": error, "outcome": outcome, **more}


def read_records(folder: Path) -> dict[str, Record]:
    """All records of ``folder`` by name, in the order of their names. Raises :class:`UserError` for what is none."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}


def _read(path: Path) -> Record:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        lacking = [key for found in record["cases"] for key in NEEDED if key not in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a record ({type(error).__name__}: {error})") from None
    if lacking:
        raise UserError(f"{path}: a case lacks {lacking[0]}")
    return record


def counted(record: Record) -> list[Case]:
    """The cases that tell how good predictions are: run to the end, on a device that was not made smaller than it is."""
    return [found for found in record["cases"] if found["error_percent"] is not None and not found.get("emulated")]


def errors_of(cases: Iterable[Case]) -> Errors | None:
    """The size of the errors of ``cases``; None where there are none."""
    sizes = np.abs([found["error_percent"] for found in cases])
    if not len(sizes):
        return None
    return Errors(len(sizes), *(float(f(sizes)) for f in (np.median, np.mean, lambda x: np.quantile(x, COVERED), np.max)))


def on_gpus(records: Iterable[Record]) -> list[Case]:
    """The counted cases of all records with reserved memory measured on a real GPU."""
    return [found for record in records if record["measures"] == "reserved" for found in counted(record)]


def margin(cases: Sequence[Case]) -> float:
    """The error that :data:`COVERED` of the predictions stay below, as a fraction, rounded up to 0.1 %."""
    found = errors_of(cases)
    if found is None:
        raise UserError("no record has measured reserved memory on a GPU: there is nothing to take a margin from")
    return math.ceil(round(found.p95 * 10, 6)) / 1000
