"""From what a camera saw to the network's image: a square with borders."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def square(image: NDArray[np.uint8], size: int, background: Sequence[int]) -> Tensor:
    """``image`` [H, W, 3] in the middle of a square [3, S, S], uint8."""
    return pasted(fitted(image, size), size, background)


def empty(size: int, background: Sequence[int]) -> Tensor:
    """The image of a camera that saw nothing [3, S, S], uint8."""
    return torch.tensor(background, dtype=torch.uint8)[:, None, None].expand(3, size, size).clone()


def fitted(image: NDArray[np.uint8], size: int) -> Tensor:
    """``image`` [H, W, 3] as [3, h, w] in [0, 1], its longer side ``size``."""
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    scale = size / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    if (height, width) != image.shape[:2]:
        tensor = F.interpolate(tensor, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return tensor[0]


def pasted(image: Tensor, size: int, background: Sequence[int]) -> Tensor:
    """``image`` [3, h, w] in [0, 1] in the middle of a square [3, S, S], uint8."""
    canvas, (height, width) = empty(size, background), image.shape[1:]
    top, left = (size - height) // 2, (size - width) // 2
    canvas[:, top : top + height, left : left + width] = (image * 255).round().to(torch.uint8)
    return canvas
