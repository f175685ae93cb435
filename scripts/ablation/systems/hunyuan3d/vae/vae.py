"""Hunyuan3D-2.1's autoencoder (``ShapeVAE``): points of a surface to latents, latents to a field around it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ablation.systems.hunyuan3d.settings import Autoencoder
from ablation.systems.hunyuan3d.vae.layers import CrossBlock, Stack
from ablation.systems.hunyuan3d.vae.points import embed_places, embedding_size, farthest_points, rows

LOG_VARIANCE = (-30.0, 20.0)


class Gaussian(NamedTuple):
    """What the encoder knows of the latents, both [B, latents, channels]."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """``noise`` [B, latents, channels], standard normal, to latents."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal distribution, mean over all latents' channels."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


class Encoder(nn.Module):
    """Points chosen evenly look at all points, then at each other."""

    def __init__(self, a: Autoencoder):
        super().__init__()
        self.frequencies = a.frequencies
        self.input_proj = nn.Linear(embedding_size(a.frequencies) + a.features, a.dim)
        self.cross_attn = CrossBlock(a.dim, a.heads)
        self.self_attn = Stack(a.dim, a.heads, a.encoder_depth)
        self.ln_post = nn.LayerNorm(a.dim)

    def forward(self, surface: Tensor, chosen: Tensor) -> Tensor:
        """``surface`` [B, N, 3 + features], indices ``chosen`` [B, Q] -> [B, Q, C]."""
        described = torch.cat([embed_places(surface[..., :3], self.frequencies), surface[..., 3:].float()], dim=-1)
        points = self.input_proj(described.to(self.input_proj.weight.dtype))
        return self.ln_post(self.self_attn(self.cross_attn(rows(points, chosen), points)))


class FieldDecoder(nn.Module):
    """Places look at the decoded tokens."""

    def __init__(self, a: Autoencoder):
        super().__init__()
        self.frequencies = a.frequencies
        self.query_proj = nn.Linear(embedding_size(a.frequencies), a.dim)
        self.cross_attn_decoder = CrossBlock(a.dim, a.heads)
        self.ln_post = nn.LayerNorm(a.dim)
        self.output_proj = nn.Linear(a.dim, 1)

    def forward(self, places: Tensor, tokens: Tensor) -> Tensor:
        """``places`` [B, Q, 3], ``tokens`` [B, latents, C] -> field values [B, Q]."""
        queries = self.query_proj(embed_places(places, self.frequencies).to(tokens.dtype))
        return self.output_proj(self.ln_post(self.cross_attn_decoder(queries, tokens)))[..., 0]


class ShapeVAE(nn.Module):
    """Parameter names and shapes equal those of ``vae`` in the released ``hunyuan3d-dit-v2-1/model.fp16.ckpt``."""

    def __init__(self, architecture: Autoencoder):
        super().__init__()
        a = architecture
        self.latents, self.scale = a.latents, a.scale
        self.encoder = Encoder(a)
        self.pre_kl = nn.Linear(a.dim, 2 * a.channels)
        self.post_kl = nn.Linear(a.channels, a.dim)
        self.transformer = Stack(a.dim, a.heads, a.decoder_depth)
        self.geo_decoder = FieldDecoder(a)

    def encode(self, surface: Tensor, chosen: Tensor | None = None) -> Gaussian:
        """``surface`` [B, N, 3 + features]: places, normals, sharpness -> latents, not scaled.

        ``chosen`` [B, latents]: the points that become latents; left out, far from each other, from the first point on.
        """
        if chosen is None:
            chosen = farthest_points(surface[..., :3], self.latents)
        mean, log_variance = self.pre_kl(self.encoder(surface, chosen)).chunk(2, dim=-1)
        return Gaussian(mean, log_variance.clamp(*LOG_VARIANCE))

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents [B, latents, channels] as the transformer is trained on them."""
        return self.scale * latents

    def decode(self, scaled: Tensor) -> Tensor:
        """Scaled latents [B, latents, channels] -> tokens [B, latents, C] that the field is read from."""
        return self.transformer(self.post_kl((scaled / self.scale).to(self.post_kl.weight.dtype)))

    def field(self, places: Tensor, tokens: Tensor, at_once: int = 16_384) -> Tensor:
        """``places`` [B, Q, 3], tokens of :meth:`decode` -> values [B, Q], zero on the surface; ``at_once`` places a time."""
        return torch.cat([self.geo_decoder(part, tokens) for part in places.split(at_once, dim=1)], dim=1)
