"""DPT head: tokens of four depths, fused coarse to fine into a dense map (VGGT, section 3.3; Ranftl et al. 2021)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.ending import ending
from ablation.systems.vggt.settings import Architecture

POSITION_GAIN = 0.1
POSITION_BASE = 100.0
OUTPUT_HIDDEN = 32
PIXELS_AT_ONCE = 518 * 518  # of a sequence's frames, which go through the head in chunks: at the released size, one by one

Activation = Callable[[Tensor], Tensor]


class ResidualConvUnit(nn.Module):
    """Two convolutions around a residual. The residual is the *activated* input, as in the released network."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.conv2(F.relu(self.conv1(x))) + x


class FusionBlock(nn.Module):
    """Adds a finer level to the running map, refines it and upsamples it."""

    def __init__(self, features: int, has_residual: bool = True):
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        if has_residual:
            self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)

    def forward(self, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        return self.out_conv(upsample(self.resConfUnit2(x), size))


class DPTHead(nn.Module):
    """Dense prediction with a confidence: ``out_channels`` counts both (2 for depth, 4 for points)."""

    def __init__(self, a: Architecture, out_channels: int, activation: Activation):
        super().__init__()
        self.patch_size, self.layers, self.activation = a.patch_size, tuple(a.dpt.layers), activation
        self.special_tokens = 1 + a.registers
        dim, features, channels = 2 * a.embed_dim, a.dpt.features, a.dpt.channels
        self.norm = nn.LayerNorm(dim)
        self.projects = nn.ModuleList(nn.Conv2d(dim, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = nn.Module()
        for level, c in enumerate(channels, start=1):
            setattr(self.scratch, f"layer{level}_rn", nn.Conv2d(c, features, 3, padding=1, bias=False))
            setattr(self.scratch, f"refinenet{level}", FusionBlock(features, has_residual=level < 4))
        self.scratch.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, OUTPUT_HIDDEN, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(OUTPUT_HIDDEN, out_channels, 1),
        )

    def forward(self, levels: Sequence[Tensor], height: int, width: int) -> Tensor:
        """Four levels of tokens [B, S, P, 2C] -> raw output [B, S, H, W, out_channels]."""
        batch, frames = levels[0].shape[:2]
        rows, columns = height // self.patch_size, width // self.patch_size
        maps = []
        for x, project, resize in zip(levels, self.projects, self.resize_layers, strict=True):
            x = self.norm(x[:, :, self.special_tokens :].flatten(0, 1).to(self.norm.weight.dtype))
            x = project(x.transpose(1, 2).unflatten(2, (rows, columns)))
            maps.append(resize(add_positions(x, width / height)))
        x = self._fuse(maps)
        x = upsample(self.scratch.output_conv1(x), (rows * self.patch_size, columns * self.patch_size))
        x = add_positions(x, width / height)  # in place of the map without them, the largest there is
        x = self.scratch.output_conv2(x)
        return x.permute(0, 2, 3, 1).unflatten(0, (batch, frames))

    def _fuse(self, maps: list[Tensor]) -> Tensor:
        s = self.scratch
        one, two, three, four = (getattr(s, f"layer{i}_rn")(x) for i, x in enumerate(maps, start=1))
        x = s.refinenet4(four, None, size_of(three))
        x = s.refinenet3(x, three, size_of(two))
        x = s.refinenet2(x, two, size_of(one))
        height, width = size_of(one)
        return s.refinenet1(x, one, (2 * height, 2 * width))


def dense(head: DPTHead, tokens: Sequence[Tensor | None], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, S, P, 2C] by depth -> values [B, S, H, W, out_channels - 1] and confidence [B, S, H, W] (> 1).

    The frames go through ``head`` in chunks: what it holds of one, 1.3 GB at 518 x 518, it need not hold of the next, at
    inference or where it is recomputed in the backward pass. How many a chunk has depends on the frames' size alone.
    The last chunk ends the forward pass.
    """
    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    *chunks, last = zip(*(tokens[layer].split(at_once, dim=1) for layer in head.layers), strict=True)
    raw = [head(levels, height, width) for levels in chunks]
    with ending():
        raw = torch.cat([*raw, head(last, height, width)], dim=1)
    return head.activation(raw[..., :-1]), 1 + raw[..., -1].exp()


def size_of(x: Tensor) -> tuple[int, int]:
    """Height and width of ``x`` [..., H, W]."""
    return x.shape[-2], x.shape[-1]


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of ``x`` [N, C, h, w] to ``size``, corners aligned."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def add_positions(x: Tensor, aspect: float) -> Tensor:
    """Add a small sine-cosine embedding of each pixel's place in the image to ``x`` [N, C, h, w]; ``aspect`` is W / H."""
    height, width = size_of(x)
    diagonal = (aspect**2 + 1) ** 0.5
    u = _coordinates(width, aspect / diagonal, x.device)
    v = _coordinates(height, 1 / diagonal, x.device)
    along_x = POSITION_GAIN * _sine_cosine(u, x.shape[1] // 2).to(x.dtype)  # [C / 2, w]
    along_y = POSITION_GAIN * _sine_cosine(v, x.shape[1] // 2).to(x.dtype)
    return x + torch.cat([along_x[:, None, :].expand(-1, height, -1), along_y[:, :, None].expand(-1, -1, width)])


def _coordinates(count: int, span: float, device: torch.device) -> Tensor:
    """Pixel centres on [-span, span], in double precision as the reference computes them."""
    end = span * (count - 1) / count
    return torch.linspace(-end, end, count, dtype=torch.float64, device=device)


def _sine_cosine(positions: Tensor, channels: int) -> Tensor:
    """``positions`` [n] -> [channels, n]: sines of all frequencies, then cosines."""
    half = channels // 2
    frequencies = POSITION_BASE ** -(torch.arange(half, dtype=torch.float64, device=positions.device) / half)
    angles = frequencies[:, None] * positions[None, :]
    return torch.cat([angles.sin(), angles.cos()]).float()
