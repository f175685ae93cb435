"""Transformer parts of the autoencoder, under the released names.

Heads are cut before queries, keys and values are parted: a head's share of ``c_qkv`` holds its query, key and value.
"""

from torch import Tensor, nn
from torch.nn import functional as F

EXPANSION = 4  # width of an MLP's hidden layer over the width of the tokens
EPS = 1e-6  # of the norms in the blocks; those after a stack keep PyTorch's default of 1e-5


class Heads(nn.Module):
    """Attention with LayerNorm on queries and keys."""

    def __init__(self, head_dim: int):
        super().__init__()
        self.q_norm = nn.LayerNorm(head_dim, eps=EPS)
        self.k_norm = nn.LayerNorm(head_dim, eps=EPS)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q`` [B, N, H, D], ``k`` and ``v`` [B, M, H, D] -> [B, N, H * D]."""
        # The norms copy what is not contiguous; made here, the copy is seen by whoever predicts the memory of a step.
        q, k = self.q_norm(q.contiguous()).to(v.dtype), self.k_norm(k.contiguous()).to(v.dtype)
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return out.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Tokens look at each other."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.c_proj = nn.Linear(dim, dim)
        self.attention = Heads(dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, C] -> [B, N, C]."""
        q, k, v = self.c_qkv(x).unflatten(-1, (self.heads, -1)).chunk(3, dim=-1)
        return self.c_proj(self.attention(q, k, v))


class CrossAttention(nn.Module):
    """Tokens look at others."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.c_q = nn.Linear(dim, dim, bias=False)
        self.c_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.c_proj = nn.Linear(dim, dim)
        self.attention = Heads(dim // heads)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """``x`` [B, N, C], ``others`` [B, M, C] -> [B, N, C]."""
        q = self.c_q(x).unflatten(-1, (self.heads, -1))
        k, v = self.c_kv(others).unflatten(-1, (self.heads, -1)).chunk(2, dim=-1)
        return self.c_proj(self.attention(q, k, v))


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, dim: int):
        super().__init__()
        self.c_fc = nn.Linear(dim, EXPANSION * dim)
        self.c_proj = nn.Linear(EXPANSION * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., C] -> [..., C]."""
        return self.c_proj(F.gelu(self.c_fc(x)))


class SelfBlock(nn.Module):
    """Pre-norm block of self-attention."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = SelfAttention(dim, heads)
        self.ln_2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, C] -> [B, N, C]."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class CrossBlock(nn.Module):
    """Pre-norm block of attention to other tokens."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim, eps=EPS)
        self.ln_2 = nn.LayerNorm(dim, eps=EPS)
        self.attn = CrossAttention(dim, heads)
        self.ln_3 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """``x`` [B, N, C], ``others`` [B, M, C] -> [B, N, C]."""
        x = x + self.attn(self.ln_1(x), self.ln_2(others))
        return x + self.mlp(self.ln_3(x))


class Stack(nn.Module):
    """Blocks of self-attention, one after the other."""

    def __init__(self, dim: int, heads: int, depth: int):
        super().__init__()
        self.resblocks = nn.ModuleList(SelfBlock(dim, heads) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, C] -> [B, N, C]."""
        for block in self.resblocks:
            x = block(x)
        return x
