"""A small ray caster: rectangles that carry photographs, seen by any camera, with exact depth.

It makes the demo's scenes and the scenes the demo's base model was pretrained on. Axes are OpenCV's (x right, y down,
z forward), lengths are metres.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SAMPLES_PER_SIDE = 2  # supersampling: this many rays a pixel in each direction
BACKGROUND = 200  # grey of what no rectangle covers
MIN_DEPTH = 1e-3  # metres; nearer surfaces are behind the lens


class Texture:
    """A photograph and its successive halvings, so that distant surfaces do not alias."""

    def __init__(self, photo: NDArray[np.uint8]):
        levels = [photo.astype(np.float32)]
        while min(levels[-1].shape[:2]) >= 4:
            last = levels[-1]
            even = last[: last.shape[0] // 2 * 2, : last.shape[1] // 2 * 2]
            levels.append((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4)
        self.levels = levels

    def sample(self, u: Array, v: Array, footprint: Array) -> Array:
        """Colours [N, 3] at ``u``, ``v`` in [0, 1]; ``footprint`` is the width of a ray in texels of the finest level."""
        level = np.clip(np.log2(np.maximum(footprint, 1)).round().astype(int), 0, len(self.levels) - 1)
        out = np.empty((u.size, 3), np.float32)
        for index in np.unique(level):
            here = level == index
            out[here] = _bilinear(self.levels[index], u[here], v[here])
        return out


@dataclass(frozen=True)
class Rectangle:
    """``corner`` and two orthogonal edges; the photograph's top left is at the corner, its columns run along ``right``."""

    corner: Array
    right: Array
    down: Array
    texture: Texture
    shade: float = 1.0


@dataclass
class World:
    """Rectangles in world coordinates."""

    rectangles: list[Rectangle] = field(default_factory=list)

    def add(self, corner, right, down, texture: Texture, shade: float = 1.0) -> None:
        """Append a rectangle given as three vectors of metres."""
        self.rectangles.append(Rectangle(*(np.asarray(x, np.float32) for x in (corner, right, down)), texture, shade))

    def add_box(self, centre, size, yaw: float, textures: list[Texture], shade: float = 1.0) -> None:
        """Append the four upright faces and the top of a box turned by ``yaw`` radians about the vertical."""
        half = np.asarray(size, np.float32) / 2
        axis_x = np.array([np.cos(yaw), 0, np.sin(yaw)], np.float32)
        axis_z = np.array([-np.sin(yaw), 0, np.cos(yaw)], np.float32)
        down = np.array([0, 2 * half[1], 0], np.float32)
        faces = [(axis_x, axis_z), (axis_z, -axis_x), (-axis_x, -axis_z), (-axis_z, axis_x)]
        for k, (a, b) in enumerate(faces):
            ha, hb = (half[0], half[2]) if k % 2 == 0 else (half[2], half[0])
            corner = centre - a * ha - b * hb - down / 2
            self.add(corner, 2 * ha * a, down, textures[k % len(textures)], shade * (0.8 + 0.1 * (k % 3)))
        top = centre - axis_x * half[0] + axis_z * half[2] - down / 2
        self.add(top, 2 * half[0] * axis_x, -2 * half[2] * axis_z, textures[-1], shade)


def pixel_grid(height: int, width: int, per_side: int = 1) -> NDArray[np.float64]:
    """COLMAP image coordinates [H * n, W * n, 2] of ``per_side`` ** 2 points in every pixel (pixel centres at +0.5)."""
    y, x = np.meshgrid(
        (np.arange(height * per_side) + 0.5) / per_side, (np.arange(width * per_side) + 0.5) / per_side, indexing="ij"
    )
    return np.stack([x, y], axis=-1)


class Film:
    """The rays of a camera, cast once and used for each of its images."""

    def __init__(self, ray_of: Callable[[NDArray[np.float64]], NDArray[np.float64]], height: int, width: int, focal: float):
        """``ray_of``: image coordinates [N, 2] -> directions (x, y) on the plane z = 1; ``focal`` in pixels."""
        self.focal = focal
        self.fine, self.coarse = (
            ray_of(grid.reshape(-1, 2)).reshape(grid.shape).astype(np.float32)
            for grid in (pixel_grid(height, width, SAMPLES_PER_SIDE), pixel_grid(height, width))
        )

    def expose(self, world: World, cam_from_world: NDArray) -> tuple[NDArray[np.uint8], Array]:
        """Image uint8 [H, W, 3] and z-depth float32 [H, W] in metres (inf where nothing is seen)."""
        s = SAMPLES_PER_SIDE
        seen = _trace(world, self.fine, cam_from_world)
        colours = _colour(world, seen, self.focal * s)
        height, width = self.coarse.shape[:2]
        image = colours.reshape(height, s, width, s, 3).mean(axis=(1, 3))
        return np.clip(image + 0.5, 0, 255).astype(np.uint8), _trace(world, self.coarse, cam_from_world).depth


class Hits(NamedTuple):
    """What each ray meets first: depth, the rectangle's index (-1: none), and where on it."""

    depth: Array
    index: NDArray[np.int32]
    place: Array


def _trace(world: World, rays: Array, cam_from_world: NDArray) -> Hits:
    """First hit along each ray [h, w, 2]."""
    pose = cam_from_world.astype(np.float32)
    hits = Hits(np.full(rays.shape[:2], np.inf, np.float32), np.full(rays.shape[:2], -1, np.int32), np.zeros_like(rays))
    columns = rays[..., 0].min(axis=0), rays[..., 0].max(axis=0)
    rows = rays[..., 1].min(axis=1), rays[..., 1].max(axis=1)
    for index, r in enumerate(world.rectangles):
        corner, right, down = pose[:, :3] @ r.corner + pose[:, 3], pose[:, :3] @ r.right, pose[:, :3] @ r.down
        window = _window(np.stack([corner, corner + right, corner + down, corner + right + down]), rows, columns)
        x, y = rays[window][..., 0], rays[window][..., 1]

        def dot(v, x=x, y=y):
            return x * v[0] + y * v[1] + v[2]

        normal = np.cross(right, down)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (normal @ corner) / dot(normal)
        right, down = right / (right @ right), down / (down @ down)
        with np.errstate(invalid="ignore"):
            a, b = dot(right) * depth - corner @ right, dot(down) * depth - corner @ down
            hit = (depth > MIN_DEPTH) & (depth < hits.depth[window]) & (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)
        hits.depth[window][hit], hits.index[window][hit] = depth[hit], index
        hits.place[window][hit] = np.stack([a[hit], b[hit]], axis=-1)
    return hits


def _window(corners: Array, rows: tuple[Array, Array], columns: tuple[Array, Array]) -> tuple[slice, slice]:
    """The block of rays that can meet a rectangle with these ``corners`` [4, 3] in the camera's frame."""
    if (corners[:, 2] < MIN_DEPTH).any():
        return slice(None), slice(None)
    low, high = (corners[:, :2] / corners[:, 2:]).min(axis=0), (corners[:, :2] / corners[:, 2:]).max(axis=0)

    def span(bounds: tuple[Array, Array], axis: int) -> slice:
        inside = np.flatnonzero((bounds[1] >= low[axis]) & (bounds[0] <= high[axis]))
        return slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0)

    return span(rows, 1), span(columns, 0)


def _colour(world: World, hits: Hits, focal: float) -> Array:
    """Colours [h, w, 3] of the hits; ``focal`` in rays per unit of the plane z = 1."""
    colours = np.full((*hits.depth.shape, 3), BACKGROUND, np.float32)
    for index in np.unique(hits.index[hits.index >= 0]):
        r, here = world.rectangles[index], hits.index == index
        texels = r.texture.levels[0].shape[1] / np.linalg.norm(r.right)
        u, v = hits.place[here].T
        colours[here] = r.shade * r.texture.sample(u, v, hits.depth[here] / focal * texels)
    return colours


def _bilinear(image: Array, u: Array, v: Array) -> Array:
    height, width = image.shape[:2]
    x, y = np.clip(u * width - 0.5, 0, width - 1), np.clip(v * height - 0.5, 0, height - 1)
    x0, y0 = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy
