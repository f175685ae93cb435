"""Numbers of an evaluation: where denoising errs, whether captions and pictures find each other, what is seen in a box."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

SEEN = 16  # side of the squares that contents of boxes are compared as, in pixels


def coverage(boxes: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """How much of each cell is in each box: ``boxes`` [B, N, 4] in shares, ``mask`` [B, N] -> [B, N, height, width]."""
    across, down = (_overlap(boxes[..., axis], boxes[..., axis + 2], count) for axis, count in ((0, width), (1, height)))
    return down[..., :, None] * across[..., None, :] * mask[..., None, None]


def _overlap(start: Tensor, end: Tensor, count: int) -> Tensor:
    """Share of each of ``count`` equal parts of 0..1 that lies between ``start`` and ``end`` [...] -> [..., count]."""
    edges = torch.arange(count + 1, device=start.device) / count
    common = torch.minimum(end[..., None], edges[1:]) - torch.maximum(start[..., None], edges[:-1])
    return common.clamp(min=0) * count


def union(covered: Tensor) -> Tensor:
    """[B, N, height, width] -> [B, height, width]: in any of the boxes; exact where they do not overlap within a cell."""
    return covered.sum(1).clamp(max=1)


def recall_at_1(captions: Tensor, pictures: Tensor, same: Tensor) -> tuple[float, float]:
    """Unit vectors [N, D] of both -> the share whose nearest is theirs: captions' pictures, pictures' captions.

    ``same`` [N, N]: items that tell the same and may stand for each other, themselves included.
    """
    alike, every = captions @ pictures.T, torch.arange(len(same))
    found = same[every, alike.argmax(1)], same[alike.argmax(0), every]
    return float(found[0].float().mean()), float(found[1].float().mean())


def chance_of_recall(same: Tensor) -> float:
    """What guessing gives."""
    return float(same.float().mean())


class Judge:
    """Tells what is in a box of a picture: the label of the most alike content of a box that is known, mirrored or not."""

    def __init__(self, labels: Sequence[str], contents: Sequence[Image.Image]):
        self.labels = np.array(labels)
        self.known = np.stack([_seen(content) for content in contents])
        self.mirrored = np.stack([_seen(ImageOps.mirror(content)) for content in contents])

    def __call__(self, content: Image.Image) -> str:
        """The label of ``content``."""
        return str(self.labels[np.argmax(self._alike(_seen(content)))])

    def own_accuracy(self) -> float:
        """How often it is right about each of the known contents when it knows the others alone."""
        alike = self._alike(self.known.T)
        np.fill_diagonal(alike, -np.inf)
        return float(np.mean(self.labels[alike.argmax(0)] == self.labels))

    def _alike(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(self.known @ seen, self.mirrored @ seen)


def _seen(content: Image.Image) -> NDArray[np.float64]:
    """Colours about their common mean, of length 1: brightness and contrast tell nothing, so the product is a correlation."""
    values = np.asarray(content.convert("RGB").resize((SEEN, SEEN), Image.Resampling.BILINEAR), np.float64).ravel()
    values -= values.mean()
    return values / max(np.linalg.norm(values), np.finfo(float).tiny)


def in_box(picture: Image.Image, corners: NDArray[np.floating]) -> Image.Image:
    """The part of ``picture`` within ``corners``, left, top, right, bottom in shares of its sides; at least a pixel."""
    left, top, right, bottom = (round(float(at) * side) for at, side in zip(corners, picture.size * 2, strict=True))
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def squared_error(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Of each cell, the mean over channels [B, C, h, w] -> [B, h, w], fp32."""
    return F.mse_loss(predicted.float(), wanted.float(), reduction="none").mean(1)
