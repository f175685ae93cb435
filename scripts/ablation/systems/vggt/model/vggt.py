"""VGGT: cameras, depth and points of a scene from its images in one forward pass (Wang et al., CVPR 2025)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ablation.systems.vggt.model.aggregator import Aggregator
from ablation.systems.vggt.model.camera_head import CameraHead
from ablation.systems.vggt.model.dpt_head import DPTHead
from ablation.systems.vggt.settings import Architecture

Head = Literal["camera", "depth", "point"]
HEADS: tuple[Head, ...] = ("camera", "depth", "point")
IGNORED = "track_head."  # in the released file; no study of ours tracks points


def inverse_log(x: Tensor) -> Tensor:
    """Sign-preserving exponential: ``sign(x) (exp(|x|) - 1)``."""
    return x.sign() * x.abs().expm1()


class VGGT(nn.Module):
    """Parameter names and shapes equal the released ``facebook/VGGT-1B`` file, less ``track_head.*``."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.aggregator = Aggregator(architecture)
        self.camera_head = CameraHead(architecture)
        self.depth_head = DPTHead(architecture, out_channels=2, activation=torch.exp)
        self.point_head = DPTHead(architecture, out_channels=4, activation=inverse_log)
        self.last = architecture.depth - 1
        self.needed = {
            "camera": {self.last},
            "depth": set(architecture.dpt.layers),
            "point": set(architecture.dpt.layers),
        }

    def gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the activations of every transformer block of trunk and aggregator in the backward pass."""
        self.aggregator.gradient_checkpointing = enabled
        self.aggregator.patch_embed.gradient_checkpointing = enabled

    def forward(self, images: Tensor, heads: Sequence[Head] = HEADS) -> dict[str, Tensor | list[Tensor]]:
        """``images`` [B, S, 3, H, W] in [0, 1], H and W multiples of the patch size.

        Returns, for the heads asked for: ``pose_enc`` [B, S, 9] and its refinements ``pose_enc_list``; ``depth``
        [B, S, H, W, 1] and ``depth_conf`` [B, S, H, W]; ``world_points`` [B, S, H, W, 3] and ``world_points_conf``.
        The heads run in the type of their weights, fp32 in the release, whatever the autocast type of the aggregator.
        """
        height, width = images.shape[-2:]
        tokens = self.aggregator(images, keep=set().union(*(self.needed[head] for head in heads)))
        out: dict[str, Tensor | list[Tensor]] = {}
        with torch.autocast(images.device.type, enabled=False):
            if "camera" in heads:
                out["pose_enc_list"] = self.camera_head(tokens[self.last].to(self.camera_head.token_norm.weight.dtype))
                out["pose_enc"] = out["pose_enc_list"][-1]
            if "depth" in heads:
                out["depth"], out["depth_conf"] = self.depth_head(tokens, height, width)
            if "point" in heads:
                out["world_points"], out["world_points_conf"] = self.point_head(tokens, height, width)
        return out
