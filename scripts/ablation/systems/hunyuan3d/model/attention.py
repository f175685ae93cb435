"""The two attentions of Hunyuan3D's transformer.

The release cuts heads out of the *concatenated* projections: its weights mean nothing to an attention that cuts each
projection into heads. In self-attention, head 0 takes query, key and value from the first three ``head_dim`` channels of
[to_q, to_k, to_v], so that of 16 heads the first five live in ``to_q`` alone. Cross-attention does so with [to_k, to_v].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RMS_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Projections, RMSNorm on queries and keys, attention; what the heads are cut from is up to the subclass."""

    def __init__(self, dim: int, heads: int, source_dim: int, qk_norm: bool = True, qkv_bias: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.to_k = nn.Linear(source_dim, dim, bias=qkv_bias)
        self.to_v = nn.Linear(source_dim, dim, bias=qkv_bias)
        self.q_norm = nn.RMSNorm(dim // heads, eps=RMS_NORM_EPS) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(dim // heads, eps=RMS_NORM_EPS) if qk_norm else nn.Identity()
        self.out_proj = nn.Linear(dim, dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Heads ``q`` [B, N, H, D], ``k`` and ``v`` [B, M, H, D] -> [B, N, H * D]."""
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)  # the norms may have left fp32
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.out_proj(out.transpose(1, 2).flatten(2))


class SelfAttention(Attention):
    """Latent tokens look at each other."""

    def __init__(self, dim: int, heads: int, qk_norm: bool = True, qkv_bias: bool = False):
        super().__init__(dim, heads, dim, qk_norm, qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, C] -> [B, N, C]."""
        return self.attend(*heads_of_joined(self.heads, self.to_q(x), self.to_k(x), self.to_v(x)))


class CrossAttention(Attention):
    """Latent tokens look at the image's."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``x`` [B, N, C], ``condition`` [B, L, D] -> [B, N, C]."""
        (q,) = heads_of_joined(self.heads, self.to_q(x))
        return self.attend(q, *heads_of_joined(self.heads, self.to_k(condition), self.to_v(condition)))


def heads_of_joined(heads: int, *projections: Tensor) -> tuple[Tensor, ...]:
    """n projections [B, N, H * D] are joined, cut into H heads, and each head into n parts [B, N, H, D]."""
    return torch.cat(projections, dim=-1).unflatten(-1, (heads, -1)).chunk(len(projections), dim=-1)
