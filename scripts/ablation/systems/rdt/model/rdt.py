"""RDT: a diffusion transformer for robot actions that attends to language and images (Liu et al., ICLR 2025)."""

from math import log

import torch
from torch import Tensor, nn

from ablation.systems.rdt.model.layers import CrossAttention, Mlp, RmsNorm, SelfAttention
from ablation.systems.rdt.model.positions import BASE, constant_table, image_table, sequence_table
from ablation.systems.rdt.settings import Architecture

FREQUENCIES = 256  # cosines and sines that a number becomes
EMBEDDER_STD = 0.02  # of fresh weights


class NumberEmbedder(nn.Module):
    """A number, the diffusion step or the control frequency in Hz, as a token."""

    def __init__(self, dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, numbers: Tensor) -> Tensor:
        """``numbers`` [B] -> [B, 1, C]."""
        half = FREQUENCIES // 2
        exponents = torch.arange(half, dtype=torch.float32, device=numbers.device) / half
        angles = numbers.float()[:, None] * torch.exp(-log(BASE) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(waves.to(self.mlp[0].weight.dtype))[:, None]


class Block(nn.Module):
    """Self-attention, attention to one condition, MLP; each pre-normed, with a residual."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = RmsNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = RmsNorm(dim)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = RmsNorm(dim)
        self.ffn = Mlp(dim, dim)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` [B, N, C], ``condition`` [B, L, C], ``mask`` [B, L] or None -> [B, N, C]."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), condition, mask)
        return x + self.ffn(self.norm3(x))


class FinalLayer(nn.Module):
    """Tokens to the entries of an action."""

    def __init__(self, dim: int, out: int):
        super().__init__()
        self.norm_final = RmsNorm(dim)
        self.ffn_final = Mlp(dim, out)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, C] -> [B, N, out]."""
        return self.ffn_final(self.norm_final(x))


class RDT(nn.Module):
    """The network on adapted tokens; its sequence is [diffusion step, control frequency, state, actions]."""

    def __init__(self, a: Architecture):
        super().__init__()
        self.horizon = a.horizon
        self.x_pos_embed = nn.Parameter(sequence_table(a.hidden_size, (1, 1, 1, a.horizon)))
        self.lang_cond_pos_embed = nn.Parameter(constant_table(a.hidden_size, a.lang_length))
        images = a.images
        self.img_cond_pos_embed = nn.Parameter(image_table(a.hidden_size, images.history, images.cameras, images.patches))
        self.t_embedder = NumberEmbedder(a.hidden_size)
        self.freq_embedder = NumberEmbedder(a.hidden_size)
        self.blocks = nn.ModuleList(Block(a.hidden_size, a.heads) for _ in range(a.depth))
        self.final_layer = FinalLayer(a.hidden_size, a.action_dim)
        self._initialise()

    def _initialise(self) -> None:
        """Fresh weights as the release has them: Glorot, normal for the embedders, and nothing predicted at first."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for embedder in (self.t_embedder, self.freq_embedder):
            nn.init.normal_(embedder.mlp[0].weight, std=EMBEDDER_STD)
            nn.init.normal_(embedder.mlp[2].weight, std=EMBEDDER_STD)
        nn.init.zeros_(self.final_layer.ffn_final.fc2.weight)

    def forward(
        self, x: Tensor, steps: Tensor, frequencies: Tensor, lang: Tensor, lang_mask: Tensor | None, img: Tensor
    ) -> Tensor:
        """State and noisy actions ``x`` [B, 1 + H, C] at the diffusion ``steps`` [B] -> clean actions [B, H, A].

        ``frequencies`` [B] in Hz, 0 where unknown; ``lang`` [B, L, C] with ``lang_mask`` [B, L], true where a token counts (at
        least one does); ``img`` [B, I, C].
        """
        x = torch.cat([self.t_embedder(steps), self.freq_embedder(frequencies), x], dim=1) + self.x_pos_embed
        lang = lang + self.lang_cond_pos_embed[:, : lang.shape[1]]
        img = img + self.img_cond_pos_embed
        for index, block in enumerate(self.blocks):
            condition, mask = (img, None) if index % 2 else (lang, lang_mask)
            x = block(x, condition, mask)
        return self.final_layer(x)[:, -self.horizon :]
