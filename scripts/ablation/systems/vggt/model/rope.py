"""Two-dimensional rotary position embedding, as VGGT's aggregator uses it.

The head dimension is cut in two halves: the first is rotated by the row, the second by the column of the token.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines of the rotation angles, each [N, head_dim]."""

    cos: Tensor
    sin: Tensor


def grid_positions(rows: int, columns: int, special: int, device: torch.device | None = None) -> Tensor:
    """Positions [special + rows * columns, 2] as (y, x): special tokens sit at (0, 0), patches start at (1, 1)."""
    y, x = torch.meshgrid(torch.arange(1, rows + 1, device=device), torch.arange(1, columns + 1, device=device), indexing="ij")
    patches = torch.stack([y, x], dim=-1).reshape(-1, 2)
    return torch.cat([patches.new_zeros(special, 2), patches])


def rotation_of(positions: Tensor, head_dim: int, base: float) -> Rotation:
    """Rotation for ``positions`` [N, 2]; frequency i of each half is ``base ** (-2 i / (head_dim / 2))``."""
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    angles = positions.float()[:, :, None] * base**-exponents  # [N, 2, half / 2]
    angles = torch.cat([angles, angles], dim=-1).flatten(1)  # [N, head_dim]: y, y, x, x
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate ``x`` [..., N, head_dim]; within each half, (x1, x2) becomes (-x2, x1)."""
    x1, x2 = x.unflatten(-1, (2, 2, -1)).unbind(-2)  # [..., N, 2, head_dim / 4]
    turned = torch.stack([-x2, x1], dim=-2).flatten(-3)
    return x * rotation.cos.to(x.dtype) + turned * rotation.sin.to(x.dtype)
