"""Looking at a model in the middle of its training, without a trace in what comes after."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ablation.files import replace_folder
from ablation.systems.base import System
from ablation.training.randomness import random_state, restore_random_state
from ablation.vram.oom import is_out_of_memory, release_memory

log = logging.getLogger(__name__)


def preview(system: System, model: nn.Module, data: Sequence[Path], out: Path, device: torch.device) -> dict[str, float]:
    """The system's preview of ``model``: files in ``out``, and numbers; none where the memory does not suffice for it."""
    random, numbers = random_state(), {}
    model.eval()
    try:
        with replace_folder(out) as folder, torch.no_grad():
            numbers = system.preview(model, data, folder, device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        log.warning("no preview, out of memory: %s", str(error).partition("\n")[0])
    model.train()
    restore_random_state(random)
    release_memory(device)  # so that what the preview reserved is not taken for the training's
    return numbers
