"""Prepared scenes on disk: one safetensors file a scene, read view by view without loading the rest."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

ARRAYS, DESCRIPTION = "scene.safetensors", "scene.json"


@dataclass
class PreparedView:
    """Arrays of one view; depths in the scene's unit (metres, or its median depth), 0 where there is none."""

    image: NDArray[np.uint8]  # [H, W, 3]
    intrinsics: NDArray[np.float32]  # [3, 3]
    extrinsics: NDArray[np.float32]  # [3, 4]
    points: NDArray[np.float32]  # [M, 3]: u, v (integer pixel centres), z of the sparse depth
    laser: NDArray[np.float32] | None  # [H, W]
    regions: NDArray[np.uint8] | None  # [H, W], labelled by hand
    seen: NDArray[np.float32] | None = None  # [N]: as it is prepared, all depths of points and laser, also out of range


@dataclass(frozen=True)
class Scene:
    """A prepared scene."""

    folder: Path

    @cached_property
    def description(self) -> dict[str, Any]:
        """Names of the views and counts."""
        return json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """The scene's name."""
        return self.description["scene"]

    @property
    def views(self) -> list[str]:
        """Names of the images, in order."""
        return self.description["views"]

    @property
    def has_laser(self) -> bool:
        """Whether any view has laser depth."""
        return self.description["laser"]

    @property
    def has_points(self) -> bool:
        """Whether any view sees a point."""
        return self.description["points_per_view"] > 0

    def read(self, index: int, dense: bool) -> PreparedView:
        """One view; with ``dense``, its ``laser`` is the densified sparse depth instead."""
        with safe_open(self.folder / ARRAYS, framework="numpy") as file:
            ends = file.get_tensor("point_ends")
            start, end = int(ends[index - 1]) if index else 0, int(ends[index])
            return PreparedView(
                image=file.get_slice("images")[index],
                intrinsics=file.get_slice("intrinsics")[index],
                extrinsics=file.get_slice("extrinsics")[index],
                points=file.get_slice("points")[start:end] if end > start else np.zeros((0, 3), np.float32),
                laser=file.get_slice("dense" if dense else "laser")[index],
                regions=file.get_slice("regions")[index],
            )
