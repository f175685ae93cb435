"""From a picture in a file to the network's square image."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ablation.systems.opening import read_rgb

MARGIN = 1.15  # shorter side that a random crop is cut from, over the crop's


def read_picture(path: Path) -> Image.Image:
    """The picture at ``path`` in RGB. Raises Unreadable, or FileNotFoundError.

    As people saw it who told its class or caption: turned as its EXIF data says, on white where it is transparent. The released
    loaders (``ImageFolder`` in DiT's train.py, PixArt's tools/extract_features.py) do neither.
    """
    return read_rgb(path, upright=True, background="white")


def centred(picture: Image.Image, size: int) -> Tensor:
    """The middle of ``picture``, its shorter side ``size`` -> [3, size, size], uint8."""
    return _cut(_shrunk(picture, size), size, 0.5, 0.5)


def cropped(rng: np.random.Generator, picture: Image.Image, size: int) -> Tensor:
    """A random place of ``picture``, a little closer than :func:`centred`."""
    x, y = rng.random(2)
    return _cut(_shrunk(picture, round(size * MARGIN)), size, x, y)


def mirrored(image: Tensor) -> Tensor:
    """Left and right exchanged."""
    return image.flip(-1)


def _shrunk(picture: Image.Image, shorter: int) -> Image.Image:
    scale = shorter / min(picture.size)
    size = tuple(max(shorter, round(side * scale)) for side in picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


def _cut(picture: Image.Image, size: int, x: float, y: float) -> Tensor:
    left, top = (round((side - size) * place) for side, place in zip(picture.size, (x, y), strict=True))
    return torch.from_numpy(np.array(picture.crop((left, top, left + size, top + size)))).permute(2, 0, 1).contiguous()
