"""The settings of the ``rdt`` system: the network."""

from pydantic import PositiveInt, model_validator

from ablation.settings import Strict


class Adaptors(Strict):
    """Linear layers, GELU between them, that bring each kind of token to the width of the network."""

    lang: PositiveInt = 2
    """Layers for language tokens."""
    img: PositiveInt = 2
    """Layers for image tokens."""
    state: PositiveInt = 3
    """Layers for states and actions."""


class Images(Strict):
    """The image tokens of one sample, in this order: time, older first, then camera, then patch."""

    history: PositiveInt = 2
    """Points in time."""
    cameras: PositiveInt = 3
    """Cameras: exterior, right wrist, left wrist."""
    patches: PositiveInt = 729
    """Tokens of one image; SigLIP so400m/14 at 384 x 384 gives 27 x 27."""

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.history * self.cameras * self.patches


class Architecture(Strict):
    """Sizes of RDT; the defaults are those of the released RDT-1B."""

    hidden_size: PositiveInt = 2048
    """Width of the tokens."""
    depth: PositiveInt = 28
    """Blocks; even ones attend to the language, odd ones to the images."""
    heads: PositiveInt = 32
    """Attention heads."""
    action_dim: PositiveInt = 128
    """Entries of a state or an action: the unified vector of all robots."""
    horizon: PositiveInt = 64
    """Actions predicted at once."""
    lang_dim: PositiveInt = 4096
    """Width of the language tokens (T5 v1.1-xxl)."""
    lang_length: PositiveInt = 1024
    """Most language tokens."""
    img_dim: PositiveInt = 1152
    """Width of the image tokens (SigLIP so400m)."""
    images: Images = Images()
    """The image tokens."""
    adaptors: Adaptors = Adaptors()
    """The layers before the network."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Architecture":
        if self.hidden_size % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide hidden_size = {self.hidden_size}")
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size = {self.hidden_size} must be a multiple of 4 (sines and cosines of two halves)")
        if self.hidden_size == self.heads:
            raise ValueError("hidden_size / heads = 1: the norm of queries and keys needs two entries or more")
        return self
