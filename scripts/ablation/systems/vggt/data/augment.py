"""Random changes of a training view: crop, stretch and colour of each image, mirror of a whole sequence.

Crops stay centred on the principal point, because VGGT's camera encoding has no other place for it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablation.systems.vggt.settings import Augment

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Box(NamedTuple):
    """A crop: first and one past the last column and row."""

    left: int
    top: int
    right: int
    bottom: int


def whole(height: int, width: int) -> Box:
    """No crop."""
    return Box(0, 0, width, height)


def random_box(rng: np.random.Generator, augment: Augment, intrinsics: NDArray[np.float32], height: int, width: int) -> Box:
    """A box around the principal point that keeps at least ``augment.crop`` of the sides, stretched by up to ``aspect``."""
    zoom, stretch = rng.uniform(augment.crop, 1), rng.uniform(-augment.aspect, augment.aspect)
    share_w, share_h = zoom * min(1, 1 + stretch), zoom * min(1, 1 - stretch)
    cx, cy = intrinsics[0, 2] + 0.5, intrinsics[1, 2] + 0.5
    half_w, half_h = min(cx, width - cx) * share_w, min(cy, height - cy) * share_h
    left, top = max(0, round(cx - half_w)), max(0, round(cy - half_h))
    return Box(left, top, max(left + 1, min(width, round(cx + half_w))), max(top + 1, min(height, round(cy + half_h))))


def jitter(rng: np.random.Generator, augment: Augment, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brightness, contrast, saturation and greying of ``image`` [3, H, W] in [0, 1]."""
    brightness, contrast, saturation = rng.uniform(1 - augment.jitter, 1 + augment.jitter, 3).astype(np.float32)
    grey = np.tensordot(LUMA, image, axes=1)[None]
    saturation = np.float32(0) if rng.random() < augment.grey else saturation
    image = grey + saturation * (image - grey)
    mean = image.mean(dtype=np.float32)
    return np.clip((mean + contrast * (image - mean)) * brightness, 0, 1)


def mirrored(sample: dict[str, NDArray]) -> dict[str, NDArray]:
    """The sequence as seen in a mirror: x is negated in image, camera and world."""
    flip = np.diag([-1, 1, 1]).astype(np.float32)
    intrinsics, extrinsics = sample["intrinsics"].copy(), sample["extrinsics"].copy()
    intrinsics[:, 0, 2] = sample["depths"].shape[-1] - 1 - intrinsics[:, 0, 2]
    extrinsics[:, :, :3] = flip @ extrinsics[:, :, :3] @ flip
    extrinsics[:, :, 3] = extrinsics[:, :, 3] @ flip
    maps = {name: np.ascontiguousarray(sample[name][..., ::-1]) for name in ("images", "depths", "truth", "regions")}
    return {**sample, **maps, "intrinsics": intrinsics, "extrinsics": extrinsics}
