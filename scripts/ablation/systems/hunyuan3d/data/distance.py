"""Signed distances to a mesh, exactly: every place against every triangle, in chunks, in double precision.

The work grows with places times triangles: meant for shapes of some thousand triangles.
"""

from collections.abc import Callable
from math import pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablation.systems.hunyuan3d.mesh import Mesh

AT_ONCE = 1_000_000  # pairs of a place and a triangle


def signed_distance(mesh: Mesh, points: NDArray) -> NDArray[np.float64]:
    """``points`` [N, 3] -> distances to the watertight ``mesh`` [N], positive outside."""
    distances = _in_chunks(_distances, mesh, points)
    return np.where(inside(mesh, points), -distances, distances)


def inside(mesh: Mesh, points: NDArray) -> NDArray[np.bool_]:
    """Whether the watertight ``mesh`` winds around ``points`` [N, 3]; a mesh that is inside out does as well."""
    return np.abs(_in_chunks(_winding_numbers, mesh, points)) > 0.5


def _in_chunks(function: Callable[[Tensor, Tensor], Tensor], mesh: Mesh, points: NDArray) -> NDArray[np.float64]:
    corners = torch.from_numpy(np.asarray(mesh.vertices, dtype=np.float64)[mesh.faces])
    places = torch.from_numpy(np.array(points, dtype=np.float64))
    return torch.cat([function(part, corners) for part in places.split(max(1, AT_ONCE // len(corners)))]).numpy()


def _winding_numbers(places: Tensor, corners: Tensor) -> Tensor:
    """``places`` [N, 3], ``corners`` [F, 3, 3] -> [N]: the triangles' solid angles over 4 pi (Van Oosterom, Strackee 1983)."""
    a, b, c = (corners[None, :, i] - places[:, None] for i in range(3))  # [N, F, 3]
    la, lb, lc = (v.norm(dim=-1) for v in (a, b, c))
    triple = _dot(a, torch.linalg.cross(b, c))
    below = la * lb * lc + _dot(a, b) * lc + _dot(b, c) * la + _dot(c, a) * lb
    return torch.atan2(triple, below).sum(dim=1) / (2 * pi)


def _distances(places: Tensor, corners: Tensor) -> Tensor:
    """``places`` [N, 3], ``corners`` [F, 3, 3] -> [N]: distance to the nearest triangle."""
    a, b, c = corners.unbind(dim=1)
    normals = torch.linalg.cross(b - a, c - a)  # [F, 3]
    above = torch.ones(len(places), len(corners), dtype=torch.bool) & (_dot(normals, normals) > 0)
    nearest = torch.full(above.shape, torch.inf, dtype=torch.float64)
    for start, end in ((a, b), (b, c), (c, a)):
        edge, offset = end - start, places[:, None] - start  # [F, 3], [N, F, 3]
        along = (_dot(offset, edge) / _dot(edge, edge).clamp(min=torch.finfo(torch.float64).tiny)).clamp(0, 1)
        nearest = torch.minimum(nearest, (offset - along[..., None] * edge).square().sum(dim=-1))
        above &= _dot(offset, torch.linalg.cross(normals, edge)) >= 0  # the place is on the inner side of this edge
    heights = _dot(places[:, None] - a, normals).square() / _dot(normals, normals).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(above, heights, nearest).amin(dim=1).sqrt()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1)
