"""Waves: made once, then samples of training and evaluation."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ablation.systems.base import Draw
from ablation.systems.newsystem.settings import Data

FILE = "waves.npy"
TONES = 3  # sines in a wave


def make_waves(count: int, length: int, out: Path) -> None:
    """Write ``count`` waves, sums of sines, as fp32 [count, length]. The same numbers each time."""
    random = np.random.default_rng(0)
    frequency, phase = random.uniform(1, 8, (count, TONES, 1)), random.uniform(0, 2 * np.pi, (count, TONES, 1))
    waves = np.sin(frequency * np.linspace(0, 2 * np.pi, length) + phase).sum(1) * np.sqrt(2 / TONES)
    np.save(out / FILE, waves.astype(np.float32))


class Waves(Dataset[dict[str, Tensor]]):
    """The waves of one split. A sample holds ``clean`` and ``noisy``, each [L]."""

    def __init__(self, folder: Path, data: Data, train: bool):
        waves = torch.from_numpy(np.load(folder / FILE, allow_pickle=False))
        kept = max(1, round(len(waves) * data.test))
        self.waves, self.noise, self.train = waves[kept:] if train else waves[:kept], data.noise, train

    def __len__(self) -> int:
        return len(self.waves)

    def groups(self) -> list[int]:
        """All samples are alike and may share a batch."""
        return [0] * len(self)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """All that is random comes from the draw, in evaluation from its index alone: so an interrupted run ends the same."""
        numbers = [draw.seed, draw.epoch, draw.index] if self.train else [draw.index]
        noise = np.random.default_rng(numbers).standard_normal(self.waves.shape[1], np.float32)
        clean = self.waves[draw.index]
        return {"clean": clean, "noisy": clean + self.noise * torch.from_numpy(noise)}
