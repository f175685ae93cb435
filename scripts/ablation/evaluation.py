"""Judging a model, before or after it was trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ablation.settings import Precision
from ablation.study import FrozenWeights
from ablation.systems.base import System
from ablation.training.accelerator import make_accelerator
from ablation.training.model import for_evaluation


def evaluate(
    system: System,
    precision: Precision,
    weights: dict[str, Path],
    trained: Path | None,
    data: Sequence[Path],
    pictures: Path,
    device: torch.device,
    frozen: FrozenWeights | None = None,
) -> dict[str, Any]:
    """Metrics of the pretrained model, or of what a run in the folder ``trained`` made of it, which held weights as ``frozen``."""
    accelerator = make_accelerator(precision, device)
    model = for_evaluation(system, precision, weights, trained, device, frozen)
    model = accelerator.prepare_model(model, evaluation_mode=True)
    pictures.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        found = system.evaluate(model, data, pictures, device)
    return found._asdict()
