"""VGGT's training losses (``training/loss.py`` of the release; paper section 3.4).

Every term has static shapes: invalid pixels are masked with ``torch.where`` instead of being indexed away, so the step
needs no host synchronisation and can be traced without data. Where the release turns NaN and Inf into zero, we let them
through: the trainer's guard must see them.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ablation.systems.vggt.pose import encode_pose

LIMIT = 100.0  # largest error of one element that still counts
MIN_FRAME_PIXELS = 100  # a sequence counts for the camera when its first frame has more valid pixels
MIN_BATCH_PIXELS = 100  # fewer valid pixels in the batch give no dense loss
ROUNDED = 8  # places that a rank may be off in fp32, at some 40 million pixels
MIN_QUANTILE_PIXELS = 1000  # the quantile filter needs more than this, before and after
MIN_NORMALS = 10
STAGE_DECAY = 0.6  # weight of each earlier iteration of the camera head
FOV_WEIGHT = 0.5
CONFIDENCE_ALPHA = 0.2
NORMAL_EPS = 1e-8


def camera_loss(encodings: list[Tensor], extrinsics: Tensor, intrinsics: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """L1 on every iteration's camera encoding.

    ``encodings``: list of [B, S, 9]; ``extrinsics`` [B, S, 3, 4] normalised; ``intrinsics`` [B, S, 3, 3]; ``masks``
    [B, S, H, W] of valid depth. Returns scalars ``camera`` and its parts ``T``, ``R``, ``fov``.
    """
    height, width = masks.shape[-2:]
    target = encode_pose(extrinsics, intrinsics, height, width)
    counts = (masks[:, 0].sum(dim=(-1, -2)) > MIN_FRAME_PIXELS)[:, None, None]
    parts = {"T": 0.0, "R": 0.0, "fov": 0.0}
    for stage, encoding in enumerate(encodings):
        weight = STAGE_DECAY ** (len(encodings) - 1 - stage) / len(encodings)
        error = _bounded((encoding - target).abs())
        for name, part in zip(parts, error.split([3, 4, 2], dim=-1), strict=True):
            parts[name] = parts[name] + weight * _masked_mean(part, counts.expand_as(part))
    return {"camera": parts["T"] + parts["R"] + FOV_WEIGHT * parts["fov"], **parts}


def depth_loss(
    predicted: Tensor,
    confidence: Tensor,
    target: Tensor,
    masks: Tensor,
    quantile: float | None,
    weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """Confidence, regression and gradient loss of a depth map.

    ``predicted`` [B, S, H, W, 1]; ``confidence``, ``target``, ``masks`` [B, S, H, W]; ``quantile``: keep the errors below
    it (None keeps all); ``weight`` [B, S, H, W] multiplies each pixel's error. Returns scalars ``conf``, ``reg``, ``grad``.
    """
    return _dense_loss(predicted, confidence, target[..., None], masks, quantile, weight, _gradient_loss, scales=4)


def point_loss(
    predicted: Tensor,
    confidence: Tensor,
    target: Tensor,
    masks: Tensor,
    quantile: float | None,
    weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """As :func:`depth_loss` for world points [B, S, H, W, 3]; the gradient term compares surface normals."""
    return _dense_loss(predicted, confidence, target, masks, quantile, weight, _normal_loss, scales=3)


def value_loss(
    predicted: Tensor,
    confidence: Tensor,
    target: Tensor,
    masks: Tensor,
    quantile: float | None,
    weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """The terms ``conf`` and ``reg`` of a map [B, S, H, W, C]: everything but its shape."""
    error = _bounded(_distance(torch.where(masks[..., None], predicted - target, 0)))
    if weight is not None:
        error = error * weight
    conf = _bounded(error * confidence - CONFIDENCE_ALPHA * confidence.log())
    return {"conf": _filtered_mean(conf, masks, quantile), "reg": _filtered_mean(error, masks, quantile)}


def _dense_loss(predicted, confidence, target, masks, quantile, weight, shape_loss, scales) -> dict[str, Tensor]:
    target = _bounded(torch.where(masks[..., None], target, 0))  # the holes of a depth map may hold Inf
    flat = [x.flatten(0, 1) for x in (predicted, target, masks)]
    grad = sum(shape_loss(*(x[:, :: 2**s, :: 2**s] for x in flat)) for s in range(scales)) / scales
    terms = {**value_loss(predicted, confidence, target, masks, quantile, weight), "grad": grad}
    enough = masks.sum() >= MIN_BATCH_PIXELS
    return {name: torch.where(enough, term, 0 * term) for name, term in terms.items()}


def _distance(difference: Tensor) -> Tensor:
    """Length of ``difference`` [..., C] -> [...], with a zero (not NaN) gradient where it vanishes."""
    if difference.shape[-1] == 1:
        return difference[..., 0].abs()
    squared = difference.square().sum(-1)
    nonzero = squared > 0
    return torch.where(nonzero, torch.where(nonzero, squared, 1).sqrt(), 0)


def _bounded(x: Tensor) -> Tensor:
    """Clamp finite values to +-LIMIT; NaN and Inf stay, for the guard."""
    return torch.where(x.isfinite(), x.clamp(-LIMIT, LIMIT), x)


def _masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` where ``mask``; zero where the mask is empty."""
    return torch.where(mask, x, 0).sum() / mask.sum().clamp(min=1)


def _filtered_mean(x: Tensor, mask: Tensor, quantile: float | None) -> Tensor:
    """Mean over the mask of the values below their ``quantile`` (nearest rank), if enough of them remain.

    Only the largest are put in order: as many as it could take, so that nothing waits for the mask's count.
    """
    if quantile is None:
        return _masked_mean(x, mask)
    count, most = mask.sum(), min(x.numel(), math.ceil((1 - quantile) * x.numel()) + ROUNDED)
    largest = torch.where(mask, x.detach(), -torch.inf).flatten().topk(most).values
    rank = (quantile * (count - 1)).round().long().clamp(min=0)
    below = mask & (x.detach() < largest.gather(0, (count - 1 - rank).clamp(0, most - 1)[None]))
    keep = torch.where((count > MIN_QUANTILE_PIXELS) & (below.sum() > MIN_QUANTILE_PIXELS), below, mask)
    return _masked_mean(x, keep)


def _gradient_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """L1 between the image gradients of [N, H, W, C] maps, per valid value."""
    difference = torch.where(mask[..., None], predicted - target, 0)
    total = 0.0
    for dim in (1, 2):
        pairs = mask.narrow(dim, 1, mask.shape[dim] - 1) & mask.narrow(dim, 0, mask.shape[dim] - 1)
        step = difference.diff(dim=dim).abs()
        total = total + torch.where(pairs[..., None], _bounded(step), 0).sum()
    return total / (mask.sum() * predicted.shape[-1]).clamp(min=1)


def _normal_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """One minus the cosine between the surface normals of [N, H, W, 3] point maps."""
    ours, valid = _normals(predicted, mask)
    theirs, _ = _normals(target, mask)
    cosine = (ours * theirs).sum(-1).clamp(-1 + NORMAL_EPS, 1 - NORMAL_EPS)
    return torch.where(valid.sum() < MIN_NORMALS, 0.0, _masked_mean(1 - cosine, valid))


def _normals(points: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Four normals a pixel [4, N, H, W, 3] from the cross products of neighbouring edges, and where they are valid."""
    padded = F.pad(points.permute(0, 3, 1, 2), (1, 1, 1, 1)).permute(0, 2, 3, 1)
    known = F.pad(mask, (1, 1, 1, 1))
    around = [
        (slice(None, -2), slice(1, -1)),
        (slice(1, -1), slice(None, -2)),
        (slice(2, None), slice(1, -1)),
        (slice(1, -1), slice(2, None)),
    ]
    edges = [padded[:, y, x] - points for y, x in around]  # up, left, down, right
    there = [known[:, y, x] & mask for y, x in around]
    turns = [(i, (i + 1) % 4) for i in range(4)]
    normals = torch.stack([torch.linalg.cross(edges[i], edges[j]) for i, j in turns])
    valid = torch.stack([there[i] & there[j] for i, j in turns])
    return F.normalize(normals, dim=-1, eps=NORMAL_EPS), valid
