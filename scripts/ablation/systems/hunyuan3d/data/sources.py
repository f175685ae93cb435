"""Where shapes come from: the released data, checked and copied, or meshes, of which the same is made."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ablation.errors import UserError
from ablation.systems.hunyuan3d.data.cameras import read_cameras
from ablation.systems.hunyuan3d.data.frame import frame_of, has_volume, in_our_frame
from ablation.systems.hunyuan3d.data.images import conditioner_image
from ablation.systems.hunyuan3d.data.layout import (
    camera_file,
    geometry_files,
    read_distances,
    read_surface,
    render_files,
    write_shape,
)
from ablation.systems.hunyuan3d.data.prepare import prepare_shape, render_shape
from ablation.systems.hunyuan3d.mesh import load_mesh

log = logging.getLogger(__name__)

SEED = 0
FEWEST_VIEWS = 2  # one to train on and one to keep
CHECKED_SIZE = 16  # pixels; a picture that can be read at one size can be read at any


def make_from_mesh(path: Path, uid: str, how: Mapping[str, Any], out: Path) -> None:
    """The shape ``uid`` in ``out``, from the watertight mesh at ``path``; ``how``: the settings ``from_meshes``."""
    mesh = load_mesh(path)
    prepare_shape(out, uid, mesh, SEED, how["points"], how["distances"])
    render_shape(out, uid, mesh, SEED, how["views"], how["size"])


def take_released(root: Path, uid: str, out: Path) -> None:
    """Check the shape ``uid`` of the released data in ``root``, and copy what is read of it to ``out``, in our frame."""
    views = render_files(root, uid)
    if len(views) < FEWEST_VIEWS:
        raise UserError(f"{views[0].parent}: holds {len(views)} pictures, at least {FEWEST_VIEWS} are needed")
    surface, distances = geometry_files(root, uid)
    points, known = read_surface(surface), read_distances(distances)
    _check_finite(surface, [*points])
    _check_finite(distances, [values for region in known.values() for values in region])
    frame = frame_of(points, known, distances)
    for view in views:
        conditioner_image(view, CHECKED_SIZE)
    cameras = camera_file(root, uid)
    read_cameras(cameras, views)
    if not frame.is_ours:
        log.warning("%s: %s; brought into the middle of [-1, 1]^3, with distances positive outside", uid, frame)
        points, known = in_our_frame(frame, points, known)
        write_shape(out, uid, points, known)
    if not has_volume(known["vol"]):
        log.warning("%s: its distances describe a shell, or have no sign: it has no volume IoU", uid)
    for file in (*((surface, distances) if frame.is_ours else ()), cameras, *views):
        target = out / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _check_finite(path: Path, arrays: list[np.ndarray]) -> None:
    broken = sum(int((~np.isfinite(array)).sum()) for array in arrays)
    if broken:
        raise UserError(f"{path}: {broken} of its numbers are NaN or infinite; make the shape's data again")
