"""VGGT's camera head: four refinements of a 9-number camera encoding, read from each frame's camera token."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.systems.vggt.model.layers import Block, Mlp
from ablation.systems.vggt.settings import Architecture

ITERATIONS = 4
ENCODING = 9  # translation 3, quaternion xyzw 4, field of view (h, w) 2
TRUNK_LAYER_SCALE = 0.01


class CameraHead(nn.Module):
    """Camera tokens to camera encodings (VGGT, section 3.3)."""

    def __init__(self, a: Architecture):
        super().__init__()
        dim = 2 * a.embed_dim
        self.trunk = nn.Sequential(
            *(Block(dim, a.camera.heads, a.camera.mlp_ratio, TRUNK_LAYER_SCALE) for _ in range(a.camera.depth))
        )
        self.token_norm = nn.LayerNorm(dim)
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, ENCODING))
        self.embed_pose = nn.Linear(ENCODING, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.adaln_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.pose_branch = Mlp(dim, dim // 2, ENCODING)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """``tokens`` [B, S, P, 2C], camera token first -> four encodings [B, S, 9], each a refinement of the last."""
        camera = self.token_norm(tokens[:, :, 0])
        encodings: list[Tensor] = []
        raw = None
        for _ in range(ITERATIONS):
            previous = self.empty_pose_tokens.expand(*camera.shape[:2], -1) if raw is None else raw.detach()
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(previous)).chunk(3, dim=-1)
            x = gate * (self.adaln_norm(camera) * (1 + scale) + shift) + camera
            delta = self.pose_branch(self.trunk_norm(self.trunk(x)))
            raw = delta if raw is None else raw.detach() + delta
            encodings.append(torch.cat([raw[..., :7], F.relu(raw[..., 7:])], dim=-1))
        return encodings
