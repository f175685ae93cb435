"""Every captioned picture with boxes as a training or evaluation sample."""

import logging
from collections.abc import Sequence
from enum import IntEnum
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ablation.errors import UserError
from ablation.systems.base import Draw
from ablation.systems.kolors.data.crop import boxes_in, crop_of, cropped
from ablation.systems.kolors.data.images import read_image
from ablation.systems.kolors.data.latents import Latents
from ablation.systems.kolors.data.layouts import Layout, image_root, read_layouts
from ablation.systems.kolors.data.settings import Data
from ablation.systems.kolors.data.tokens import Tokenizer

log = logging.getLogger(__name__)


class Chance(IntEnum):
    """What is random in a sample. Each has numbers of its own, so that runs that differ in one share the others."""

    LATENTS = 1
    NOISE = 2
    FEATURE_NOISE = 3
    DIFFUSION = 4


class Placed(NamedTuple):
    """Labels and corners [n, 4] of what is in the square that a sample shows, in shares of its sides."""

    labels: list[str]
    corners: NDArray[np.float32]


class LayoutDataset(Dataset[dict[str, Tensor]]):
    """Samples of the layouts of one split that have a box in the square, which is S pixels a side, S / f latent cells.

    A sample holds ``latents``, ``noise`` and ``feature_noise`` [C, S / f, S / f], the first drawn and scaled;
    ``diffusion``, a step below ``steps``; ``tokens`` and ``token_mask`` [L] of the caption, padded on the left; ``boxes``
    [N, 4] and ``box_mask`` [N], left, top, right, bottom in 0..1; ``labels`` and ``label_mask`` [N, Ll]; ``time_ids`` [6]:
    height and width of the picture, top and left of the square in the picture made smaller, height and width of the square.
    """

    def __init__(self, folders: Sequence[Path], tokenizer: Tokenizer, data: Data, steps: int, train: bool):
        listed, latents = folders
        self.root, self.latents, self.tokenizer = image_root(listed), Latents(latents), tokenizer
        self.data, self.steps, self.train = data, steps, train
        if self.latents.resolution != data.resolution:
            raise UserError(f"{latents}: made for data.resolution = {self.latents.resolution}, not {data.resolution}")
        self.layouts = _with_boxes(split(read_layouts(listed), data.test)[0 if train else 1], data.resolution)

    def __len__(self) -> int:
        return len(self.layouts)

    def groups(self) -> list[int]:
        """All samples are alike and may share a batch."""
        return [0] * len(self)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample of ``draw``; all randomness comes from its seed, epoch and index, in evaluation from its index alone."""
        draw = draw if self.train else Draw(0, 0, 0, draw.index)
        layout, shape = self.layouts[draw.index], self.latents.shape
        caption = self.tokenizer.caption(layout.caption, self.data.text_length)
        return {
            "latents": self.latents(layout.image, normal(draw, Chance.LATENTS, shape)),
            "noise": torch.from_numpy(normal(draw, Chance.NOISE, shape)),
            "feature_noise": torch.from_numpy(normal(draw, Chance.FEATURE_NOISE, shape)),
            "diffusion": torch.tensor(generator(draw, Chance.DIFFUSION).integers(self.steps)),
            "tokens": caption.tokens,
            "token_mask": caption.mask,
            **self._objects(self.placed(draw.index)),
            "time_ids": self._time_ids(layout),
        }

    def placed(self, index: int) -> Placed:
        """What is in the square of sample ``index``: the largest ``max_boxes`` in the order of the layout."""
        layout = self.layouts[index]
        kept, corners = boxes_in(crop_of(layout.width, layout.height, self.data.resolution), layout.boxes)
        sides = corners[:, 2:] - corners[:, :2]
        largest = np.sort(np.argsort(-sides.prod(axis=1), kind="stable")[: self.data.max_boxes])
        return Placed([layout.boxes[kept[number]].label for number in largest], corners[largest])

    def picture(self, index: int) -> Image.Image:
        """The square of sample ``index`` itself."""
        return cropped(read_image(self.root, self.layouts[index].image), self.data.resolution)

    def _objects(self, placed: Placed) -> dict[str, Tensor]:
        most, length, count = self.data.max_boxes, self.data.label_length, len(placed.labels)
        found = [self.tokenizer.label(label, length) for label in placed.labels]
        found += [self.tokenizer.label("", length)] * (most - count)
        return {
            "boxes": torch.from_numpy(np.pad(placed.corners, ((0, most - count), (0, 0)))),
            "box_mask": torch.arange(most) < count,
            "labels": torch.stack([label.tokens for label in found]),
            "label_mask": torch.stack([label.mask for label in found]),
        }

    def _time_ids(self, layout: Layout) -> Tensor:
        crop = crop_of(layout.width, layout.height, self.data.resolution)
        return torch.tensor([layout.height, layout.width, crop.top, crop.left, crop.size, crop.size], dtype=torch.float32)


def split(layouts: Sequence[Layout], test: float) -> tuple[list[Layout], list[Layout]]:
    """Layouts to train on, and those of the share ``test`` of the pictures, at least one; all of a picture on one side.

    Which pictures depends on the hashes of their paths alone, so their order in the file does not matter.
    """
    images = sorted({layout.image for layout in layouts}, key=lambda image: sha256(image.encode()).digest())
    if len(images) < 2:
        raise UserError("data.test: one picture cannot be split into training and evaluation; at least two are needed")
    kept = set(images[: min(len(images) - 1, max(1, round(test * len(images))))])
    return [layout for layout in layouts if layout.image not in kept], [layout for layout in layouts if layout.image in kept]


def generator(draw: Draw, chance: Chance) -> np.random.Generator:
    """The random numbers of one thing in one sample of one epoch."""
    return np.random.default_rng([draw.seed, draw.epoch, draw.index, chance])


def normal(draw: Draw, chance: Chance, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal numbers of ``shape``."""
    return generator(draw, chance).standard_normal(shape, np.float32)


def _with_boxes(layouts: list[Layout], size: int) -> list[Layout]:
    """Those that have a box in the square; the others have nothing to teach an adapter of boxes."""
    found = [layout for layout in layouts if boxes_in(crop_of(layout.width, layout.height, size), layout.boxes)[0]]
    if len(found) < len(layouts):
        log.warning(
            "%d of %d samples have no box in the middle of the picture and are left out",
            len(layouts) - len(found),
            len(layouts),
        )
    if not found:
        raise UserError("data: no sample has a box in the middle of the picture")
    return found
