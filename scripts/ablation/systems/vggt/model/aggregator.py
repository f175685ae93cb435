"""VGGT's alternating-attention aggregator: attention within each frame, then over all frames, ``depth`` times."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from ablation.systems.vggt.model.layers import Block
from ablation.systems.vggt.model.prefix import PATCHES, Size, State, level, start_of, tokens_after
from ablation.systems.vggt.model.rope import Rotation, grid_positions, rotation_of
from ablation.systems.vggt.model.vit import VisionTransformer
from ablation.systems.vggt.settings import Architecture

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Aggregator(nn.Module):
    """Images of one scene to tokens that have seen every frame (VGGT, section 3.2)."""

    def __init__(self, a: Architecture):
        super().__init__()
        self.patch_size, self.rope_base = a.patch_size, a.rope_base
        self.head_dim = a.embed_dim // a.heads
        self.special_tokens = 1 + a.registers
        self.patch_embed = VisionTransformer(
            a.image_size, a.patch_size, a.embed_dim, a.vit.depth, a.vit.heads, a.vit.mlp_ratio, a.registers
        )
        self.frame_blocks = nn.ModuleList(self._block(a) for _ in range(a.depth))
        self.global_blocks = nn.ModuleList(self._block(a) for _ in range(a.depth))
        # Index 0 is for the first frame (the reference of the world), index 1 for all others.
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, a.embed_dim))
        self.register_token = nn.Parameter(torch.empty(1, 2, a.registers, a.embed_dim))
        nn.init.normal_(self.camera_token, std=1e-6)
        nn.init.normal_(self.register_token, std=1e-6)
        self.register_buffer("_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @staticmethod
    def _block(a: Architecture) -> Block:
        return Block(a.embed_dim, a.heads, a.mlp_ratio, a.layer_scale, qk_norm=a.qk_norm)

    def forward(self, images: Tensor, keep: Collection[int]) -> list[Tensor | None]:
        """``images`` [B, S, 3, H, W] in [0, 1] -> for each depth tokens [B, S, P, 2C], or None where it is not in ``keep``.

        The last axis holds the frame block's output, then the global block's. P counts the camera token, the registers
        and the patches, in this order. Only the depths asked for are kept: at 518 x 518 each costs 22.5 MB a frame in bf16.
        """
        last = len(self.frame_blocks)
        state = self.go_on(self.trunk(images), images.shape[-2:], last, keep)
        return [state.get(level(depth)) for depth in range(last)]

    def trunk(self, images: Tensor) -> State:
        """The state before the first depth, from ``images`` [B, S, 3, H, W] in [0, 1]."""
        normalised = (images.flatten(0, 1) - self._mean) / self._std
        patches = self.patch_embed(normalised.to(self.patch_embed.patch_embed.proj.weight.dtype))
        return {PATCHES: patches.unflatten(0, images.shape[:2])}

    def go_on(self, state: State, size: Size, stop: int, keep: Collection[int]) -> State:
        """``state`` carried on to depth ``stop``, of images of ``size``, with the levels in ``keep`` that are passed."""
        start = start_of(state, len(self.frame_blocks))
        if start == stop:
            return state
        tokens = self._with_special(state[PATCHES]) if start == 0 else state[tokens_after(start)]
        batch, frames, count, dim = tokens.shape
        within, across = self._rotations(size, frames, tokens.device)
        kept = {name: value for name, value in state.items() if name not in (PATCHES, tokens_after(start))}
        for depth in range(start, stop):
            of_frame = self.frame_blocks[depth](tokens.reshape(batch * frames, count, dim), within)
            tokens = self.global_blocks[depth](of_frame.reshape(batch, frames * count, dim), across)
            if depth in keep:
                both = [of_frame.view(batch, frames, count, dim), tokens.view(batch, frames, count, dim)]
                kept[level(depth)] = torch.cat(both, dim=-1)
        if stop < len(self.frame_blocks):
            kept[tokens_after(stop)] = tokens.view(batch, frames, count, dim)
        return kept

    def _with_special(self, patches: Tensor) -> Tensor:
        """``patches`` [B, S, N, C] behind camera and register tokens."""
        batch, frames = patches.shape[:2]
        both = torch.cat([self.camera_token, self.register_token], dim=2)  # [1, 2, T, C]
        first, others = both[:, :1], both[:, 1:].expand(-1, frames - 1, -1, -1)
        special = torch.cat([first, others], dim=1).expand(batch, -1, -1, -1)
        return torch.cat([special.to(patches.dtype), patches], dim=2)

    def _rotations(self, size: Size, frames: int, device: torch.device) -> tuple[Rotation, Rotation]:
        """Rotary angles within a frame and over all frames; every frame repeats the same positions."""
        rows, columns = size[0] // self.patch_size, size[1] // self.patch_size
        positions = grid_positions(rows, columns, self.special_tokens, device)
        within = rotation_of(positions, self.head_dim, self.rope_base)
        return within, Rotation(within.cos.repeat(frames, 1), within.sin.repeat(frames, 1))
