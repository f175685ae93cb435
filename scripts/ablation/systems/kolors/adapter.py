"""The layout adapter: where things are to be, told to the UNet in each of its cross-attentions, and nowhere else.

An object's token is made of its label and its box as in GLIGEN (Li et al., CVPR 2023), which adds a self-attention of its
own to every block, 1.8 billion parameters in all. Here the pixels attend to the objects beside the prompt, through a
bottleneck: 48 million. A pixel sees the objects whose box covers it, and a learned token that stands for none. The last
projection starts at zero, so that the UNet is what it was before training.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.systems.kolors import architecture

TEMPERATURE = 100.0  # of the boxes' frequencies, as GLIGEN's


class Objects(NamedTuple):
    """Labels and places of at most N things: ``words`` [B, N, T], the mean of a label's words, where ``labelled`` [B, N];

    ``boxes`` [B, N, 4], left, top, right, bottom in 0..1, where ``there`` [B, N].
    """

    words: Tensor
    labelled: Tensor
    boxes: Tensor
    there: Tensor


class Layout(NamedTuple):
    """What is to be where: ``tokens`` [B, N + 1, D] of the objects and of none, and who sees them.

    ``seen``: number of pixels of a level -> [B, 1, pixels, N + 1], true where a pixel sees a token.
    """

    tokens: Tensor
    seen: Mapping[int, Tensor]


class LayoutAdapter(nn.Module):
    """Tokens of objects, and an attention to them for every cross-attention of a UNet."""

    def __init__(self, settings: architecture.Adapter, widths: Mapping[str, int], text_dim: int):
        """``widths``: the channels of each cross-attention, by its name in the UNet; ``text_dim``: T of the labels' words."""
        super().__init__()
        self.tokens = ObjectTokens(settings, text_dim)
        self.attentions = nn.ModuleDict({_key(name): LayoutAttention(settings, width) for name, width in widths.items()})

    def join(self, attentions: Mapping[str, Attention]) -> None:
        """Have each of the UNet's cross-attentions, by its name, add what ours says."""
        for name, attention in attentions.items():
            attention.set_processor(LayoutProcessor(self.attentions[_key(name)]))

    def forward(self, objects: Objects, levels: Iterable[tuple[int, int]]) -> Layout:
        """The layout of ``objects`` for the UNet's ``levels``, height and width of each."""
        seen = {height * width: _seen(objects, height, width) for height, width in levels}
        return Layout(self.tokens(objects), seen)


class ObjectTokens(nn.Module):
    """A token for each object, from its label and its box, and one for none."""

    def __init__(self, settings: architecture.Adapter, text_dim: int):
        super().__init__()
        self.frequencies = settings.frequencies
        self.unlabelled = nn.Parameter(torch.randn(text_dim))  # in place of a label's words, which are brought to this size
        self.nothing = nn.Parameter(torch.randn(settings.dim))
        self.mlp = nn.Sequential(
            nn.Linear(text_dim + 8 * settings.frequencies, settings.dim),
            nn.SiLU(),
            nn.Linear(settings.dim, settings.dim),
            nn.SiLU(),
            nn.Linear(settings.dim, settings.dim),
            nn.LayerNorm(settings.dim),
        )

    def forward(self, objects: Objects) -> Tensor:
        """-> [B, N + 1, D], the last one for none."""
        words = F.layer_norm(objects.words.float(), objects.words.shape[-1:])
        words = torch.where(objects.labelled[..., None], words, self.unlabelled)
        tokens = self.mlp(torch.cat([words, fourier(objects.boxes, self.frequencies)], dim=-1))
        nothing = self.nothing.to(tokens.dtype).expand(len(tokens), 1, -1)
        return torch.cat([tokens, nothing], dim=1)


class LayoutAttention(nn.Module):
    """From pixels to the objects that they see; the result starts at zero."""

    def __init__(self, settings: architecture.Adapter, channels: int):
        super().__init__()
        self.heads = settings.heads
        self.q = nn.Linear(channels, settings.bottleneck, bias=False)
        self.k = nn.Linear(settings.dim, settings.bottleneck, bias=False)
        self.v = nn.Linear(settings.dim, settings.bottleneck, bias=False)
        self.out = nn.Linear(settings.bottleneck, channels, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, pixels: Tensor, layout: Layout) -> Tensor:
        """``pixels`` [B, P, C] -> the same, to be added to what they take from the prompt."""
        q, k, v = self._split(self.q(pixels)), self._split(self.k(layout.tokens)), self._split(self.v(layout.tokens))
        taken = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.seen[pixels.shape[1]])
        return self.out(taken.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """[B, S, H * D] -> [B, H, S, D]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LayoutProcessor(AttnProcessor2_0):
    """diffusers' attention, and the adapter's beside it.

    The layout comes as an argument, so that a pass that is recomputed sees its own; under the name of IP-Adapter's states,
    which diffusers keeps from self-attention without a warning. The layer is no module of the UNet's: it stays the adapter's,
    under the adapter's names.
    """

    def __init__(self, layer: LayoutAttention):
        super().__init__()
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        ip_hidden_states: Layout | None = None,
    ) -> Tensor:
        out = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return out if ip_hidden_states is None else out + self.layer(hidden_states, ip_hidden_states)


def cross_attentions(unet: nn.Module) -> dict[str, Attention]:
    """Every attention of ``unet`` to the prompt, by its name."""
    return {name: module for name, module in unet.named_modules() if name.endswith(".attn2")}


def fourier(boxes: Tensor, frequencies: int) -> Tensor:
    """GLIGEN's embedding: ``boxes`` [..., 4] -> [..., 8 * frequencies], sines and cosines of each side, fp32."""
    octaves = torch.arange(frequencies, dtype=torch.float32, device=boxes.device) / frequencies
    angles = boxes.float()[..., None] * TEMPERATURE**octaves
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def covered(boxes: Tensor, height: int, width: int) -> Tensor:
    """The cells that share area with ``boxes`` [..., 4] -> [..., height * width], bool: no box is too small for a grid."""
    left, top, right, bottom = boxes.float()[..., None].unbind(-2)
    x = torch.arange(width, device=boxes.device)
    y = torch.arange(height, device=boxes.device)
    across = (x < right * width) & (x + 1 > left * width)
    down = (y < bottom * height) & (y + 1 > top * height)
    return (down[..., :, None] & across[..., None, :]).flatten(-2)


def _seen(objects: Objects, height: int, width: int) -> Tensor:
    """[B, 1, height * width, N + 1]: the objects that are there and cover a pixel, and the token of none."""
    inside = covered(objects.boxes, height, width) & objects.there[..., None]
    return F.pad(inside.transpose(1, 2), (0, 1), value=True)[:, None]


def _key(name: str) -> str:
    return name.replace(".", "-")
