"""The square that is cut from the middle of a picture, and where its boxes lie in it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablation.systems.kolors.data.boxes import SCALE, Box

LEFT_OVER = 0.5
"""A box of which less than this share of its area is in the square is dropped; a choice of our own."""


class Crop(NamedTuple):
    """A picture made ``width`` by ``height``, of which the square from ``left``, ``top`` on is taken; in pixels."""

    width: int
    height: int
    left: int
    top: int
    size: int


def crop_of(width: int, height: int, size: int) -> Crop:
    """The largest square in the middle of a picture, made ``size`` pixels a side."""
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    return Crop(width, height, (width - size) // 2, (height - size) // 2, size)


def cropped(image: Image.Image, size: int) -> Image.Image:
    """That square of ``image``."""
    crop = crop_of(*image.size, size)
    resized = image.resize((crop.width, crop.height), Image.Resampling.LANCZOS)
    return resized.crop((crop.left, crop.top, crop.left + size, crop.top + size))


def boxes_in(crop: Crop, boxes: tuple[Box, ...]) -> tuple[list[int], NDArray[np.float32]]:
    """Which of ``boxes`` are in the square, and their corners [N, 4] in shares of it, cut at its border.

    Raises ValueError where a box is not normalised: a last look, before cutting at the border would hide it.
    """
    corners = np.array([box.bbox for box in boxes], np.float64).reshape(-1, 4) / SCALE
    check_boxes(corners)
    corners = (corners * ([crop.width, crop.height] * 2) - ([crop.left, crop.top] * 2)) / crop.size
    inside = corners.clip(0, 1)
    kept = np.flatnonzero(_areas(inside) >= LEFT_OVER * _areas(corners))
    return kept.tolist(), inside[kept].astype(np.float32)


def check_boxes(corners: NDArray[np.floating]) -> None:
    """Boxes [N, 4] have left < right and top < bottom within 0..1, or ValueError: thousandths or pixels end here."""
    proper = (corners >= 0).all() and (corners <= 1).all() and (corners[:, :2] < corners[:, 2:]).all()
    if not proper:
        raise ValueError(f"boxes are shares of the picture, left < right and top < bottom, within 0..1; not {corners.tolist()}")


def _areas(corners: NDArray[np.floating]) -> NDArray[np.floating]:
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
