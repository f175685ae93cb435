"""Depth and pose metrics.

Depth: MAE and RMSE in metres, AbsRel, and delta1, the share of pixels whose ratio to the truth is below 1.25 either way;
after one scale for the whole sequence, because VGGT predicts up to scale. Every metric is a mean over images.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ablation.systems.vggt.data.regions import DETAIL, PLANAR

DELTA = 1.25
REGIONS = {"": None, "_planar": PLANAR, "_detail": DETAIL}
THRESHOLDS = (5, 30)  # degrees
MIN_BASELINE = 1e-6  # metres; below it a direction means nothing


def align(predicted: Tensor, truth: Tensor, method: str) -> Tensor:
    """``predicted`` [S, H, W] times one scale fitted to ``truth`` (0: unknown) over the whole sequence, if any is known."""
    known = truth > 0
    if method == "none" or not known.any():
        return predicted
    p, t = predicted[known].double(), truth[known].double()
    scale = t.median() / p.median() if method == "median" else (p * t).sum() / (p * p).sum()
    return predicted * scale.to(predicted.dtype)


def constant_depth(truth: Tensor) -> Tensor:
    """The prediction of who has seen nothing, after alignment: the median of ``truth`` [S, H, W] (0: unknown) everywhere."""
    return torch.full_like(truth, truth[truth > 0].median().item())


def depth_metrics(predicted: Tensor, truth: Tensor, regions: Tensor) -> list[dict[str, float]]:
    """Metrics of each image of [S, H, W] maps, overall and by region; a region without pixels has none."""
    rows = []
    for p, t, r in zip(predicted.double(), truth.double(), regions, strict=True):
        row = {}
        for suffix, region in REGIONS.items():
            known = t > 0 if region is None else (t > 0) & (r == region)
            if known.any():
                row.update({f"depth_{name}{suffix}": value for name, value in _errors(p[known], t[known]).items()})
        rows.append(row)
    return rows


def _errors(p: Tensor, t: Tensor) -> dict[str, float]:
    error = (p - t).abs()
    ratio = torch.maximum(p / t, t / p)
    return {
        "mae": error.mean().item(),
        "absrel": (error / t).mean().item(),
        "rmse": error.square().mean().sqrt().item(),
        "delta1": ((ratio < DELTA) & (p > 0)).double().mean().item(),
    }


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the rows that have it, in order of first appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(torch.tensor([row[name] for row in rows if name in row], dtype=torch.float64).mean()) for name in names}


def pose_errors(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and translation-direction errors in degrees [pairs] of all pairs of extrinsics [S, 3, 4]."""
    first, second = torch.triu_indices(len(truth), len(truth), offset=1)
    (r_p, t_p), (r_t, t_t) = (_relative(e.double(), first, second) for e in (predicted, truth))
    cosine = ((r_p.transpose(-1, -2) @ r_t).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    rotation = torch.rad2deg(cosine.clamp(-1, 1).arccos())
    between = torch.nn.functional.cosine_similarity(t_p, t_t, dim=-1).clamp(-1, 1).arccos()
    moved = t_t.norm(dim=-1) > MIN_BASELINE
    return rotation, torch.where(moved, torch.rad2deg(between), 0)


def _relative(extrinsics: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and translation from the first camera of each pair to the second."""
    rotation = extrinsics[second, :, :3] @ extrinsics[first, :, :3].transpose(-1, -2)
    translation = extrinsics[second, :, 3] - (rotation @ extrinsics[first, :, 3, None])[..., 0]
    return rotation, translation


def pose_auc(rotation: Tensor, translation: Tensor) -> dict[str, float]:
    """Area under min(RRA, RTA) for integer thresholds of 1 to 5 and 1 to 30 degrees, in 0 .. 1."""
    out = {}
    for limit in THRESHOLDS:
        taus = torch.arange(1, limit + 1, dtype=rotation.dtype)[:, None]
        rra, rta = ((error < taus).double().mean(dim=1) for error in (rotation, translation))
        out[f"pose_auc{limit}"] = torch.minimum(rra, rta).mean().item()
    return out
