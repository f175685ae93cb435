"""The settings of the ``hunyuan3d`` system: so far, the sizes of its networks."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ablation.settings import Strict

Count = Annotated[int, Field(ge=0)]


class Architecture(Strict):
    """Sizes of Hunyuan3D's shape transformer; the defaults are those of the released Hunyuan3D-2.1."""

    latents: PositiveInt = 4096
    """Latent tokens of a shape; no parameter depends on it."""
    channels: PositiveInt = 64
    """Channels of a latent token."""
    condition_tokens: PositiveInt = 1370
    """Tokens that describe the image: 37 x 37 patches and a class token; no parameter depends on it."""
    condition_dim: PositiveInt = 1024
    """Width of the image's tokens."""
    dim: PositiveInt = 2048
    """Width of the transformer's tokens."""
    depth: PositiveInt = 21
    """Blocks; those after the middle one take the outputs of those before it."""
    heads: PositiveInt = 16
    """Attention heads."""
    qk_norm: bool = True
    """RMSNorm on queries and keys."""
    qkv_bias: bool = False
    """Biases in the projections to queries, keys and values."""
    moe_layers: Count = 6
    """Last blocks with a mixture of experts in place of the MLP."""
    experts: PositiveInt = 8
    """Routed experts of a mixture; one more sees every token."""
    experts_per_token: PositiveInt = 2
    """Routed experts that a token is sent to."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Architecture":
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        if self.dim % 2:
            raise ValueError(f"dim = {self.dim} must be even (sines and cosines of the time)")
        if self.moe_layers > self.depth:
            raise ValueError(f"moe_layers = {self.moe_layers} exceeds depth = {self.depth}")
        if self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token = {self.experts_per_token} exceeds experts = {self.experts}")
        return self


class Autoencoder(Strict):
    """Sizes of Hunyuan3D's autoencoder of shapes; the defaults are those of the released Hunyuan3D-2.1."""

    points: PositiveInt = 81_920
    """Surface points that a shape is encoded from; no parameter depends on it."""
    features: Count = 4
    """Numbers a point beside its place: the normal, and whether it lies on a sharp edge."""
    frequencies: PositiveInt = 8
    """Octaves of the sines and cosines of a place."""
    latents: PositiveInt = 4096
    """Latent tokens of a shape; no parameter depends on it."""
    channels: PositiveInt = 64
    """Channels of a latent token."""
    dim: PositiveInt = 1024
    """Width of the transformers' tokens."""
    heads: PositiveInt = 16
    """Attention heads."""
    encoder_depth: PositiveInt = 8
    """Self-attention blocks after the points were taken in."""
    decoder_depth: PositiveInt = 16
    """Self-attention blocks before the field is asked for."""
    scale: PositiveFloat = 1.0039506158752403
    """The transformer's latents over the autoencoder's."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Autoencoder":
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        if self.latents > self.points:
            raise ValueError(f"latents = {self.latents} exceeds points = {self.points}, of which they are chosen")
        return self


class Conditioner(Strict):
    """Sizes of the network that describes the image, a DINOv2; the defaults are those of the released Hunyuan3D-2.1."""

    image_size: PositiveInt = 518
    """Side of the square image in pixels; with ``patch_size``, it makes the number of condition tokens (``tokens.py``)."""
    patch_size: PositiveInt = 14
    """Side of a patch in pixels."""
    trained_size: PositiveInt = 518
    """Image side that the table of positions is made for; for another, it is interpolated."""
    dim: PositiveInt = 1024
    """Width of the tokens."""
    depth: PositiveInt = 24
    """Blocks."""
    heads: PositiveInt = 16
    """Attention heads."""
    mlp_ratio: PositiveInt = 4
    """Width of an MLP's hidden layer over the width of the tokens."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Conditioner":
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        if min(self.image_size, self.trained_size) < self.patch_size:
            raise ValueError(f"image_size and trained_size must be at least patch_size = {self.patch_size}")
        return self
