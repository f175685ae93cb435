"""From a picture of a shape to what the conditioner takes: the shape on white, as large as it goes, as the release crops it."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ablation.errors import UserError
from ablation.systems.opening import Unreadable, eight_bits, opened

RIM = 5  # pixels left around the shape
PADDED = 1.15  # side of the square over the longer side of the crop
LARGEST = 4096  # pixels a side that are read


def conditioner_image(path: Path, size: int) -> Tensor:
    """The RGBA picture at ``path`` -> [3, size, size] in [-1, 1]; raises UserError if it cannot be read or shows nothing."""
    rgba = read_rgba(path)
    if not rgba[..., 3].any():
        raise UserError(f"{path}: shows nothing: its alpha channel is 0 everywhere")
    square = torch.from_numpy(padded(on_white(cropped(rgba)))).permute(2, 0, 1)[None] / 255
    return F.interpolate(square, (size, size), mode="bilinear", align_corners=False, antialias=True)[0] * 2 - 1


def read_rgba(path: Path) -> NDArray[np.uint8]:
    """[H, W, 4], as it is stored: OpenCV's ``IMREAD_UNCHANGED`` turns nothing in the release (hy3dshape/data/dit_asl.py)."""
    if not path.is_file():
        raise UserError(f"{path}: no such picture")
    try:
        with opened(path) as image:
            if not image.has_transparency_data:
                raise UserError(f"{path}: is of mode {image.mode}; it must be RGBA, and transparent where the shape is not")
            if max(image.size) > LARGEST:
                raise UserError(f"{path}: is {image.width} x {image.height} pixels large; at most {LARGEST} a side are read")
            return np.asarray(eight_bits(image, upright=False).convert("RGBA"))
    except Unreadable as error:
        raise UserError(f"{path}: cannot be read as a picture: {error}") from None


def cropped(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The part [h, w, 4] that is not transparent and ``RIM`` pixels around it; one fewer at the ends, as in the release."""
    rows, columns = (np.flatnonzero(rgba[..., 3].any(axis=axis)) for axis in (1, 0))
    return rgba[tuple(slice(max(along[0] - RIM, 0), along[-1] + RIM) for along in (rows, columns))]


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 4] -> [H, W, 3], rounded down as in the release."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w, 3] -> in the middle of a white square [S, S, 3]."""
    height, width = image.shape[:2]
    side = int(max(height, width) * PADDED)
    square = np.full((side, side, 3), 255, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square
