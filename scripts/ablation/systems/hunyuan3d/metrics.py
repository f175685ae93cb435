"""How far a shape is from the true one: distances between samples of both surfaces, and the overlap of their insides.

Distances are in the units of the points; a shape lies within [-1, 1], so that 0.01 is half a percent of the box.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ablation.errors import UserError
from ablation.systems.hunyuan3d.mesh import Samples

TAU = 0.01  # within this distance a point counts as found


class Nearest(NamedTuple):
    """For each point of one cloud, the nearest of the other: distance and index, both [N]."""

    distances: NDArray[np.float64]
    indices: NDArray[np.integer]


def nearest(points: NDArray, others: NDArray) -> Nearest:
    """``points`` [N, 3], ``others`` [M, 3]; raises UserError if there are none, or one is not finite."""
    for cloud in (points, others):
        if not len(cloud) or not np.isfinite(cloud).all():
            raise UserError(f"a cloud of {len(cloud)} points cannot be compared: it must hold points, all of them finite")
    return Nearest(*cKDTree(others).query(points))


def shape_metrics(predicted: Samples, truth: Samples, tau: float = TAU) -> dict[str, float]:
    """Chamfer distance, F-score and normal consistency of samples of two surfaces."""
    there, back = nearest(predicted.points, truth.points), nearest(truth.points, predicted.points)
    return {
        "chamfer": chamfer_distance(there, back),
        "fscore": f_score(there, back, tau),
        "normal_consistency": normal_consistency(predicted.normals, truth.normals, there, back),
    }


def chamfer_distance(there: Nearest, back: Nearest) -> float:
    """Mean of the two mean distances to the nearest point; distances, not their squares."""
    return float((there.distances.mean() + back.distances.mean()) / 2)


def f_score(there: Nearest, back: Nearest, tau: float = TAU) -> float:
    """Harmonic mean of precision, predicted points within ``tau`` of the truth, and recall, the other way; 0 .. 1."""
    precision, recall = (float((way.distances <= tau).mean()) for way in (there, back))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def normal_consistency(predicted: NDArray, truth: NDArray, there: Nearest, back: Nearest) -> float:
    """Mean |cosine| between unit normals [N, 3], [M, 3] of nearest points, both ways; 0 .. 1, blind to what is inside."""
    precise = np.abs((predicted * truth[there.indices]).sum(axis=1)).mean()
    complete = np.abs((truth * predicted[back.indices]).sum(axis=1)).mean()
    return float((precise + complete) / 2)


def volume_iou(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Shared over united volume of two occupancies at the same places, 0 .. 1; raises UserError if neither has any."""
    if predicted.shape != truth.shape:
        raise UserError(f"occupancies at different places cannot be compared: {predicted.shape} and {truth.shape}")
    united = int((predicted | truth).sum())
    if not united:
        raise UserError("neither occupancy holds a place inside: there is no volume to compare")
    return int((predicted & truth).sum()) / united
