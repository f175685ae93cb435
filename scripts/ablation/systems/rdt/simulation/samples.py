"""What a policy sees, as the network sees the recorded steps: so that it acts on what it was trained on."""

import torch
from torch import Tensor

from ablation.systems.rdt.data.dataset import fitted, paste
from ablation.systems.rdt.data.unified import aloha_to_unified
from ablation.systems.rdt.settings import CAMERAS, Data
from ablation.systems.rdt.simulation.rollout import Observation


def sample_of(observation: Observation, data: Data, history: int) -> dict[str, Tensor]:
    """``state``, ``mask``, ``images``, ``shown`` and ``frequency`` as in :class:`StepDataset`; the text stays in words."""
    size = data.image_size
    state, mask = aloha_to_unified(observation.qpos[None])
    background = torch.tensor(data.background, dtype=torch.uint8)[:, None, None]
    images = background.expand(history, len(CAMERAS), 3, size, size).clone()
    shown = torch.zeros(history, len(CAMERAS), dtype=torch.bool)
    for age, seen in enumerate(observation.images, start=history - len(observation.images)):
        for number, camera in enumerate(CAMERAS):
            if camera in data.cameras and camera in seen:
                paste(images[age, number], fitted(seen[camera], size))
                shown[age, number] = True
    return {
        "state": torch.from_numpy(state),
        "mask": torch.from_numpy(mask[None]),
        "images": images,
        "shown": shown,
        "frequency": torch.tensor(observation.frequency),
    }
