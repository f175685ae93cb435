"""Signed distances to a mesh, exactly, in double precision: of all triangles, only those that can matter are looked at."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ablation.systems.hunyuan3d.data.pairs import pairs
from ablation.systems.hunyuan3d.mesh import Mesh

PIECE = 0.05  # of the mesh's size: larger triangles are cut, so that few are near a place
AT_ONCE = 4096  # places
ASKEW = Rotation.from_euler("xyz", [0.3, 0.5, 0.7]).as_matrix()  # so that rays meet no edges of upright or symmetric shapes
TINY = np.finfo(np.float64).tiny


def signed_distance(mesh: Mesh, points: NDArray) -> NDArray[np.float64]:
    """``points`` [N, 3] -> distances to the watertight ``mesh`` [N], positive outside."""
    distances = distance(mesh, points)
    return np.where(inside(mesh, points), -distances, distances)


def distance(mesh: Mesh, points: NDArray) -> NDArray[np.float64]:
    """``points`` [N, 3] -> distances to the nearest triangle [N].

    The triangle of the nearest centre bounds the distance; one that is nearer has its centre within that and its own radius.
    """
    corners = _pieces(_corners(mesh))
    centres = corners.mean(axis=1)
    radius = np.linalg.norm(corners - centres[:, None], axis=-1).max()
    tree, places = cKDTree(centres), np.asarray(points, dtype=np.float64)
    return np.concatenate([np.zeros(0), *(_nearest(part, corners, tree, radius) for part in _parts(places))])


def inside(mesh: Mesh, points: NDArray) -> NDArray[np.bool_]:
    """Whether the watertight ``mesh`` winds around ``points`` [N, 3]; a mesh that is inside out does as well."""
    corners, places = _corners(mesh) @ ASKEW.T, np.asarray(points, dtype=np.float64) @ ASKEW.T
    columns = _Columns(corners)
    return np.concatenate([np.zeros(0, dtype=bool), *(columns.crossings(part) != 0 for part in _parts(places))])


class _Columns:
    """Triangles sorted into square columns along z, for the rays that go up from places."""

    def __init__(self, corners: NDArray[np.float64]):
        """``corners`` [F, 3, 3]."""
        self.corners = corners
        low, high = corners[..., :2].min(axis=1), corners[..., :2].max(axis=1)
        self.side = int(np.ceil(np.sqrt(len(corners))))
        self.low = low.min(axis=0)
        self.width = np.maximum((high.max(axis=0) - self.low) / self.side, TINY)
        first, last = self._cells(low), self._cells(high)
        spans = last - first + 1
        triangles, k = pairs(np.zeros(len(corners), dtype=np.int64), spans.prod(axis=1))
        rows, along = np.divmod(k, spans[triangles, 1])
        columns = self._number(first[triangles] + np.stack([rows, along], axis=-1))
        order = np.argsort(columns, kind="stable")
        self.columns, self.triangles = columns[order], triangles[order]

    def crossings(self, places: NDArray[np.float64]) -> NDArray[np.int64]:
        """``places`` [N, 3] -> winding numbers [N]: how often a ray upwards leaves, less how often it enters."""
        own = self._number(self._cells(places[:, :2]))
        start, end = (np.searchsorted(self.columns, own, side) for side in ("left", "right"))
        place, k = pairs(start, end - start)
        corners, point = self.corners[self.triangles[k]], places[place]
        a, b, c = (corners[:, i, :2] - point[:, :2] for i in range(3))
        areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=-1)  # [P, 3]: twice, of the point with each edge
        met = (areas > 0).all(axis=1) | (areas < 0).all(axis=1)
        total = areas.sum(axis=1)
        above = (areas * (corners[..., 2] - point[:, 2:])).sum(axis=1) * np.sign(total) > 0
        signs = np.where(met & above, np.sign(total), 0)
        return np.rint(np.bincount(place, signs, minlength=len(places))).astype(np.int64)

    def _cells(self, places: NDArray) -> NDArray[np.int64]:
        """[..., 2] -> column and row; a place beside all triangles goes to a column at the rim, whose triangles it misses."""
        return np.clip((places - self.low) // self.width, 0, self.side - 1).astype(np.int64)

    def _number(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        return cells[..., 0] * self.side + cells[..., 1]


def _nearest(places: NDArray, corners: NDArray, tree: cKDTree, radius: float) -> NDArray[np.float64]:
    """``places`` [N, 3] -> distances [N] to triangles [F, 3, 3] of ``radius`` at most, whose centres are in ``tree``."""
    bounds = np.sqrt(_squared(places, corners[tree.query(places)[1]]))
    near = tree.query_ball_point(places, bounds * (1 + 1e-9) + radius)
    counts = np.fromiter(map(len, near), dtype=np.int64, count=len(near))
    triangles = np.concatenate(near).astype(np.int64)
    squared = _squared(np.repeat(places, counts, axis=0), corners[triangles])
    return np.sqrt(np.minimum.reduceat(squared, np.cumsum(counts) - counts))


def _squared(places: NDArray, corners: NDArray) -> NDArray[np.float64]:
    """Squared distances [P] of ``places`` [P, 3] to the triangles ``corners`` [P, 3, 3], one each."""
    a, b, c = np.moveaxis(corners, 1, 0)
    normals = np.cross(b - a, c - a)
    above = _dot(normals, normals) > 0
    nearest = np.full(len(places), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge, offset = end - start, places - start
        along = np.clip(_dot(offset, edge) / np.maximum(_dot(edge, edge), TINY), 0, 1)
        beside = offset - along[:, None] * edge
        nearest = np.minimum(nearest, _dot(beside, beside))
        above &= _dot(offset, np.cross(normals, edge)) >= 0  # the place is on the inner side of this edge
    heights = _dot(places - a, normals) ** 2 / np.maximum(_dot(normals, normals), TINY)
    return np.where(above, heights, nearest)


def _pieces(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """[F, 3, 3] -> the same surface in triangles [more, 3, 3] with no edge longer than ``PIECE``: the long are halved."""
    longest = PIECE * float(np.ptp(corners.reshape(-1, 3), axis=0).max())
    done = []
    while len(corners):
        edges = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=-1)  # [F, 3]: of corners 0 1, 1 2, 2 0
        small = edges.max(axis=1) <= longest
        done.append(corners[small])
        corners, edges = corners[~small], edges[~small]
        turn = (edges.argmax(axis=1)[:, None] + np.arange(3)) % 3
        a, b, c = np.moveaxis(np.take_along_axis(corners, turn[..., None], axis=1), 1, 0)  # a b is the longest
        middle = (a + b) / 2
        corners = np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])
    return np.concatenate(done)


def _corners(mesh: Mesh) -> NDArray[np.float64]:
    return np.asarray(mesh.vertices, dtype=np.float64)[mesh.faces]


def _parts(places: NDArray) -> list[NDArray]:
    return [places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE)]


def _dot(a: NDArray, b: NDArray) -> NDArray:
    return np.einsum("pi,pi->p", a, b)


def _cross(a: NDArray, b: NDArray) -> NDArray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
