"""The settings of the ``kolors`` system: layouts, networks, evaluation."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablation.parts import Part
from ablation.settings import Hub, Metric, Place, Settings, Strict
from ablation.systems.kolors.architecture import Architecture
from ablation.systems.kolors.data.settings import Data

FROZEN = ("unet", "text_encoder")
"""The networks that are read from the weights' folder."""

COUNTED = (*FROZEN, "adapter", "heads")
"""The networks whose parameters a claim can be about."""

GB_HELD = 2 / 1e9  # of a parameter in bf16 or fp16


class Model(Strict):
    """The networks and the pretrained weights of those that are frozen."""

    weights: Place = "models/Kolors-diffusers"
    """Folder in diffusers' layout, with unet, text_encoder, tokenizer and vae."""
    architecture: Architecture = Architecture()
    """Sizes of the networks; left out, those of the released Kolors."""

    def folder(self, name: str) -> str:
        """Where a part of the weights lies."""
        return f"{self.weights}/{name}"


class Weights(Strict):
    """What each objective's loss counts. It matters to what several of them train, the adapter above all."""

    captioning: PositiveFloat = 1.0
    """Words of a caption after its picture."""
    retrieval: PositiveFloat = 1.0
    """Captions and pictures that find each other."""
    generation: PositiveFloat = 1.0
    """Denoising with the layout. The gradient that reaches the adapter from here is far smaller than from the others."""


class Evaluation(Strict):
    """How the trained model is judged, on held-out layouts."""

    samples: PositiveInt = 256
    """Held-out layouts, the first ones; retrieval is among them."""
    batch: PositiveInt = 4
    """Layouts at once."""
    noise_levels: PositiveInt = 4
    """Diffusion steps, evenly spread, over which the error of the denoised latents is the mean."""
    pictures: NonNegativeInt = 16
    """Layouts, the first ones, of which a picture is generated and judged."""
    steps: PositiveInt = 50
    """Denoising steps of a generated picture."""
    guidance: Annotated[float, Field(ge=1)] = 5.0
    """Classifier-free guidance; 1: none."""


class SystemSettings(Settings):
    """Kolors with a layout adapter, trained on captioned pictures with boxes."""

    networks: ClassVar[tuple[str, ...]] = ("unet", "text_encoder", "adapter", "heads")

    system: Literal["kolors"]
    """Kolors: pictures from a text and a layout of boxes."""
    data: Data = Data()
    """Pictures, captions, boxes."""
    model: Model = Model()
    """Networks and weights."""
    objectives: Weights = Weights()
    """The three objectives of a step."""
    evaluation: Evaluation = Evaluation()
    """How the trained model is judged."""

    @model_validator(mode="after")
    def _fits_together(self) -> "SystemSettings":
        unet, heads, text = (getattr(self.model.architecture, name) for name in ("unet", "heads", "text_encoder"))
        coarsest = unet.factor * 2 ** (len(unet.channels) - 1)
        if self.data.resolution % coarsest:
            raise ValueError(
                f"data.resolution = {self.data.resolution} must be a multiple of {coarsest}, the coarsest cell of the UNet"
            )
        longest = self.data.text_length + max(heads.visual, heads.images)
        if longest > text.positions:
            raise ValueError(
                f"model.architecture.text_encoder.positions = {text.positions} is less than {longest}, a caption of"
                " data.text_length with visual or [IMG] tokens"
            )
        return self

    def weight_files(self) -> dict[str, str]:
        """The folders of the frozen networks."""
        return {name: self.model.folder(name) for name in FROZEN}

    def hub(self) -> Hub:
        """What the cards of the trained models say of the family."""
        licence = "free for research, commercial use by registration with its authors"
        return Hub("text-to-image", {"Kwai-Kolors/Kolors-diffusers": licence})

    def metrics(self) -> list[Metric]:
        """Denoising where the layout says something, and where it does not; then the other two objectives."""
        return [
            Metric("denoise_inside", "denoising error in boxes", "", True, 4),
            Metric("denoise_outside", "denoising error outside", "", True, 4),
            *([Metric("label_accuracy", "boxes with the right object", "", False, 2)] if self.evaluation.pictures else []),
            Metric("caption_loss", "caption loss", "", True, 3),
            Metric("retrieval_r1_t2i", "R@1 caption to picture", "", False, 3),
            Metric("retrieval_r1_i2t", "R@1 picture to caption", "", False, 3),
        ]

    def pictured(self) -> str:
        """What one sees in the pictures of an evaluation."""
        return "Held-out layouts, the true pictures, and pictures generated from one noise without and with the layout."

    def facts(self) -> dict[str, Callable[..., float | None]]:
        """Parameters of each network, and the GB that they take in two bytes each; in the demo, of the released ones."""
        params = {f"{name}_params": partial(self._params, name) for name in COUNTED}
        return {**params, **{f"{name}_gb": partial(self._held, name) for name in COUNTED}}

    def _params(self, name: str) -> float:
        from ablation.systems.kolors.network import count_parameters  # torch: not for Snakemake's reading

        own = self.scale == "full"
        sizes, length = (self.model.architecture, self.data.text_length) if own else (Architecture(), Data().text_length)
        return count_parameters(sizes, length)[name]

    def _held(self, name: str) -> float:
        return self._params(name) * GB_HELD

    def outside(self) -> list[str]:
        """Weights, tokenizer and autoencoder, and what the layouts are made from."""
        return [*super().outside(), self.model.folder("tokenizer"), self.model.folder("vae"), *self.data.outside()]

    def parts(self) -> list[Part]:
        """The layouts, then the latents of their pictures."""
        return self.data.parts(self.model.folder("vae"), {"demo": 4, "full": 32}[self.scale])
