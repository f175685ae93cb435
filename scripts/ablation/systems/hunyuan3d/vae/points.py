"""Points of a surface: an even choice among them, and an embedding of their places."""

import torch
from torch import Tensor


def farthest_points(points: Tensor, count: int) -> Tensor:
    """``points`` [B, N, 3] -> indices [B, count]: the first, then always the one farthest from all chosen so far.

    The release starts at a random point and uses a compiled package; here the start is the caller's, who orders the points.
    """
    points = points.float()
    batch, total, _ = points.shape
    chosen = torch.zeros(batch, count, dtype=torch.long, device=points.device)
    distances = torch.full((batch, total), torch.inf, device=points.device)
    for i in range(1, count):
        newest = points.gather(1, chosen[:, i - 1, None, None].expand(-1, -1, 3))  # [B, 1, 3]
        distances = torch.minimum(distances, (points - newest).square().sum(dim=-1))
        chosen[:, i] = distances.argmax(dim=1)
    return chosen


def rows(values: Tensor, indices: Tensor) -> Tensor:
    """``values`` [B, N, C], ``indices`` [B, Q] -> [B, Q, C]."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))


def embed_places(points: Tensor, frequencies: int) -> Tensor:
    """``points`` [..., 3] -> [..., 3 + 6 * frequencies]: places, sines, cosines; octaves 1, 2, 4 ... without a factor of pi."""
    octaves = 2.0 ** torch.arange(frequencies, dtype=torch.float32, device=points.device)
    angles = (points.float()[..., None] * octaves).flatten(-2)  # x at all octaves, then y, then z
    return torch.cat([points.float(), angles.sin(), angles.cos()], dim=-1)


def embedding_size(frequencies: int) -> int:
    """Numbers that :func:`embed_places` gives a point."""
    return 3 + 6 * frequencies
