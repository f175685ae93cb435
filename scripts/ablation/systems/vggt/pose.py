"""Camera encodings of VGGT: translation, quaternion, field of view.

Extrinsics are camera-from-world in OpenCV axes. The encoding is [T (3), quaternion xyzw (4), fov_h, fov_w] in scene
units and radians; it knows no principal point, so decoding puts it at the image centre.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def encode_pose(extrinsics: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Extrinsics [..., 3, 4] and intrinsics [..., 3, 3] (pixels) -> encoding [..., 9]."""
    fov_h = 2 * torch.atan(height / 2 / intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan(width / 2 / intrinsics[..., 0, 0])
    quaternion = quaternion_of(extrinsics[..., :3])
    return torch.cat([extrinsics[..., 3], quaternion, fov_h[..., None], fov_w[..., None]], dim=-1)


def decode_pose(encoding: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Encoding [..., 9] -> extrinsics [..., 3, 4] and intrinsics [..., 3, 3] (pixels)."""
    translation, quaternion, fov_h, fov_w = encoding.split([3, 4, 1, 1], dim=-1)
    extrinsics = torch.cat([rotation_of(quaternion), translation[..., None]], dim=-1)
    fx = width / 2 / torch.tan(fov_w[..., 0] / 2)
    fy = height / 2 / torch.tan(fov_h[..., 0] / 2)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = [fx, zero, one * width / 2, zero, fy, one * height / 2, zero, zero, one]
    return extrinsics, torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def rotation_of(quaternion: Tensor) -> Tensor:
    """Quaternions xyzw [..., 4], of any length but zero -> rotation matrices [..., 3, 3]."""
    x, y, z, w = quaternion.unbind(-1)
    s = 2 / quaternion.square().sum(-1)
    rows = [
        *(1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        *(s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        *(s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quaternion_of(rotation: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] -> unit quaternions xyzw [..., 4] with w >= 0.

    Each row of ``candidates`` is the quaternion times twice one of its own components; the row of the largest
    component is the well-conditioned one (Shepperd's method).
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    x_y, x_z, y_z = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    w_x, w_y, w_z = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    candidates = torch.stack(
        [
            torch.stack([1 + xx - yy - zz, x_y, x_z, w_x], dim=-1),
            torch.stack([x_y, 1 - xx + yy - zz, y_z, w_y], dim=-1),
            torch.stack([x_z, y_z, 1 - xx - yy + zz, w_z], dim=-1),
            torch.stack([w_x, w_y, w_z, 1 + xx + yy + zz], dim=-1),
        ],
        dim=-2,
    )
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    unit = F.normalize(chosen, dim=-1)
    return torch.where(unit[..., 3:] < 0, -unit, unit)
