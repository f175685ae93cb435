"""Hunyuan3D-2.1's shape transformer (``HunYuanDiTPlain``): the velocity of a flow from noise to the latents of a shape."""

import torch
from torch import Tensor, nn

from ablation.systems.hunyuan3d.model.block import EXPANSION, LAYER_NORM_EPS, Block
from ablation.systems.hunyuan3d.model.time import TimeEmbedding
from ablation.systems.hunyuan3d.settings import Architecture


class FinalLayer(nn.Module):
    """Norm and projection to the channels of the latents."""

    def __init__(self, dim: int, channels: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.linear = nn.Linear(dim, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, 1 + N, C], time's first, which is dropped -> [B, N, channels]."""
        return self.linear(self.norm_final(x)[:, 1:])


class ShapeTransformer(nn.Module):
    """Parameter names and shapes equal those of ``model`` in the released ``hunyuan3d-dit-v2-1/model.fp16.ckpt``.

    Latents are a set: there is no position embedding, and any number of them will do.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = architecture
        self.middle = a.depth // 2
        self.x_embedder = nn.Linear(a.channels, a.dim)
        self.t_embedder = TimeEmbedding(a.dim, EXPANSION * a.dim)
        self.blocks = nn.ModuleList(Block(a, skip=i > self.middle, moe=i >= a.depth - a.moe_layers) for i in range(a.depth))
        self.final_layer = FinalLayer(a.dim, a.channels)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Latents ``x`` [B, N, channels], times ``t`` [B], image tokens ``condition`` [B, L, D] -> velocity [B, N, channels].

        Noise is at time 0, data at time 1. The unconditional velocity is that for tokens that are zero.
        """
        dtype = self.x_embedder.weight.dtype
        time, condition = self.t_embedder(t), condition.to(dtype)
        x = torch.cat([time[:, None], self.x_embedder(x.to(dtype))], dim=1)
        outputs: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x, condition, outputs.pop() if i > self.middle else None)
            if i < self.middle:
                outputs.append(x)
        return self.final_layer(x)
