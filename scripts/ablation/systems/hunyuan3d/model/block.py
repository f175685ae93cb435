"""A block of Hunyuan3D's transformer: self-attention, attention to the image, MLP or experts. No modulation by time."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.systems.hunyuan3d.model.attention import CrossAttention, SelfAttention
from ablation.systems.hunyuan3d.model.moe import MixtureOfExperts
from ablation.systems.hunyuan3d.settings import Architecture

EXPANSION = 4  # width of an MLP's hidden layer over the width of the tokens
LAYER_NORM_EPS = 1e-6


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, EXPANSION * dim)
        self.fc2 = nn.Linear(EXPANSION * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., C] -> [..., C]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm block. With ``skip``, it first joins its input with the output of an earlier block, as a U-Net does."""

    def __init__(self, a: Architecture, skip: bool, moe: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(a.dim, eps=LAYER_NORM_EPS)
        self.attn1 = SelfAttention(a.dim, a.heads, a.qk_norm, a.qkv_bias)
        self.norm2 = nn.LayerNorm(a.dim, eps=LAYER_NORM_EPS)
        self.attn2 = CrossAttention(a.dim, a.heads, a.condition_dim, a.qk_norm, a.qkv_bias)
        self.norm3 = nn.LayerNorm(a.dim, eps=LAYER_NORM_EPS)
        if skip:
            self.skip_norm = nn.LayerNorm(a.dim, eps=LAYER_NORM_EPS)
            self.skip_linear = nn.Linear(2 * a.dim, a.dim)
        if moe:
            self.moe = MixtureOfExperts(a.dim, EXPANSION * a.dim, a.experts, a.experts_per_token)
        else:
            self.mlp = Mlp(a.dim)
        self.last = "moe" if moe else "mlp"

    def forward(self, x: Tensor, condition: Tensor, skip: Tensor | None = None) -> Tensor:
        """``x`` and ``skip`` [B, N, C], ``condition`` [B, L, D] -> [B, N, C]."""
        if skip is not None:
            x = self.skip_norm(self.skip_linear(torch.cat([skip, x], dim=-1))).to(x.dtype)  # the norm may have left fp32
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), condition)
        return x + getattr(self, self.last)(self.norm3(x))
