"""Shapes and their pictures as training and evaluation samples."""

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ablation.systems.base import Draw
from ablation.systems.hunyuan3d.data.images import conditioner_image
from ablation.systems.hunyuan3d.data.layout import pick_points
from ablation.systems.hunyuan3d.data.shape import Shape
from ablation.systems.hunyuan3d.settings import Data, Model, Split
from ablation.systems.hunyuan3d.vae.points import farthest_points


class Chance(IntEnum):
    """What is random in a sample. Each has numbers of its own, so that runs that differ in one share the others."""

    POINTS = 1
    POSTERIOR = 2
    FLOW = 3
    TIME = 4


class ShapeDataset:
    """A sample for every picture of one split; every epoch draws the rest of it anew.

    A sample holds ``surface`` [N, 7], points of the shape with normal and sharpness, and ``chosen`` [latents], those that
    become latents; ``image`` [3, S, S] in [-1, 1]; ``posterior_noise`` and ``flow_noise`` [latents, channels], standard
    normal; ``time`` [], even in [0, 1). Nothing else in training is random.
    """

    def __init__(self, folders: Sequence[Path], data: Data, model: Model, train: bool):
        self.data, self.model = data, model
        self.shapes = [Shape(folder, data.points, data.sharp_points) for folder in folders]
        self.views = [(shape, view) for shape in self.shapes for view in views_of(shape, data, train)]

    def __len__(self) -> int:
        return len(self.views)

    def groups(self) -> list[int]:
        """All samples are alike and may share a batch."""
        return [0] * len(self)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample that ``draw`` asks for; all randomness comes from it."""
        shape, view = self.views[draw.index]
        transformer, image_size = self.model.architecture, self.model.conditioner.image_size
        tokens = (transformer.latents, transformer.channels)
        points = pick_points(shape.surface(), self.data.points, self.data.sharp_points, _random(draw, Chance.POINTS))
        surface = torch.from_numpy(points)
        return {
            "surface": surface,
            "chosen": farthest_points(surface[None, :, :3], transformer.latents)[0],
            "image": conditioner_image(view, image_size),
            "posterior_noise": torch.from_numpy(_random(draw, Chance.POSTERIOR).standard_normal(tokens, np.float32)),
            "flow_noise": torch.from_numpy(_random(draw, Chance.FLOW).standard_normal(tokens, np.float32)),
            "time": torch.tensor(_random(draw, Chance.TIME).random(dtype=np.float32)),
        }


def views_of(shape: Shape, data: Data, train: bool) -> list[Path]:
    """The pictures of ``shape`` that belong to the split: all or none of them, or its first or last ones."""
    if data.split.by == "shape":
        return shape.views if (shape.name in data.train_shapes) == train else []
    kept = held_out(len(shape.views), data.split)
    return shape.views[:-kept] if train else shape.views[-kept:]


def held_out(views: int, split: Split) -> int:
    """How many of a shape's ``views``, two or more, are kept for evaluation: at least one, and not all."""
    return min(max(1, round(views * (1 - split.train))), views - 1)


def _random(draw: Draw, chance: Chance) -> np.random.Generator:
    return np.random.default_rng([draw.seed, draw.epoch, draw.index, chance])
