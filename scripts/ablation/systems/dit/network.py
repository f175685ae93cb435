"""The transformers of diffusers as this system trains them: one embedding of time and class, and no chance inside.

Diffusers' DiT gives every block an embedder of its own (XL/2: 750 million parameters), and each drops classes by itself. In the
paper there is one (675 million), and a sample is dropped whole. Here it is one again, computed once a pass; which samples
are told nothing is drawn with the data. Its embedding of the time has the frequencies with which the released weights were
trained, 10000^(-i/128) (TimestepEmbedder in models.py of facebookresearch/DiT); diffusers' DiT has 10000^(-i/127).
"""

from diffusers import DiTTransformer2DModel, PixArtTransformer2DModel
from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings, PatchEmbed
from torch import Tensor, nn

from ablation.systems.dit.settings import Architecture

EMBEDDER_STD = 0.02
NO_SIZES = {"resolution": None, "aspect_ratio": None}  # that PixArt at 1024 pixels is told, but not at 256


class ClassTransformer(nn.Module):
    """DiT: latent images and a class -> the noise in them."""

    def __init__(self, a: Architecture):
        super().__init__()
        self.embedder = CombinedTimestepLabelEmbeddings(a.classes, a.width)
        self.embedder.class_embedder.dropout_prob = 0.0  # after it made the row for "no class", the last one
        self.embedder.time_proj.downscale_freq_shift = 0  # as diffusers' PixArt has it already
        self.transformer = DiTTransformer2DModel(**_sizes(a), num_embeds_ada_norm=1)
        for block in self.transformer.transformer_blocks:
            block.norm1.emb = Embedded()
        _initialise(self)
        nn.init.normal_(self.embedder.class_embedder.embedding_table.weight, std=EMBEDDER_STD)
        for block in self.transformer.transformer_blocks:
            _zero(block.norm1.linear)
        _zero(self.transformer.proj_out_1, self.transformer.proj_out_2)

    def forward(self, latents: Tensor, steps: Tensor, labels: Tensor) -> Tensor:
        """``latents`` [B, C, h, w], ``steps`` [B] in 0 .. 999, ``labels`` [B] -> noise, and variances, [B, C or 2C, h, w]."""
        embedded = self.embedder(steps, labels, hidden_dtype=latents.dtype)
        return self.transformer(latents, embedded, return_dict=False)[0]


class CaptionTransformer(nn.Module):
    """PixArt-alpha at 256 pixels: latent images and the states of a caption -> the noise in them."""

    def __init__(self, a: Architecture):
        super().__init__()
        self.transformer = PixArtTransformer2DModel(
            **_sizes(a),
            num_embeds_ada_norm=1000,
            cross_attention_dim=a.width,
            caption_channels=a.text_dim,
            use_additional_conditions=False,
            interpolation_scale=1,
        )
        _initialise(self)
        _zero(self.transformer.proj_out, *(block.attn2.to_out[0] for block in self.transformer.transformer_blocks))

    def forward(self, latents: Tensor, steps: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """As :class:`ClassTransformer`, with the states ``tokens`` [B, L, D] of captions and their ``mask`` [B, L]."""
        states = tokens.to(latents.dtype)
        return self.transformer(latents, states, steps, NO_SIZES, encoder_attention_mask=mask, return_dict=False)[0]


class Embedded(nn.Module):
    """In the place of a block's own embedder: hands on what was embedded for all of them."""

    def forward(self, embedded: Tensor, labels: Tensor | None = None, hidden_dtype: object = None) -> Tensor:
        """``embedded`` [B, D], which diffusers takes for the time."""
        return embedded


def _sizes(a: Architecture) -> dict[str, object]:
    return {
        "num_attention_heads": a.heads,
        "attention_head_dim": a.head_dim,
        "in_channels": a.latent_channels,
        "out_channels": a.latent_channels * (2 if a.learn_sigma else 1),
        "num_layers": a.depth,
        "sample_size": a.latent_size,
        "patch_size": a.patch,
    }


def _initialise(model: nn.Module) -> None:
    """Fresh weights as in the paper: Xavier for linear layers and patches, small ones for the embedding of the time."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if "timestep_embedder" in name:
                nn.init.normal_(module.weight, std=EMBEDDER_STD)
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, PatchEmbed):
            nn.init.xavier_uniform_(module.proj.weight.flatten(1))
            nn.init.zeros_(module.proj.bias)


def _zero(*layers: nn.Linear) -> None:
    """So that a block, or the whole network, begins as if it were not there."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
