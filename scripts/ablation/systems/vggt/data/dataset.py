"""Sequences of prepared views as training and evaluation samples."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ablation.errors import UserError
from ablation.prefix.cache import Cache
from ablation.systems.base import Draw
from ablation.systems.vggt.data.augment import Box, jitter, mirrored, random_box, whole
from ablation.systems.vggt.data.densify import rasterise
from ablation.systems.vggt.data.regions import DETAIL
from ablation.systems.vggt.data.scene import PreparedView, Scene
from ablation.systems.vggt.data.sequences import windows_of
from ablation.systems.vggt.settings import Augment, Data

INPUT = "images"  # what the frozen part of the network sees of a sample


class SequenceDataset:
    """Samples of one split.

    A sample holds ``images`` [S, 3, H, W] in [0, 1]; ``depths`` [S, H, W], the training target in metres (0: none), and its
    ``masks``; ``truth`` [S, H, W], the best depth there is; ``regions`` [S, H, W]; ``intrinsics`` [S, 3, 3];
    ``extrinsics`` [S, 3, 4].
    """

    def __init__(self, folders: Sequence[Path], data: Data, patch: int, train: bool, cache: Cache | None = None):
        self.cache = cache
        self.scenes = [Scene(folder) for folder in folders]
        self.data, self.train = data, train
        self.sizes = data.sizes(patch) if train else [data.resolution]
        self.windows = windows_of(self.scenes, data, train)
        if train:
            self._check_target()

    def _check_target(self) -> None:
        """There is what the study trains on."""
        laser, used = self.data.target == "laser", {window.scene: self.scenes[window.scene] for window in self.windows}.values()
        without = ", ".join(sorted(scene.name for scene in used if not (scene.has_laser if laser else scene.has_points)))
        if without and laser:
            raise UserError(
                f"data.target: laser, but {without} has no ground_truth_depth/dslr_images;"
                " unpack <scene>_dslr_depth.7z, or train on target: sparse"
            )
        if without:
            raise UserError(
                f"data.target: {self.data.target}, but the COLMAP model of {without} has no point that its views see within"
                " data.depth_range; triangulate points, or train on target: laser"
            )

    def __len__(self) -> int:
        return len(self.windows)

    def groups(self) -> list[int]:
        """For each sample, its length: only samples of one length share a batch."""
        return [len(window.views) for window in self.windows]

    def alike(self, draw: Draw) -> tuple[int, ...]:
        """Draws of which this is the same have the same images."""
        resized = len(self.sizes) > 1
        if not self.train or (self.data.augment == Augment() and not resized):
            return (draw.index,)
        return (draw.index, draw.seed, draw.epoch, *([draw.step] if resized else []))

    def names(self, index: int) -> tuple[str, list[str]]:
        """Scene and image names of a sample."""
        scene = self.scenes[self.windows[index].scene]
        return scene.name, [scene.views[view] for view in self.windows[index].views]

    def __getitems__(self, draws: Sequence[Draw]) -> list[dict[str, Tensor]]:
        """The samples of a batch; in place of their images what the frozen part of the network makes of them, if known."""
        samples = [self[draw] for draw in draws]
        return self.cache.instead_of(INPUT, samples, (draws[0].epoch, draws[0].step)) if self.cache else samples

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample that ``draw`` asks for; all randomness comes from it."""
        window = self.windows[draw.index]
        scene = self.scenes[window.scene]
        rng = np.random.default_rng([draw.seed, draw.epoch, draw.index])
        of_step = np.random.default_rng([draw.seed, draw.epoch, draw.step])
        size = self.sizes[of_step.integers(len(self.sizes))]
        frames = [self._frame(scene.read(view, self.data.target == "dense"), size, rng) for view in window.views]
        sample = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
        if self.train and rng.random() < self.data.augment.mirror:
            sample = mirrored(sample)
        tensors = {name: torch.from_numpy(value) for name, value in sample.items()}
        return {**tensors, "masks": tensors["depths"] > 0}

    def _frame(self, view: PreparedView, size: tuple[int, int], rng: np.random.Generator) -> dict[str, NDArray]:
        height, width = view.image.shape[:2]
        box = random_box(rng, self.data.augment, view.intrinsics, height, width) if self.train else whole(height, width)
        image = resize_image(view.image, box, size)
        if self.train:
            image = jitter(rng, self.data.augment, image)
        sparse = rasterise(move_points(view.points, box, size), *size)
        dense = pick(view.laser, box, size)
        return {
            "images": image,
            "depths": sparse if self.data.target == "sparse" else dense,
            "truth": dense if dense.any() else sparse,
            "regions": pick(view.regions, box, size),
            "intrinsics": move_intrinsics(view.intrinsics, box, size),
            "extrinsics": view.extrinsics,
        }


def detail_mask(regions: Tensor) -> Tensor:
    """Where ``regions`` says detail (windows)."""
    return regions == DETAIL


def scales(box: Box, size: tuple[int, int]) -> tuple[float, float]:
    """Horizontal and vertical scale from ``box`` to ``size`` (height, width)."""
    return size[1] / (box.right - box.left), size[0] / (box.bottom - box.top)


def resize_image(image: NDArray[np.uint8], box: Box, size: tuple[int, int]) -> NDArray[np.float32]:
    """``box`` of an image [H, W, 3] at ``size``, as [3, h, w] in [0, 1]; filtered when shrinking."""
    cut = torch.from_numpy(image[box.top : box.bottom, box.left : box.right]).permute(2, 0, 1)[None].float() / 255
    if cut.shape[-2:] != size:
        cut = F.interpolate(cut, size=size, mode="bilinear", antialias=True).clamp(0, 1)
    return np.ascontiguousarray(cut[0].numpy())


def pick(values: NDArray, box: Box, size: tuple[int, int]) -> NDArray:
    """``box`` of a map [H, W] at ``size``, nearest neighbour: depths must not be mixed across edges."""
    sx, sy = scales(box, size)
    rows = np.floor(box.top + (np.arange(size[0]) + 0.5) / sy).astype(int)
    columns = np.floor(box.left + (np.arange(size[1]) + 0.5) / sx).astype(int)
    return values[rows[:, None], columns[None, :]]


def move_points(points: NDArray[np.float32], box: Box, size: tuple[int, int]) -> NDArray[np.float32]:
    """Sparse points (u, v, z) [M, 3] on the grid of ``box`` at ``size``."""
    sx, sy = scales(box, size)
    u, v = (points[:, 0] + 0.5 - box.left) * sx - 0.5, (points[:, 1] + 0.5 - box.top) * sy - 0.5
    return np.stack([u, v, points[:, 2]], axis=-1)


def move_intrinsics(k: NDArray[np.float32], box: Box, size: tuple[int, int]) -> NDArray[np.float32]:
    """Intrinsics [3, 3] of ``box`` at ``size``: ``c -> (c + 0.5 - start) * s - 0.5``."""
    sx, sy = scales(box, size)
    moved = k.copy()
    moved[0, 0], moved[1, 1] = k[0, 0] * sx, k[1, 1] * sy
    moved[0, 2], moved[1, 2] = (k[0, 2] + 0.5 - box.left) * sx - 0.5, (k[1, 2] + 0.5 - box.top) * sy - 0.5
    return moved
