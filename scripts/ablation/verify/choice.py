"""Which runs of a study are trained again, and on what. Light: Snakemake asks when it starts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablation.errors import UserError
from ablation.explain import did_you_mean

FEW = 2  # runs, where nobody says which


def chosen(reference: Path, runs: Sequence[str], wanted: Any) -> list[str]:
    """Those of ``runs`` that are ``wanted``: an id, several with commas between them or as a list, a number, or ``all``.

    A number takes the quickest, by what the folder ``reference`` says. Raises :class:`UserError` for what was never trained.
    """
    trained = [run for run in runs if (reference / "runs" / run / "metrics.json").is_file()]
    if not trained:
        raise UserError(f"{reference}: holds no results of runs of its study, so there is nothing to verify")
    if wanted == "all":
        return trained
    if isinstance(wanted, int) or (isinstance(wanted, str) and wanted.isdecimal()):
        if int(wanted) < 1:
            raise UserError(f"runs = {wanted}: give at least one, or ids, or all")
        return sorted(trained, key=lambda run: _effort(reference / "runs" / run))[: int(wanted)]
    names = wanted.split(",") if isinstance(wanted, str) else wanted
    if not isinstance(names, list) or not names:
        raise UserError(f"runs = {wanted!r}: give a number, ids with commas between them, or all")
    for name in names:
        if name not in trained:
            raise UserError(f"runs: {reference} holds no result of a run {name!r}{did_you_mean(name, trained)}")
    return list(dict.fromkeys(names))


def device_of(reference: Path) -> str:
    """What its runs are trained again on: a CPU where they were trained on one, else what there is."""
    for path in sorted(reference.glob("runs/*/training.json")):
        return "cpu" if _read(path).get("device") == "cpu" else "auto"
    return "auto"


def _effort(folder: Path) -> tuple[bool, float]:
    """Runs that were completed first, by the seconds that they took."""
    seconds = (_read(folder / "manifest.json").get("times") or {}).get("seconds")
    done = _read(folder / "metrics.json").get("outcome") == "completed"
    return not done, seconds if isinstance(seconds, (int, float)) else float("inf")


def _read(path: Path) -> dict[str, Any]:
    """A record, or nothing where there is none: whoever compares it will say so."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
