"""The settings of the ``dit`` system: images and what is told of them, the networks, the evaluation."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from ablation.parts import Part
from ablation.settings import Depth, Fraction, Hub, Metric, Name, Place, Settings, Size, Strict, Warmup

Count = Annotated[int, Field(ge=0)]
Condition = Literal["class", "caption"]


class Architecture(Strict):
    """Sizes of the transformer; the defaults are those of DiT-XL/2 at 256 pixels (Peebles & Xie, ICCV 2023)."""

    depth: Depth = 28
    """Blocks."""
    heads: Size = 16
    """Attention heads."""
    head_dim: Size = 72
    """Width of a head; heads x head_dim is the width of the tokens."""
    patch: Size = 2
    """Side of a token in the latent image."""
    latent_size: Size = 32
    """Side of the latent image: that of the picture over the autoencoder's factor, 8 as released."""
    latent_channels: Size = 4
    """Channels of the latent image."""
    learn_sigma: bool = True
    """Also predict the variance of a step, as released; it doubles the output's channels and adds a loss."""
    classes: Size = 1000
    """Rows of the table of classes, the one for "no class" aside (condition: class)."""
    text_dim: Size = 4096
    """Width of the text encoder's states (condition: caption)."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Architecture":
        if self.latent_size % self.patch:
            raise ValueError(f"patch = {self.patch} does not divide latent_size = {self.latent_size}")
        if self.width % 4:
            raise ValueError(f"heads x head_dim = {self.width} must be a multiple of 4 (sines and cosines of two axes)")
        return self

    @property
    def width(self) -> int:
        """Of the tokens."""
        return self.heads * self.head_dim


class Model(Strict):
    """The transformer, its pretrained weights if any, and the frozen networks around it."""

    weights: Place | None = None
    """A released transformer: its safetensors or bin file, with config.json beside it; null: from scratch."""
    architecture: Architecture = Architecture()
    """The transformer."""
    autoencoder: Place = "models/DiT-XL-2-256/vae"
    """Folder of the autoencoder (AutoencoderKL of diffusers), which stays as it is."""
    slicing: bool = True
    """The autoencoder takes one image after the other: less memory for more time."""
    text_encoder: Place = "models/t5-v1_1-xxl"
    """Folder of a T5 encoder and its tokenizer, which stays as it is (condition: caption)."""


class Judge(Strict):
    """A small classifier of the same images, trained once, on whose features samples are compared with real images."""

    size: Size = 64
    """Side that images are shrunk to, in pixels."""
    width: Size = 32
    """Channels of its first layer; the features are four times as many."""
    epochs: Size = 20
    """Passes over the training images."""


class Data(Strict):
    """Images with classes or captions, and how they become samples."""

    source: Literal["coco", "folder", "digits"] = "coco"
    """coco: COCO's layout; folder: ROOT/CLASS/IMAGE, or images with captions; digits: handwritten ones."""
    condition: Condition = "class"
    """What the network is told: class (of a COCO image, that of its largest object), or caption."""
    root: Place = "data/coco"
    """Folder of the images, or of digits.csv.gz."""
    part: Name = "train2017"
    """Which part of COCO: ROOT/PART/*.jpg and ROOT/annotations/{instances,captions}_PART.json."""
    samples: PositiveInt = 5000
    """Images at most, evenly spread over their names."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the images that is kept for evaluation, evenly spread."""
    size: Annotated[int, Field(ge=8)] = 256
    """Side of the square images, in pixels."""
    flip: bool = True
    """Half of the training samples are mirrored."""
    crops: Count = 0
    """Random crops of every image beside the central one; a training sample is one of them."""
    dropout: Fraction = 0.1
    """Probability with which a training sample is told nothing, which guidance needs."""
    text_length: PositiveInt = 120
    """Tokens that a caption is cut or padded to (condition: caption)."""
    judge: Judge = Judge()
    """The judge of the samples (condition: class)."""

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        if self.source == "digits" and self.flip:
            raise ValueError("flip: a mirrored digit is no digit; set flip: false with source: digits")
        if self.source == "digits" and self.condition == "caption":
            raise ValueError("condition: caption: the digits have classes alone")
        return self

    @property
    def versions(self) -> int:
        """Of every image in the cache: each crop as it is, and mirrored."""
        return (1 + self.crops) * (2 if self.flip else 1)


class Evaluation(Strict):
    """How the trained model is judged: on samples that it draws, and by its loss on held-out images."""

    samples: Annotated[int, Field(ge=2)] = 500
    """Images that are sampled, of all classes or of held-out captions in turn."""
    batch: PositiveInt = 25
    """Images sampled at once."""
    steps: Annotated[int, Field(ge=2)] = 25
    """Denoising steps of a sample."""
    guidance: Annotated[float, Field(ge=1)] = 4.0
    """Classifier-free guidance; 1: none."""
    rows: PositiveInt = 10
    """Classes, or captions, that the grid of samples shows."""
    columns: PositiveInt = 8
    """Samples of each in the grid."""


class SystemSettings(Settings):
    """A diffusion transformer, trained on images from scratch or from released weights."""

    networks: ClassVar[tuple[str, ...]] = ("embedder", "transformer")
    released_average: ClassVar[Warmup | None] = False

    system: Literal["dit"]
    """DiT (classes) or PixArt-alpha (captions): a transformer that draws images in an autoencoder's latent space."""
    data: Data = Data()
    """Images and samples."""
    model: Model = Model()
    """Networks and weights."""
    evaluation: Evaluation = Evaluation()
    """How the trained model is judged."""

    @model_validator(mode="after")
    def _fits_together(self) -> "SystemSettings":
        if self.data.source == "digits" and self.model.architecture.classes < 10:
            raise ValueError(f"model.architecture.classes = {self.model.architecture.classes}: there are ten digits")
        if self.data.size % self.model.architecture.latent_size:
            raise ValueError(
                f"data.size = {self.data.size} is no multiple of model.architecture.latent_size ="
                f" {self.model.architecture.latent_size}"
            )
        for name, strategy in getattr(self, "strategies", {}).items():  # of a whole study
            if strategy.train.lora is not None and self.model.weights is None:
                raise ValueError(
                    f"strategies.{name}: adapters on random weights learn little; set model.weights, or train full"
                )
        return self

    def objective(self, trained: Sequence[str]) -> int:
        """One more where variances are learned: before, the first step had an exact bound, where the release goes by tanh.

        And one more with classes: the embedding of the time had diffusers' frequencies, not the release's.
        """
        return self.network_version() + self.model.architecture.learn_sigma

    def network_version(self) -> int:
        """2 with classes, since the embedding of the time has the release's frequencies."""
        return 2 if self.data.condition == "class" else 1

    def weight_files(self) -> dict[str, str]:
        """Pretrained weights that a run reads: what for -> path; none from scratch."""
        return {} if self.model.weights is None else {"weights": self.model.weights}

    def hub(self) -> Hub:
        """What the cards of the trained models say of the family."""
        task = "text-to-image" if self.data.condition == "caption" else "unconditional-image-generation"
        return Hub(task, {"facebook/DiT-XL-2-256": "CC BY-NC 4.0", "PixArt-alpha/PixArt-XL-2-256x256": "OpenRAIL++"})

    def metrics(self) -> list[Metric]:
        """What the samples are like, then the loss."""
        loss = Metric("loss", "held-out loss", "", True, 4)
        if self.data.condition == "caption":
            return [Metric("latent_frechet", "Fréchet distance of latents", "", True, 2), loss]
        return [
            Metric("accuracy", "samples of their class", "", False, 3),
            Metric("frechet", "Fréchet distance", "", True, 2),
            loss,
        ]

    def pictured(self) -> str:
        """What one sees in the pictures of an evaluation."""
        return "Samples, a row for what was asked; every model begins from the same noise."

    def outside(self) -> list[str]:
        """Weights, frozen networks, and the folder of the images."""
        encoder = [self.model.text_encoder] if self.data.condition == "caption" else []
        return [
            *super().outside(),
            self.model.autoencoder,
            *encoder,
            self.data.root,
        ]

    def parts(self) -> list[Part]:
        """The images, their latents, and the judge or the captions' states."""
        data, model = self.data, self.model
        memory = {"demo": 2, "full": 32}[self.scale]
        where = {"digits": {"size"}, "folder": set(), "coco": {"part"}}[data.source]
        listed = data.model_dump(mode="json", include={"source", "condition", "samples", *where})
        listed["root"] = str(PurePosixPath(data.root))
        images = Part("images", data.source, listed, mem_gib=memory)
        shown = data.model_dump(mode="json", include={"size", "flip", "crops"})
        cached = {"autoencoder": model.autoencoder, "slicing": model.slicing, "data": {"source": data.source, **shown}}
        latents = Part("latents", data.source, cached, (images,), gpus=1, mem_gib=memory)
        if data.condition == "caption":
            told = Part(
                "text", data.source, {"encoder": model.text_encoder, "case": "lower"}, (images,), gpus=1, mem_gib=memory
            )
        else:
            trained = {"test": data.test, "size": data.size, "judge": data.judge.model_dump()}
            told = Part("judge", data.source, trained, (images,), gpus=1, mem_gib=memory)
        return [images, latents, told]
