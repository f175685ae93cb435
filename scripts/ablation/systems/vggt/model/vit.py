"""DINOv2 vision transformer with register tokens: the trunk that turns an image into patch tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.systems.vggt.model.layers import Block

LAYER_NORM_EPS = 1e-6  # DINOv2's; the rest of VGGT keeps PyTorch's default of 1e-5


class PatchEmbed(nn.Module):
    """Non-overlapping patches through one convolution."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """``images`` [N, 3, H, W] -> tokens [N, (H / p) (W / p), C]."""
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINOv2 with registers; returns the normalised patch tokens."""

    def __init__(self, image_size: int, patch_size: int, dim: int, depth: int, heads: int, mlp_ratio: float, registers: int):
        super().__init__()
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)  # in the checkpoint; no forward pass has it
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, layer_scale=1.0, eps=LAYER_NORM_EPS) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.normal_(self.register_tokens, std=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """``images`` [N, 3, H, W], normalised -> patch tokens [N, P, C]."""
        rows, columns = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        count = images.shape[0]
        patches = self.patch_embed(images)
        cls_position, patch_positions = self._positions(rows, columns)
        cls_token = (self.cls_token + cls_position).expand(count, -1, -1)
        registers = self.register_tokens.expand(count, -1, -1)
        x = torch.cat([cls_token, registers, patches + patch_positions], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1 + self.register_tokens.shape[1] :]

    def _positions(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Position table for the class token and for a rows x columns grid, resampled when it is not the trained one."""
        cls_position, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if (rows, columns) == (self.grid, self.grid):
            return cls_position, table
        square = table.float().reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(square, size=(rows, columns), mode="bicubic", antialias=True)
        return cls_position, resized.flatten(2).transpose(1, 2).to(table.dtype)
