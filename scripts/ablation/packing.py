"""Which runs share a GPU of this machine with others, and what each may take of it. Light: Snakemake asks for every run."""

import csv
import math
import os
from functools import cache
from pathlib import Path

from ablation.gpus import Share, card_mib
from ablation.hardware import Card
from ablation.sweep import Run
from ablation.vram.margin import MARGIN

SENT = "ABLATION_SENT"  # environment variable of jobs that Snakemake sends to a scheduler, which gives each GPUs of its own


def share_of(run: Run, plan: Path | None, card: Card) -> Share | None:
    """The part of a GPU that ``run`` takes by its study's ``plan``; None where it has its GPUs for itself.

    ``card`` says what a GPU has where NVML does not.
    """
    if plan is None or SENT in os.environ:
        return None
    whole = card_mib(card.usable_gib)
    part = share_mib(run, predicted_gib(plan, run.id), whole)
    return Share(part, whole) if part < whole else None


def share_mib(run: Run, predicted_gib: float | None, card_mib: int) -> int:
    """What ``run`` takes of a card that has ``card_mib``, with its CUDA context: all, or its part beside others.

    A part holds what is predicted and the margin of predictions. It is at least the card's over ``compute.pack``, so that no
    more runs are there at a time. A run in processes of its own has its cards for itself, as has one that may not fit the card
    or of which nothing is predicted (None).
    """
    pack = run.settings.compute.pack
    if pack == 1 or predicted_gib is None or not run.in_one_process:
        return card_mib
    return min(card_mib, max(math.ceil(predicted_gib * (1 + MARGIN) * 1024), card_mib // pack))


def predicted_gib(plan: Path, run: str) -> float | None:
    """The memory that a run needs by a study's plan, with the CUDA context; None where it may not fit, or is not known."""
    try:
        return _fitting(plan, plan.stat().st_mtime_ns).get(run)
    except OSError:
        return None


@cache
def _fitting(plan: Path, changed: int) -> dict[str, float]:
    with plan.open(newline="") as file:
        return {row["run"]: float(row["predicted_gib"]) for row in csv.DictReader(file) if row["verdict"] == "fits"}
