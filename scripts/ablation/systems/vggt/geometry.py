"""Points of a depth map, and the frame and unit in which VGGT is trained."""

from typing import NamedTuple

import torch
from torch import Tensor

MIN_SCALE, MAX_SCALE = 1e-6, 1e6
COUNT_EPS = 1e-3  # keeps the mean finite where no point is valid


class Normalised(NamedTuple):
    """Ground truth in the first camera's frame, in units of the mean point distance."""

    extrinsics: Tensor  # [B, S, 3, 4]
    depths: Tensor  # [B, S, H, W]
    world_points: Tensor  # [B, S, H, W, 3]
    scale: Tensor  # [B], metres per unit


def unproject(depths: Tensor, intrinsics: Tensor, extrinsics: Tensor) -> Tensor:
    """Depths [..., H, W], intrinsics [..., 3, 3], extrinsics [..., 3, 4] -> world points [..., H, W, 3].

    Pixel centres have integer coordinates, as in VGGT's training code.
    """
    height, width = depths.shape[-2:]
    v, u = torch.meshgrid(
        torch.arange(height, device=depths.device, dtype=depths.dtype),
        torch.arange(width, device=depths.device, dtype=depths.dtype),
        indexing="ij",
    )
    fx, fy, cx, cy = (intrinsics[..., i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = torch.stack([(u - cx) / fx * depths, (v - cy) / fy * depths, depths], dim=-1)
    rotation, translation = extrinsics[..., :3], extrinsics[..., 3]
    return (camera - translation[..., None, None, :]) @ rotation[..., None, :, :]


def normalise(extrinsics: Tensor, depths: Tensor, world_points: Tensor, masks: Tensor) -> Normalised:
    """Move the world to the first camera and divide by the mean distance of the valid points (VGGT, section 3.4).

    ``extrinsics`` [B, S, 3, 4], ``depths`` and ``masks`` [B, S, H, W], ``world_points`` [B, S, H, W, 3].
    """
    r0, t0 = extrinsics[:, :1, :, :3], extrinsics[:, :1, :, 3]
    rotations = extrinsics[..., :3] @ r0.transpose(-1, -2)
    translations = extrinsics[..., 3] - (rotations @ t0[..., None])[..., 0]
    points = world_points @ r0[:, :, None].transpose(-1, -2) + t0[:, :, None, None]

    distances = torch.where(masks, points.norm(dim=-1), 0)
    mean = distances.sum(dim=(1, 2, 3)) / (masks.sum(dim=(1, 2, 3)) + COUNT_EPS)
    scale = mean.clamp(MIN_SCALE, MAX_SCALE)
    return Normalised(
        extrinsics=torch.cat([rotations, translations[..., None] / scale[:, None, None, None]], dim=-1),
        depths=depths / scale[:, None, None, None],
        world_points=points / scale[:, None, None, None, None],
        scale=scale,
    )
