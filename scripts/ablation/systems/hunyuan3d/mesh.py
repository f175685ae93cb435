"""Triangle meshes: what a shape is in the end, written for others and sampled for the metrics."""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trimesh
from numpy.typing import NDArray

from ablation.errors import UserError
from ablation.outside import MIB, read_bytes

FORMS = ("ply", "obj", "stl", "off", "glb")
LARGEST = 1024 * MIB  # bytes of a file


class Mesh(NamedTuple):
    """Places [V, 3] and the indices of each triangle's corners [F, 3], counterclockwise as seen from outside."""

    vertices: NDArray[np.floating]
    faces: NDArray[np.integer]


class Samples(NamedTuple):
    """Points of a surface and their unit normals, both [N, 3]."""

    points: NDArray[np.floating]
    normals: NDArray[np.floating]


def save_glb(path: Path, mesh: Mesh) -> None:
    """Write ``mesh`` as binary glTF."""
    save_mesh(path, mesh, "glb")


def save_mesh(path: Path, mesh: Mesh, form: str | None = None) -> None:
    """Write ``mesh`` in the form that the name ends with: .obj, .ply ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _trimesh(mesh).export(path, file_type=form)


def load_mesh(path: Path) -> Mesh:
    """Read a mesh of any format that trimesh knows, all parts of it together; corners at one place become one vertex."""
    if not path.is_file():
        raise UserError(f"{path}: no mesh here")
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise UserError(f"{path}: a mesh is read from a file of these forms: {', '.join(FORMS)}")
    content = BytesIO(read_bytes(path, LARGEST))  # as one without a name it leads to no other file: textures, materials
    try:
        read = trimesh.load_mesh(content, file_type=form, skip_materials=True)
        if not len(getattr(read, "faces", ())):
            raise UserError(f"{path}: holds no triangles")
        if not np.isfinite(read.vertices).all() or not 0 <= read.faces.min() <= read.faces.max() < len(read.vertices):
            raise UserError(f"{path}: has corners that are nowhere")
        read.merge_vertices(merge_tex=True, merge_norm=True)
        return Mesh(np.asarray(read.vertices), np.asarray(read.faces))
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(f"{path}: cannot be read as a mesh ({error})") from None


def is_watertight(mesh: Mesh) -> bool:
    """Whether every edge joins exactly two triangles, so that there is an inside."""
    return bool(_trimesh(mesh).is_watertight)


def signed_volume(mesh: Mesh) -> float:
    """Volume inside a watertight mesh; negative if it is inside out."""
    a, b, c = np.moveaxis(_corners(mesh), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def sample_surface(mesh: Mesh, count: int, seed: int) -> Samples:
    """``count`` points, evenly by area, with the normals of their triangles; a pure function of its arguments."""
    corners = _corners(mesh)
    doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # [F, 3]: normals, twice the area long
    areas = np.linalg.norm(doubled, axis=1)
    total = areas.sum()
    if not (np.isfinite(total) and total > 0):
        raise UserError(f"a mesh of {len(mesh.faces)} triangles has no surface to sample: its area is {total / 2}")
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(areas), count, p=areas / total)
    points = (_barycentric(rng, count)[:, :, None] * corners[chosen]).sum(axis=1)
    return Samples(points, doubled[chosen] / areas[chosen, None])


def _barycentric(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """[count, 3]: weights of a triangle's corners, even over its area."""
    u, v = rng.random((2, count))
    root = np.sqrt(u)  # how far from the first corner: the area grows with its square
    return np.stack([1 - root, root * (1 - v), root * v], axis=1)


def _corners(mesh: Mesh) -> NDArray[np.float64]:
    """[F, 3, 3]: the places of each triangle's corners."""
    return np.asarray(mesh.vertices, dtype=np.float64)[mesh.faces]


def _trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
