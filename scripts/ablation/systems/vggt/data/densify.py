"""Depth maps from sparse points: as they are, or dense by interpolation of inverse depth over a triangulation of the image."""

import numpy as np
from numpy.typing import NDArray

MAX_EDGE = 0.15  # of the image's diagonal: longer triangles span what no point supports
MAX_DEPTH_RATIO = 1.25  # between the corners of a triangle: steeper ones bridge an occlusion edge


def densify(points: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Depth [H, W] in metres from points (u, v, z) [M, 3]; 0 outside the triangles that can be trusted.

    On a plane inverse depth is affine in the pixel, so a triangle on a wall is reconstructed exactly.
    """
    from scipy.spatial import Delaunay, QhullError  # only here: training reads what was made of it

    dense = np.zeros((height, width), np.float32)
    if len(points) < 3:
        return dense
    places, inverse = points[:, :2].astype(np.float64), 1 / points[:, 2].astype(np.float64)
    try:
        mesh = Delaunay(places)
    except QhullError:  # all points on a line
        return dense
    corners = places[mesh.simplices]  # [T, 3, 2]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(axis=1)
    inverse_corners = inverse[mesh.simplices]
    ratio = inverse_corners.max(axis=1) / inverse_corners.min(axis=1)
    trusted = (longest <= MAX_EDGE * np.hypot(height, width)) & (ratio <= MAX_DEPTH_RATIO)

    v, u = np.mgrid[:height, :width]
    pixels = np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float64)
    triangle = mesh.find_simplex(pixels)
    inside = (triangle >= 0) & trusted[triangle]
    transform = mesh.transform[triangle[inside]]
    two = np.einsum("nij,nj->ni", transform[:, :2], pixels[inside] - transform[:, 2])
    weights = np.concatenate([two, 1 - two.sum(axis=1, keepdims=True)], axis=1)
    dense.reshape(-1)[inside] = 1 / (weights * inverse[mesh.simplices[triangle[inside]]]).sum(axis=1)
    return dense


def rasterise(points: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Sparse depth [H, W] from (u, v, z) [M, 3]; the nearest point of a pixel wins, 0 where there is none."""
    depth = np.zeros((height, width), np.float32)
    u, v = np.rint(points[:, 0]).astype(int), np.rint(points[:, 1]).astype(int)
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    order = np.argsort(-points[inside, 2], kind="stable")  # far to near: what is painted last stays
    depth[v[inside][order], u[inside][order]] = points[inside, 2][order]
    return depth
