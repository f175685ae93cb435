"""Scenes of ETH3D's layout made ready for training, at its size."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tqdm import tqdm

from ablation.errors import UserError
from ablation.files import usual_mode
from ablation.systems.vggt.data.densify import densify
from ablation.systems.vggt.data.depths import account
from ablation.systems.vggt.data.eth3d import View, in_units_of, read_scene
from ablation.systems.vggt.data.regions import regions_of
from ablation.systems.vggt.data.scene import ARRAYS, DESCRIPTION, PreparedView
from ablation.systems.vggt.data.view import depths_of, prepare_view

log = logging.getLogger(__name__)


def prepare_scene(root: Path, scene: str, how: dict[str, Any], out: Path) -> None:
    """Read a scene and write it at the size of ``how`` (size, fit, depth_range, dense, scale) into the folder ``out``."""
    size, depth_range = tuple(how["size"]), tuple(how["depth_range"])
    views, unit = in_own_unit(read_scene(root, scene), scene, how)
    prepared = [prepare_view(view, size, how["fit"], depth_range) for view in tqdm(views, desc=f"preparing {scene}")]
    depths = account(scene, prepared, depth_range, unit)
    out.mkdir(parents=True, exist_ok=True)
    save_file(_stacked(prepared, size, how["dense"]), out / ARRAYS)
    usual_mode(out / ARRAYS)
    counts = [len(view.points) for view in prepared]
    description = {
        "scene": scene,
        "views": [view.name for view in views],
        "laser": any(view.laser is not None for view in prepared),
        "points_per_view": round(float(np.mean(counts)), 1),
        "size": list(size),
        **depths,
    }
    (out / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def in_own_unit(views: Sequence[View], scene: str, how: Mapping[str, Any]) -> tuple[Sequence[View], str]:
    """The views in the unit of ``how["scale"]``, and its name: metres, or the median of all depths that they see."""
    if how.get("scale", "metric") == "metric":
        return views, "m"
    seen = np.concatenate([depths_of(view, tuple(how["size"]), how["fit"]) for view in views])
    if not len(seen):
        raise UserError(f"{scene}: data.scale: median needs depths; no view sees a point, and there is no laser depth")
    median = float(np.median(seen))
    log.info("%s: the median depth, %.6g as the model has it, is the unit of all lengths", scene, median)
    return [in_units_of(view, median) for view in views], "median depths"


def _stacked(views: list[PreparedView], size: tuple[int, int], dense: bool) -> dict[str, NDArray]:
    empty = np.zeros(size, np.float32)
    lasers = [empty if view.laser is None else view.laser for view in views]
    densified = [densify(view.points, *size) if dense else empty for view in views]
    arrays = {
        "images": np.stack([view.image for view in views]),
        "intrinsics": np.stack([view.intrinsics for view in views]),
        "extrinsics": np.stack([view.extrinsics for view in views]),
        "points": np.concatenate([view.points for view in views]),
        "point_ends": np.cumsum([len(view.points) for view in views]),
        "laser": np.stack(lasers),
        "regions": np.stack([_regions(view, laser) for view, laser in zip(views, lasers, strict=True)]),
    }
    if dense:
        arrays["dense"] = np.stack(densified)
    # safetensors writes the bytes as they lie, and pycolmap's matrices lie column by column.
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _regions(view: PreparedView, laser: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Labels made by hand where there are some, else from the shape of the laser depth."""
    return regions_of(laser) if view.regions is None else view.regions
