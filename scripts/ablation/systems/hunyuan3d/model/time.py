"""The time of the flow as a token."""

import math

import torch
from torch import Tensor, nn

LONGEST_PERIOD = 10_000


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time, then two linear layers."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, t: Tensor) -> Tensor:
        """``t`` [B] in [0, 1], as it is (no factor of 1000) -> [B, C]."""
        return self.mlp(sine_cosine(t, self.dim).to(self.mlp[0].weight.dtype))


def sine_cosine(t: Tensor, channels: int) -> Tensor:
    """``t`` [B] -> [B, channels]: sines of all frequencies, then cosines."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
