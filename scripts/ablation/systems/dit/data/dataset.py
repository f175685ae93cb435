"""Cached latents as training and evaluation samples."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ablation.systems.base import Draw
from ablation.systems.dit.data.captions import NOTHING, Captions
from ablation.systems.dit.data.latents import Latents
from ablation.systems.dit.data.told import Told
from ablation.systems.dit.diffusion import STEPS
from ablation.systems.dit.settings import Data


class Chance(IntEnum):
    """What is random in a sample. Each has numbers of its own, so that runs that differ in one share the others."""

    VERSION = 1
    POSTERIOR = 2
    NOISE = 3
    STEP = 4
    NOTHING = 5
    CAPTION = 6


class LatentDataset(Dataset[dict[str, Tensor]]):
    """A sample for every image of one split; every epoch draws the rest of it anew.

    A sample holds ``latents`` [C, h, w], drawn from the image's distribution and scaled, ``noise`` of their shape and ``step``,
    the diffusion step; and what the network is told: ``label``, or the states of a caption, ``tokens`` [L, D] in fp16, and
    their ``mask`` [L]. Some training samples are told nothing: the label is ``nothing``, the caption empty.
    """

    def __init__(
        self,
        images: Sequence[tuple[int, Told]],
        latents: Latents,
        captions: Captions | None,
        data: Data,
        scale: float,
        nothing: int,
        train: bool,
    ):
        self.images, self.latents, self.captions = list(images), latents, captions
        """Each image with its number in the cache."""
        self.data, self.scale, self.nothing, self.train = data, scale, nothing, train

    def __len__(self) -> int:
        return len(self.images)

    def groups(self) -> list[int]:
        """All samples are alike and may share a batch."""
        return [0] * len(self)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample of ``draw``; all randomness comes from its seed, epoch and index, in evaluation from its index alone."""
        if not self.train:
            draw = Draw(0, 0, 0, draw.index)
        number, told = self.images[draw.index]
        version = int(generator(draw, Chance.VERSION).integers(self.data.versions)) if self.train else 0
        mean, log_variance = self.latents(number, version).chunk(2)
        drawn = mean + (log_variance / 2).exp() * _normal(draw, Chance.POSTERIOR, mean)
        hidden = self.train and generator(draw, Chance.NOTHING).random() < self.data.dropout
        return {
            "latents": drawn * self.scale,
            "noise": _normal(draw, Chance.NOISE, mean),
            "step": torch.tensor(generator(draw, Chance.STEP).integers(STEPS)),
            **(self.told_nothing() if hidden else self.told(told, draw)),
        }

    def told(self, told: Told, draw: Draw) -> dict[str, Tensor]:
        """What the network is told of an image: its class, or one of its captions, in evaluation the first."""
        if self.captions is None:
            return {"label": torch.tensor(told.label)}
        which = int(generator(draw, Chance.CAPTION).integers(len(told.captions))) if self.train else 0
        return self._caption(told.captions[which])

    def told_nothing(self) -> dict[str, Tensor]:
        """What it is told where a sample is told nothing."""
        return {"label": torch.tensor(self.nothing)} if self.captions is None else self._caption(NOTHING)

    def _caption(self, text: str) -> dict[str, Tensor]:
        tokens, mask = self.captions(text)
        return {"tokens": tokens, "mask": mask}


def generator(draw: Draw, chance: Chance) -> np.random.Generator:
    """The random numbers of one thing in one sample of one epoch."""
    return np.random.default_rng([draw.seed, draw.epoch, draw.index, chance])


def _normal(draw: Draw, chance: Chance, like: Tensor) -> Tensor:
    return torch.from_numpy(generator(draw, chance).standard_normal(tuple(like.shape), np.float32))
