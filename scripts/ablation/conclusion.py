"""The end of a run: what it trained is evaluated, and its whole result put in one file, ``metrics.json``."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ablation import seal
from ablation.evaluation import evaluate
from ablation.files import write_json
from ablation.hparams import write_hparams
from ablation.modelcard import write_card
from ablation.sweep import Run
from ablation.systems.base import System

log = logging.getLogger(__name__)

NOTHING = {"metrics": {}, "items": [], "notes": {}}


def conclude(
    run: Run, system: System, folder: Path, base: Path, weights: dict[str, Path], data: Sequence[Path], device: torch.device
) -> None:
    """Evaluate what ``run`` has trained in its ``folder``; write metrics before and after, memory and time, beside it the card.

    ``base``: ``metrics.json`` of the pretrained model. A run that did not complete is not evaluated, and has a result as well.
    """
    training, before = (json.loads(path.read_text()) for path in (folder / "training.json", base))
    found = NOTHING
    if training["outcome"] == "completed":
        log.info("evaluating %s", folder)
        seal.check(data)
        pictures, frozen = folder / "pictures", run.strategy.frozen_weights
        found = evaluate(system, run.axes["precision"], weights, folder, data, pictures, device, frozen)
    was = {"metrics_before": before["metrics"], "items_before": before["items"]}
    record: dict[str, Any] = {**training, "axes": run.axes, **found, **was}
    write_hparams(folder / "tensorboard", run.id, run.axes, run.settings.metrics(), record)
    write_card(run, folder, record, json.loads((folder / "manifest.json").read_text()))
    write_json(folder / "metrics.json", record)
