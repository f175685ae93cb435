"""Which images of which scenes form a sequence, for training and for evaluation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ablation.errors import UserError
from ablation.systems.vggt.data.scene import Scene
from ablation.systems.vggt.settings import Data


class Window(NamedTuple):
    """A sequence: the scene's index and the indices of its views, in order."""

    scene: int
    views: tuple[int, ...]


def windows_of(scenes: Sequence[Scene], data: Data, train: bool) -> list[Window]:
    """Sequences of ``data.frames`` images. For training they overlap; for evaluation every image stands in exactly one."""
    found = []
    for index, scene in enumerate(scenes):
        views = _views(scene, data, train)
        groups = overlapping(views, data.frames, data.overlap) if train else apart(views, data.frames)
        found += [Window(index, tuple(group)) for group in groups]
    if not found:
        what = "train on" if train else "evaluate on"
        raise UserError(f"data.split: leaves no image to {what}; change split.train ({data.split.train}) or name more scenes")
    return found


def _views(scene: Scene, data: Data, train: bool) -> list[int]:
    """The views of ``scene`` on one side of the split. Neighbouring images show the same things, so the cut is one block."""
    everything = list(range(len(scene.views)))
    if data.split.by == "scene":
        return everything if (scene.name in data.train_scenes) == train else []
    cut = round(len(everything) * data.split.train)
    return everything[:cut] if train else everything[cut:]


def overlapping(views: list[int], frames: int, overlap: float) -> list[list[int]]:
    """Windows of ``frames`` views, each repeating ``overlap`` of the last; the final one is moved back to reach the end."""
    if len(views) <= frames:
        return [views] if views else []
    stride = max(1, round(frames * (1 - overlap)))
    starts = list(range(0, len(views) - frames + 1, stride))
    if starts[-1] + frames < len(views):
        starts.append(len(views) - frames)
    return [views[start : start + frames] for start in starts]


def apart(views: list[int], frames: int) -> list[list[int]]:
    """Disjoint windows of at most ``frames`` views, as equal in length as they can be."""
    if not views:
        return []
    return [list(map(int, group)) for group in np.array_split(views, -(-len(views) // frames))]
