"""Sizes of the networks of the ``kolors`` system, and the same as diffusers' classes want to be told. No torch here."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from ablation.settings import Depth, Size, Strict

Levels = Field(min_length=2, max_length=16)
Sizes = Annotated[tuple[Size, ...], Levels]
TIME_IDS = 6  # SDXL's: size of the picture, where the crop begins, size of the crop
TRAIN_STEPS = 1100
"""Diffusion steps of Kolors' schedule."""


class UNet(Strict):
    """Sizes of the denoising network, an SDXL; the defaults are those of the released Kolors."""

    channels: Sizes = (320, 640, 1280)
    """Channels of each level, the finest first."""
    transformers: Annotated[tuple[Annotated[int, Field(ge=0, le=1000)], ...], Levels] = (0, 2, 10)
    """Transformer blocks after each ResNet block of a level; none: a level without attention."""
    heads: Sizes = (5, 10, 20)
    """Attention heads of each level."""
    layers: Depth = 2
    """ResNet blocks of a level on the way down; on the way up there is one more."""
    cross_dim: Size = 2048
    """Width of the prompt where it is attended to."""
    time_id_dim: Size = 256
    """Width of each of the six numbers on size and crop."""
    latents: Size = 4
    """Channels of the latents."""
    factor: Size = 8
    """Side of a latent cell in pixels: what the autoencoder makes of pictures."""
    groups: Size = 32
    """Groups of a group norm."""

    @model_validator(mode="after")
    def _fits_together(self) -> "UNet":
        if not len(self.channels) == len(self.transformers) == len(self.heads):
            raise ValueError("channels, transformers and heads need an entry a level each")
        if not self.transformers[-1]:
            raise ValueError("transformers: the last level must have some, as the middle of the network is like it")
        for channels, heads in zip(self.channels, self.heads, strict=True):
            if channels % heads or channels % self.groups:
                raise ValueError(
                    f"channels = {channels} must be a multiple of its heads = {heads} and of groups = {self.groups}"
                )
        return self

    def config(self, text_dim: int) -> dict[str, Any]:
        """For ``UNet2DConditionModel``, which calls the number of heads ``attention_head_dim``; ``text_dim`` of the prompt."""
        attends = [bool(blocks) for blocks in self.transformers]
        return {
            "in_channels": self.latents,
            "out_channels": self.latents,
            "block_out_channels": list(self.channels),
            "layers_per_block": self.layers,
            "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends],
            "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
            "transformer_layers_per_block": [blocks or 1 for blocks in self.transformers],
            "attention_head_dim": list(self.heads),
            "cross_attention_dim": self.cross_dim,
            "norm_num_groups": self.groups,
            "use_linear_projection": True,
            "encoder_hid_dim": text_dim,
            "encoder_hid_dim_type": "text_proj",
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": self.time_id_dim,
            "projection_class_embeddings_input_dim": text_dim + TIME_IDS * self.time_id_dim,
        }


class TextEncoder(Strict):
    """Sizes of the language model that reads prompts; the defaults are those of ChatGLM3-6B-base."""

    layers: Depth = 28
    """Transformer blocks."""
    dim: Size = 4096
    """Width of the states."""
    ffn: Size = 13696
    """Width within an MLP."""
    heads: Size = 32
    """Attention heads."""
    groups: Size = 2
    """Heads of keys and values."""
    head_dim: Annotated[int, Field(ge=4, multiple_of=4)] = 128
    """Width of a head."""
    vocabulary: Size = 65024
    """Rows of the table of words."""
    positions: Size = 2048
    """Positions that are computed; no parameter depends on it."""

    @model_validator(mode="after")
    def _fits_together(self) -> "TextEncoder":
        if self.heads % self.groups:
            raise ValueError(f"groups = {self.groups} does not divide heads = {self.heads}")
        return self

    def config(self) -> dict[str, Any]:
        """For ``ChatGLMConfig``."""
        return {
            "num_layers": self.layers,
            "hidden_size": self.dim,
            "ffn_hidden_size": self.ffn,
            "num_attention_heads": self.heads,
            "multi_query_attention": True,
            "multi_query_group_num": self.groups,
            "kv_channels": self.head_dim,
            "padded_vocab_size": self.vocabulary,
            "seq_length": self.positions,
            "add_qkv_bias": True,
            "original_rope": True,
        }


class Adapter(Strict):
    """Sizes of the layout adapter, which is trained; at the defaults it has about 50M parameters."""

    dim: Size = 512
    """Width of an object's token."""
    bottleneck: Size = 192
    """Width of the attention that is added to each of the UNet's, all heads together."""
    heads: Size = 3
    """Its heads."""
    frequencies: Size = 8
    """Sines and cosines of each side of a box."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Adapter":
        if self.bottleneck % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide bottleneck = {self.bottleneck}")
        return self


class Mapper(Strict):
    """Sizes of the transformer from [IMG] tokens to the states of a caption; the defaults are GILL's."""

    dim: Size = 512
    """Width of its tokens."""
    depth: Depth = 4
    """Blocks of the encoder, and of the decoder."""
    heads: Size = 4
    """Attention heads."""
    ffn: Size = 2048
    """Width within an MLP."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Mapper":
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        return self


class Heads(Strict):
    """What the three objectives need beside the frozen networks, trained with the adapter; the defaults are GILL's."""

    features: Size = 512
    """Width to which the UNet's features of a picture are brought."""
    feature_step: Annotated[int, Field(ge=0, lt=TRAIN_STEPS)] = 100
    """Diffusion step whose noise the features are taken at."""
    visual: Size = 4
    """Tokens that show the language model a picture."""
    images: Size = 8
    """[IMG] tokens, with which the language model speaks of a picture."""
    retrieval: Size = 256
    """Width in which captions and pictures are compared."""
    mapper: Mapper = Mapper()
    """From [IMG] tokens to the states of a caption."""


class Architecture(Strict):
    """Sizes of all networks; left out, those of the released Kolors."""

    unet: UNet = UNet()
    """The denoising network; frozen."""
    text_encoder: TextEncoder = TextEncoder()
    """The language model; frozen."""
    adapter: Adapter = Adapter()
    """The layout adapter."""
    heads: Heads = Heads()
    """The heads of the objectives."""
