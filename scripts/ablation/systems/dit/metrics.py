"""How far a set of samples is from real images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Moments(NamedTuple):
    """Mean [D] and covariance [D, D] of features."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def moments(features: NDArray) -> Moments:
    """Of ``features`` [N, D], N at least 2."""
    features = features.astype(np.float64)
    return Moments(features.mean(axis=0), np.cov(features, rowvar=False).reshape(features.shape[1], -1))


def frechet_distance(one: Moments, other: Moments) -> float:
    """The Fréchet distance between two normal distributions (Dowson & Landau 1982), as of FID (Heusel et al. 2017).

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^1/2). It has the unit of the squared features, and grows as the samples get fewer.
    FID takes Inception's features; with others, its numbers mean something only beside each other.
    """
    root = _root(one.covariance)
    cross = np.linalg.eigvalsh(root @ other.covariance @ root)  # the eigenvalues of C1 C2, by a symmetric matrix
    spread = np.trace(one.covariance) + np.trace(other.covariance) - 2 * np.sqrt(cross.clip(0)).sum()
    return float(np.square(one.mean - other.mean).sum() + max(0.0, spread))


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The square root of a covariance."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T
