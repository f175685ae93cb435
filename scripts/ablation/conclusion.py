"""The end of a run: what it trained is evaluated."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ablation import seal
from ablation.evaluation import evaluate
from ablation.hparams import write_hparams
from ablation.sweep import Run
from ablation.systems.base import System

log = logging.getLogger(__name__)

NOTHING = {"metrics": {}, "items": [], "notes": {}}


def conclude(
    run: Run,
    system: System,
    training: Mapping[str, Any],
    folder: Path,
    weights: dict[str, Path],
    data: Sequence[Path],
    device: torch.device,
) -> dict[str, Any]:
    """Evaluate what ``run`` has trained in its ``folder``; returns ``metrics``, ``items`` and ``notes``.

    ``training``: what its training found. A run that did not complete is not evaluated, and has a result as well.
    """
    found = NOTHING
    if training["outcome"] == "completed":
        log.info("evaluating %s", folder)
        seal.check(data)
        pictures, frozen = folder / "pictures", run.strategy.frozen_weights
        found = evaluate(system, run.axes["precision"], weights, folder, data, pictures, device, frozen)
    write_hparams(folder / "tensorboard", run.id, run.axes, run.settings.metrics(), {**training, **found})
    return found
