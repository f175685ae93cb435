"""From a watertight mesh to the release's data of a shape."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablation.errors import UserError
from ablation.systems.hunyuan3d.data.distance import signed_distance
from ablation.systems.hunyuan3d.data.frame import HALF, VOLUME
from ablation.systems.hunyuan3d.data.layout import (
    Distances,
    SurfacePoints,
    camera_file,
    render_folder,
    watertight_file,
    write_shape,
)
from ablation.systems.hunyuan3d.data.render import TO_Z_UP, View, camera_to_world, draw_views, in_unit_box, render
from ablation.systems.hunyuan3d.data.sharp import sample_sharp_edges
from ablation.systems.hunyuan3d.mesh import Mesh, Samples, is_watertight, sample_surface, save_mesh, signed_volume

SURFACE_POINTS = 124_928  # of either kind, as released
VIEWS, VIEW_SIZE = 24, 512  # as released
NEAR = (0.005, 0.05)  # standard deviations of the places near the surface, each of about half of them


def normalised(mesh: Mesh) -> Mesh:
    """``mesh`` in the middle of [-1, 1]^3, as large as it goes."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    longest = float((high - low).max())
    if not (np.isfinite(longest) and longest > 0):
        raise UserError(f"a mesh of size {longest} cannot be scaled")
    return mesh._replace(vertices=(mesh.vertices - (low + high) / 2) * (2 * HALF / longest))


def prepare_shape(
    root: Path, uid: str, mesh: Mesh, seed: int, points: int = SURFACE_POINTS, distances: int = SURFACE_POINTS
) -> None:
    """Write surface points and distances of the watertight ``mesh``; ``points`` of each kind, ``distances`` of each region."""
    if not is_watertight(mesh):
        raise UserError(f"{uid}: the mesh is not watertight: it has no inside, and no distance to it a sign")
    mesh, rng = normalised(_outwards(mesh)), np.random.default_rng(seed)
    even, sharp = sample_surface(mesh, points, seed), sample_sharp_edges(mesh, points, rng)
    places = {
        "vol": rng.uniform(-VOLUME, VOLUME, (distances, 3)),
        "random_near": _around(even, distances, rng),
        "sharp_near": _around(sharp, distances, rng),
    }
    rounded = {region: p.astype(np.float16) for region, p in places.items()}  # distances of the places as they are stored
    known = {region: Distances(p, signed_distance(mesh, p)) for region, p in rounded.items()}
    write_shape(root, uid, SurfacePoints(*(np.concatenate(samples, axis=1) for samples in (even, sharp))), known)
    save_mesh(watertight_file(root, uid), mesh)


def render_shape(root: Path, uid: str, mesh: Mesh, seed: int, views: int = VIEWS, size: int = VIEW_SIZE) -> None:
    """Write ``views`` pictures of ``mesh``, ``size`` pixels a side, their cameras, and the mesh in the cameras' scale, y up."""
    mesh, folder, drawn = _outwards(mesh), render_folder(root, uid), draw_views(views, np.random.default_rng(seed))
    save_mesh(folder / "mesh.ply", in_unit_box(mesh))
    for number, view in enumerate(drawn):
        Image.fromarray(render(mesh, view, size)).save(folder / _picture(number))
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    scale = 1 / float((high - low).max())
    cameras = {
        "aabb": [[-0.5] * 3, [0.5] * 3],
        "scale": scale,
        "offset": (TO_Z_UP @ (low + high) * (-scale / 2)).tolist(),
        "frames": [_frame(number, view) for number, view in enumerate(drawn)],
    }
    camera_file(root, uid).write_text(json.dumps(cameras, indent=4), encoding="utf-8")


def _outwards(mesh: Mesh) -> Mesh:
    """``mesh`` turned inside out if it is."""
    return mesh._replace(faces=mesh.faces[:, ::-1]) if signed_volume(mesh) < 0 else mesh


def _frame(number: int, view: View) -> dict:
    """A camera under the release's names; ``proj_type`` 0 is perspective."""
    return {
        "file_path": _picture(number),
        "camera_angle_x": view.field,
        "proj_type": 0,
        "azimuth": view.azimuth,
        "elevation": view.elevation,
        "cam_dis": view.distance,
        "transform_matrix": camera_to_world(view).tolist(),
    }


def _picture(number: int) -> str:
    return f"{number:03d}.png"


def _around(samples: Samples, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[count, 3]: places near ``samples``; none if there are none."""
    if not len(samples.points):
        return np.zeros((0, 3))
    chosen = samples.points[rng.integers(len(samples.points), size=count)]
    return chosen + rng.choice(NEAR, (count, 1)) * rng.normal(size=(count, 3))
