"""Pictures of a mesh, with the cameras of the release's own renders: they look at the middle of a box of side 1.

Shapes have y up, as in ``geo_data``; cameras live in Blender's world, where z is up.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablation.systems.hunyuan3d.data.pairs import pairs
from ablation.systems.hunyuan3d.mesh import Mesh

SAMPLES = 3  # a pixel's side: the cover of a pixel is known to a ninth
PAIRS = 2_000_000  # of a triangle and a sample in its bounding box, at once
RADIUS = np.sqrt(3) / 2  # of the sphere around the box: the camera sees just that
TO_Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
GREY, AMBIENT, SKY, LAMP = 0.8, 0.2, 0.3, 0.5
LAMP_DIRECTION = np.array([-0.4, 0.5, 0.77])  # over the camera's left shoulder


class View(NamedTuple):
    """Where the camera stands and how much it sees, in radians; at azimuth 0 on the x axis, at pi / 2 on Blender's y axis."""

    azimuth: float
    elevation: float
    field: float

    @property
    def distance(self) -> float:
        """From the middle of the box."""
        return float(RADIUS / np.sin(self.field / 2))


def draw_views(count: int, rng: np.random.Generator) -> list[View]:
    """``count`` views from all around, mostly from above; the release draws them from below as well."""
    azimuths = 2 * np.pi * (np.arange(count) / count + rng.random())
    elevations, fields = np.radians(rng.uniform(-5, 40, count)), np.radians(rng.uniform(25, 45, count))
    return [View(float(a % (2 * np.pi)), float(e), float(f)) for a, e, f in zip(azimuths, elevations, fields, strict=True)]


def camera_to_world(view: View) -> NDArray[np.float64]:
    """[4, 4]: from the camera's axes (x right, y up, z backwards) to Blender's world."""
    flat, up = np.cos(view.elevation), np.sin(view.elevation)
    backwards = np.array([flat * np.cos(view.azimuth), flat * np.sin(view.azimuth), up])
    right = np.array([-np.sin(view.azimuth), np.cos(view.azimuth), 0])
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(backwards, right), backwards, view.distance * backwards], axis=1)
    return matrix


def in_unit_box(mesh: Mesh) -> Mesh:
    """``mesh`` in the middle of a box whose side, 1, is that of its longest."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    return mesh._replace(vertices=(mesh.vertices - (low + high) / 2) / (high - low).max())


def render(mesh: Mesh, view: View, size: int) -> NDArray[np.uint8]:
    """RGBA [size, size, 4] of the watertight ``mesh`` as ``view`` sees it: matt grey, alpha is the cover of a pixel."""
    camera = camera_to_world(view)
    corners = ((in_unit_box(mesh).vertices @ TO_Z_UP.T - camera[:3, 3]) @ camera[:3, :3])[mesh.faces]  # [F, 3, 3]
    seen = nearest_faces(corners, view.field, size * SAMPLES)
    light = np.append(_light(corners, camera[2, :3]), 0.0)[seen]  # a sample that sees nothing has face -1, the last
    cover, sums = (_sum_of_samples(part) for part in ((seen >= 0).astype(np.float64), light))
    grey = np.rint(255 * sums / np.maximum(cover, 1))
    alpha = np.rint(255 * cover / SAMPLES**2)
    return np.stack([grey, grey, grey, alpha], axis=-1).astype(np.uint8)


def nearest_faces(corners: NDArray, field: float, size: int) -> NDArray[np.int64]:
    """``corners`` [F, 3, 3] in the camera's axes -> the triangle that each of [size, size] samples sees; -1: none."""
    depths = -corners[..., 2]
    focal = size / 2 / np.tan(field / 2)
    on_screen = corners[..., :2] * [1, -1] / depths[..., None] * focal + size / 2  # [F, 3, 2]: x to the right, y down
    low = np.clip(np.ceil(on_screen.min(axis=1) - 0.5), 0, size).astype(np.int64)  # samples are at half numbers
    spans = np.clip(np.floor(on_screen.max(axis=1) - 0.5) + 1, 0, size).astype(np.int64) - low
    counts = np.maximum(spans, 0).prod(axis=1)
    closest, faces = np.zeros(size * size), np.full(size * size, -1)
    for some in _parts(counts):
        owner, within = pairs(np.zeros_like(some), counts[some])
        pair = some[owner]  # the triangle of each pair
        x, y = low[pair, 0] + within % spans[pair, 0], low[pair, 1] + within // spans[pair, 0]
        weights = _barycentric(on_screen[pair], np.stack([x, y], axis=-1) + 0.5)
        nearness = (weights / depths[pair]).sum(axis=1)  # 1 / depth is linear on the screen
        hit = (weights >= 0).all(axis=1)  # not so if a weight is not finite
        pixel, nearness, pair = (y * size + x)[hit], nearness[hit], pair[hit]
        np.maximum.at(closest, pixel, nearness)
        front = nearness == closest[pixel]
        faces[pixel[front]] = pair[front]
    return faces.reshape(size, size)


def _parts(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices of the triangles that have pairs, in groups of about ``PAIRS`` pairs."""
    some = np.flatnonzero(counts)
    group = np.cumsum(counts[some]) // PAIRS
    return np.split(some, np.flatnonzero(np.diff(group)) + 1) if len(some) else []


def _barycentric(triangles: NDArray, points: NDArray) -> NDArray[np.float64]:
    """``triangles`` [P, 3, 2], ``points`` [P, 2] -> weights of the corners [P, 3]; not finite if there is no area."""
    a, b, c = (triangles[:, i] - points for i in range(3))
    areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return areas / areas.sum(axis=1, keepdims=True)


def _cross(a: NDArray, b: NDArray) -> NDArray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _light(corners: NDArray, up: NDArray) -> NDArray[np.float64]:
    """[F]: brightness of each triangle: from all sides, from the sky (``up`` in the camera's axes), from a lamp."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    lamp = np.maximum(normals @ (LAMP_DIRECTION / np.linalg.norm(LAMP_DIRECTION)), 0)
    return GREY * (AMBIENT + SKY * (1 + normals @ up) / 2 + LAMP * lamp)


def _sum_of_samples(values: NDArray) -> NDArray:
    """[size * SAMPLES, size * SAMPLES] -> [size, size]."""
    side = len(values) // SAMPLES
    return values.reshape(side, SAMPLES, side, SAMPLES).sum(axis=(1, 3))
