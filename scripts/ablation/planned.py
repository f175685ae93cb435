"""Whether a plan is that of a study as it is now: it carries the hash of all that it was made from."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablation.canonical import short_hash

COLUMN = "planned_for"


def key_of(said: Any, found: Sequence[str]) -> str:
    """A plan's key. ``said``: study, cards, claims, recommendations as plain data; ``found``: data and weights there are."""
    return " ".join([short_hash(said, 16), *sorted(short_hash(path) for path in found)])


def kept_key(plan: Path, now: str) -> str:
    """The key of the plan that is there, if it holds for ``now``; else ``now``.

    It holds if the study says the same and no missing file has appeared since. Files that were deleted since change nothing:
    finished runs must keep their verdicts.
    """
    known = _recorded(plan)
    holds = known[:1] == now.split()[:1] and set(now.split()) <= set(known)
    return " ".join(known) if holds else now


def is_current(plan: Path, now: str) -> bool:
    """Whether ``plan`` is there and holds for the key ``now``."""
    known = _recorded(plan)
    return bool(known) and kept_key(plan, now).split() == known


def verdicts_of(plan: Path) -> dict[str, str]:
    """The verdict of each run; none where there is no plan."""
    try:
        with plan.open(newline="", encoding="utf-8") as file:
            return {row["run"]: row["verdict"] for row in csv.DictReader(file)}
    except OSError:
        return {}


def _recorded(plan: Path) -> list[str]:
    try:
        with plan.open(newline="", encoding="utf-8") as file:
            return (next(csv.DictReader(file), {}).get(COLUMN) or "").split()
    except OSError:
        return []
