"""Transformer parts of RDT. Parameter names follow the released checkpoint (``attn.qkv``, ``cross_attn.kv``, ``ffn.fc1``)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RmsNorm(nn.Module):
    """Division by the standard deviation, NOT by the root mean square that the name promises.

    The weights were trained with timm 1.0.3, whose RmsNorm takes ``torch.var``: unbiased and about the mean (the mean itself
    stays in). Later versions of timm and ``nn.RMSNorm`` take the mean square, and give other actions.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., C] -> [..., C]."""
        variance = x.var(dim=-1, keepdim=True)
        return x * torch.rsqrt(variance + self.eps).to(x.dtype) * self.weight  # autocast takes the root in fp32


class Mlp(nn.Module):
    """Two linear layers with a GELU (by tanh) between them; the hidden width is that of the tokens."""

    def __init__(self, dim: int, out: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, out)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., C] -> [..., out]."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SelfAttention(nn.Module):
    """Attention among the tokens, queries and keys normalised per head."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = RmsNorm(dim // heads)
        self.k_norm = RmsNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, C] -> [B, N, C]."""
        q, k, v = split_heads(self.qkv(x), 3, self.heads)
        return self.proj(attend(self.q_norm(q), self.k_norm(k), v, None))


class CrossAttention(nn.Module):
    """Attention of the tokens to a condition, queries and keys normalised per head."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.q_norm = RmsNorm(dim // heads)
        self.k_norm = RmsNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` [B, N, C], ``condition`` [B, L, C], ``mask`` [B, L], true where a token counts, or None -> [B, N, C]."""
        (q,) = split_heads(self.q(x), 1, self.heads)
        k, v = split_heads(self.kv(condition), 2, self.heads)
        return self.proj(attend(self.q_norm(q), self.k_norm(k), v, None if mask is None else mask[:, None, None, :]))


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """``x`` [B, N, parts * C] -> ``parts`` tensors [B, heads, N, C / heads]."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Heads [B, heads, N or L, C / heads], ``mask`` [B, 1, 1, L] -> [B, N, C]."""
    # Trained norms are held in fp32 and leave fp32.
    out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)
