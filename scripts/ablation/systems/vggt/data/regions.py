"""Planar and detail regions of a depth map.

On a plane, inverse depth is an affine function of the pixel. So the residual of an affine fit in a small window, relative to
the inverse depth itself, tells walls from window reveals, frames and edges.
"""

import numpy as np
from numpy.typing import NDArray

UNKNOWN, PLANAR, DETAIL = 0, 1, 2

WINDOW = 5  # pixels
PLANAR_RESIDUAL = 0.005  # relative rms residual below which a window counts as planar
MIN_VALID = 0.6  # share of a window that must have depth


def regions_of(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Label each pixel of ``depth`` [H, W] (metres, 0: none) as planar, detail or unknown."""
    from scipy.ndimage import uniform_filter  # only here: training reads what was made of it

    valid = depth > 0
    inverse = np.where(valid, 1 / np.where(valid, depth, 1), 0).astype(np.float64)
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]].astype(np.float64)
    basis = [np.ones_like(x), x - x.mean(), y - y.mean()]

    def mean(values: NDArray) -> NDArray:
        return uniform_filter(np.where(valid, values, 0.0), WINDOW, mode="constant")

    gram = np.stack([[mean(a * b) for b in basis] for a in basis]).transpose(2, 3, 0, 1)
    moment = np.stack([mean(a * inverse) for a in basis], axis=-1)
    enough = valid & (gram[..., 0, 0] >= MIN_VALID)
    labels = np.full(depth.shape, UNKNOWN, np.uint8)
    if not enough.any():
        return labels
    coefficients = np.linalg.solve(gram[enough] + 1e-12 * np.eye(3), moment[enough][..., None])[..., 0]
    residual = mean(inverse**2)[enough] - (coefficients * moment[enough]).sum(-1)
    count = gram[enough][:, 0, 0]
    relative = np.sqrt(np.maximum(residual, 0) / count) / (moment[enough][:, 0] / count)
    labels[enough] = np.where(relative < PLANAR_RESIDUAL, PLANAR, DETAIL)
    return labels
