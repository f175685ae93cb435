"""VGGT: cameras, depth and points of a scene from its images in one forward pass (Wang et al., CVPR 2025)."""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ablation.rounds import rounds
from ablation.systems.vggt.model.aggregator import Aggregator
from ablation.systems.vggt.model.camera_head import CameraHead
from ablation.systems.vggt.model.dpt_head import DPTHead, dense
from ablation.systems.vggt.model.prefix import Size, State, frozen_depths, level, stacked, start_of
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
        self.frozen: int | None = None

    def train(self, mode: bool = True) -> "VGGT":
        """Training begins or ends: what is frozen is settled by then, and is looked for here."""
        self.frozen = frozen_depths(self.aggregator)
        return super().train(mode)

    def forward(
        self, images: Tensor | None, heads: Sequence[Head] = HEADS, state: State | None = None, size: Size | None = None
    ) -> dict[str, Tensor | list[Tensor]]:
        """``images`` [B, S, 3, H, W] in [0, 1], H and W multiples of the patch size.

        Instead of them, the ``state`` that the frozen part of the network has made of them (:meth:`prefix`), and their
        ``size``. Returns, for the heads asked for: ``pose_enc`` [B, S, 9] and its refinements ``pose_enc_list``; ``depth``
        [B, S, H, W, 1] and ``depth_conf`` [B, S, H, W]; ``world_points`` [B, S, H, W, 3] and ``world_points_conf``.
        The heads run in the type of their weights, fp32 in the release, whatever the autocast type of the aggregator.
        """
        height, width = size or images.shape[-2:]
        keep = self.kept(heads)
        state = self._frozen(images, state, (height, width), keep)
        state = self.aggregator.go_on(state, (height, width), self.last + 1, keep)
        tokens = [state.get(level(depth)) for depth in range(self.last + 1)]
        device, out = state[level(self.last)].device, {}
        with torch.autocast(device.type, enabled=False):
            if "camera" in heads:
                out["pose_enc_list"] = self.camera_head(tokens[self.last].to(self.camera_head.token_norm.weight.dtype))
                out["pose_enc"] = out["pose_enc_list"][-1]
            if "depth" in heads:
                out["depth"], out["depth_conf"] = dense(self.depth_head, tokens, height, width)
            if "point" in heads:
                out["world_points"], out["world_points_conf"] = dense(self.point_head, tokens, height, width)
        return out

    def kept(self, heads: Sequence[Head]) -> set[int]:
        """The depths whose tokens ``heads`` need."""
        return set().union(*(self.needed[head] for head in heads))

    def _frozen(self, images: Tensor | None, state: State | None, size: Size, keep: Collection[int]) -> State:
        """The state where training begins: without gradients, and one sequence at a time.

        So it does not depend on what else is in the batch, and equals what was made of the same images at another time.
        """
        if self.frozen is None:
            return self.aggregator.trunk(images)
        begun_at = 0 if state is None else start_of(state, self.last + 1)
        if begun_at > self.frozen:
            raise ValueError(f"a state after {begun_at} depths, of which only {self.frozen} are frozen")
        if state is not None and begun_at == self.frozen:
            return state
        given = images if state is None else next(iter(state.values()))

        def each() -> Iterator[State]:
            for number in rounds(len(given)):
                one = slice(number, number + 1)
                begun = self.aggregator.trunk(images[one]) if state is None else {k: v[one] for k, v in state.items()}
                yield self.aggregator.go_on(begun, size, self.frozen, keep)

        with torch.no_grad():
            return stacked(each(), len(given))
