"""The settings of the ``rdt`` system: the network and the data."""

from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from ablation.settings import Fraction, Strict


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


Camera = Literal["cam_high", "cam_right_wrist", "cam_left_wrist"]
CAMERAS: tuple[Camera, ...] = get_args(Camera)
"""ALOHA's cameras in the order of the network's image tokens: exterior, right wrist, left wrist."""

Byte = Annotated[int, Field(ge=0, le=255)]


class Augment(Strict):
    """Random changes of a training image; the strengths are those of the release."""

    share: Fraction = 0.5
    """Share of the images that are changed: a third of them in colour, a third by noise and blur, a third by both."""
    brightness: Fraction = 0.3
    """Factor from 1 - this to 1 + this."""
    contrast: Fraction = 0.4
    """Factor from 1 - this to 1 + this."""
    saturation: Fraction = 0.5
    """Factor from 1 - this to 1 + this."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Largest turn of the hue, in turns."""
    noise: Fraction = 0.05
    """Largest standard deviation of the noise; white is 1."""
    blur: NonNegativeFloat = 3.0
    """Largest standard deviation of the blur, in pixels of the network's image; half of the images stay sharp."""


class Data(Strict):
    """Episodes of an ALOHA robot as HDF5 files, and how their steps become samples."""

    root: str = "data/rdt"
    """Folder of the episodes (*.hdf5, also in folders below)."""
    bad: Literal["skip", "refuse"] = "refuse"
    """What to do about corrupt and short episodes: leave them out and say so, or stop."""
    min_steps: PositiveInt = 128
    """Shorter episodes are bad."""
    still: NonNegativeFloat = 1e-2
    """Steps before the first joint has moved by more than this (rad; grippers as recorded) are left out."""
    arms: Literal[1, 2] = 2
    """Arms of the robot; a single one uses the slots of the right one."""
    cameras: tuple[Camera, ...] = CAMERAS
    """Cameras of the robot; the network sees `background` for those that it lacks."""
    jpeg: Literal["bgr", "rgb"] = "bgr"
    """Order of the colours in the JPEG files; ALOHA's recorder hands RGB to OpenCV, which takes it for BGR and swaps it."""
    image_size: PositiveInt = 384
    """Side of the network's square images, in pixels."""
    background: tuple[Byte, Byte, Byte] = (127, 127, 127)
    """Colour (RGB) of borders and of images that are not there: the mean of SigLIP's training images."""
    frequency: PositiveInt = 25
    """Control frequency of the robot, in Hz."""
    noise_snr: float | None = 40.0
    """Signal-to-noise ratio of the states, in dB, against their standard deviation; null: no noise."""
    dropout: Fraction = 0.1
    """Probability with which each condition (frequency, state, mask, each image, text) is hidden."""
    augment: Augment = Augment()
    """Random changes of the training images."""
