"""The settings of the ``hunyuan3d`` system: data, networks, evaluation."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ablation.errors import UserError
from ablation.parts import Part
from ablation.settings import Depth, Hub, Metric, Name, Place, Settings, Size, Strict
from ablation.systems.hunyuan3d.tokens import check_tokens, token_count

Count = Annotated[int, Field(ge=0)]
POINT_FEATURES = 4  # that the data knows of a surface point: its normal, and whether it lies on a sharp edge


class Architecture(Strict):
    """Sizes of Hunyuan3D's shape transformer; the defaults are those of the released Hunyuan3D-2.1."""

    latents: Size = 4096
    """Latent tokens of a shape; no parameter depends on it."""
    channels: Size = 64
    """Channels of a latent token."""
    condition_tokens: Size = 1370
    """Tokens that describe the image: 37 x 37 patches and a class token; no parameter depends on it."""
    condition_dim: Size = 1024
    """Width of the image's tokens."""
    dim: Size = 2048
    """Width of the transformer's tokens."""
    depth: Depth = 21
    """Blocks; those after the middle one take the outputs of those before it."""
    heads: Size = 16
    """Attention heads."""
    qk_norm: bool = True
    """RMSNorm on queries and keys."""
    qkv_bias: bool = False
    """Biases in the projections to queries, keys and values."""
    moe_layers: Count = 6
    """Last blocks with a mixture of experts in place of the MLP."""
    experts: Size = 8
    """Routed experts of a mixture; one more sees every token."""
    experts_per_token: Size = 2
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

    features: Count = 4
    """Numbers a point beside its place: the normal, and whether it lies on a sharp edge."""
    frequencies: Size = 8
    """Octaves of the sines and cosines of a place."""
    latents: Size = 4096
    """Latent tokens of a shape; no parameter depends on it."""
    channels: Size = 64
    """Channels of a latent token."""
    dim: Size = 1024
    """Width of the transformers' tokens."""
    heads: Size = 16
    """Attention heads."""
    encoder_depth: Depth = 8
    """Self-attention blocks after the points were taken in."""
    decoder_depth: Depth = 16
    """Self-attention blocks before the field is asked for."""
    scale: PositiveFloat = 1.0039506158752403
    """The transformer's latents over the autoencoder's."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Autoencoder":
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        return self


class Conditioner(Strict):
    """Sizes of the network that describes the image, a DINOv2; the defaults are those of the released Hunyuan3D-2.1."""

    image_size: Size = 518
    """Side of the square image in pixels; with ``patch_size``, it makes the number of condition tokens (``tokens.py``)."""
    patch_size: Size = 14
    """Side of a patch in pixels."""
    trained_size: Size = 518
    """Image side that the table of positions is made for; for another, it is interpolated."""
    dim: Size = 1024
    """Width of the tokens."""
    depth: Depth = 24
    """Blocks."""
    heads: Size = 16
    """Attention heads."""
    mlp_ratio: Size = 4
    """Width of an MLP's hidden layer over the width of the tokens."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Conditioner":
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        if min(self.image_size, self.trained_size) < self.patch_size:
            raise ValueError(f"image_size and trained_size must be at least patch_size = {self.patch_size}")
        return self


class Model(Strict):
    """The three networks and their pretrained weights."""

    weights: Place = "models/Hunyuan3D-2.1/hunyuan3d-dit-v2-1/model.fp16.ckpt"
    """The released model.fp16.ckpt, or a file of the same names: transformer, autoencoder and image encoder."""
    architecture: Architecture = Architecture()
    """The shape transformer, which is fine-tuned; left out, the released one."""
    autoencoder: Autoencoder = Autoencoder()
    """The autoencoder of shapes; stays as it is."""
    conditioner: Conditioner = Conditioner()
    """The image encoder; stays as it is."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Model":
        transformer, shapes, image = self.architecture, self.autoencoder, self.conditioner
        for ours, one, theirs, other in (
            ("architecture.latents", transformer.latents, "autoencoder.latents", shapes.latents),
            ("architecture.channels", transformer.channels, "autoencoder.channels", shapes.channels),
            ("architecture.condition_dim", transformer.condition_dim, "conditioner.dim", image.dim),
        ):
            if one != other:
                raise ValueError(f"{ours} = {one} and {theirs} = {other} must be the same")
        try:
            check_tokens(image.image_size, transformer.condition_tokens, image.patch_size)
        except UserError as error:
            raise ValueError(str(error)) from None
        return self


class Split(Strict):
    """What is trained on and what is kept for evaluation."""

    by: Literal["shape", "view"] = "shape"
    """shape: whole shapes are kept; view: the last views of every shape are."""
    train: Annotated[float, Field(gt=0, lt=1)] = 0.85
    """Share of shapes (or of each shape's views) trained on."""
    test: tuple[Name, ...] = ()
    """With `by: shape`, the shapes to keep; left out, the last ones of the list."""


class FromMeshes(Strict):
    """What is made of a mesh (source meshes); the defaults are what the release has of a shape."""

    points: PositiveInt = 124_928
    """Points on the surface, and as many on its sharp edges."""
    distances: PositiveInt = 124_928
    """Places with known distance in each region: anywhere, near the surface, near sharp edges."""
    views: Annotated[int, Field(ge=2)] = 24
    """Pictures from all around."""
    size: Annotated[int, Field(ge=16)] = 512
    """Side of a picture, in pixels."""


FRAME = 2
"""Of prepared shapes from the release's layout; 1 took their box and the sign of their distances as they were."""


class Data(Strict):
    """Shapes with their surfaces, distances and pictures, and what a sample holds of them."""

    source: Literal["released", "meshes"] = "released"
    """released: shapes in the layout of the release, in `root`; meshes: made from watertight meshes NAME.ply in `root`."""
    root: Place = "data/hunyuan3d"
    """Folder of the shapes."""
    shapes: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Names (uids) of the shapes."""
    points: PositiveInt = 8192
    """Surface points that a shape is encoded from (`pc_size`)."""
    sharp_points: Count = 0
    """Points on sharp edges beside them (`pc_sharpedge_size`)."""
    split: Split = Split()
    """Training and evaluation."""
    from_meshes: FromMeshes = FromMeshes()
    """What is made of a mesh (source meshes)."""

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        if len(set(self.shapes)) < len(self.shapes):
            raise ValueError("a shape stands twice in shapes")
        if unknown := [shape for shape in self.split.test if shape not in self.shapes]:
            raise ValueError(f"split.test: {', '.join(unknown)} is not in shapes ({', '.join(self.shapes)})")
        if self.split.by == "shape" and not self.train_shapes:
            raise ValueError("split by shape leaves no shape to train on; name more shapes, or split by view")
        if self.source == "meshes" and max(self.points, self.sharp_points) > self.from_meshes.points:
            raise ValueError(
                f"points = {self.points} and sharp_points = {self.sharp_points} must not exceed"
                f" from_meshes.points = {self.from_meshes.points}, of which they are picked"
            )
        return self

    @property
    def test_shapes(self) -> tuple[str, ...]:
        """The shapes kept for evaluation when the split is by shape."""
        count = max(1, round(len(self.shapes) * (1 - self.split.train)))
        return self.split.test or self.shapes[-count:]

    @property
    def train_shapes(self) -> tuple[str, ...]:
        """The shapes trained on when the split is by shape."""
        return tuple(shape for shape in self.shapes if shape not in self.test_shapes)


class Evaluation(Strict):
    """How the trained model is judged: shapes are sampled from held-out pictures."""

    views: PositiveInt = 1
    """Held-out pictures of each shape that a shape is sampled from."""
    steps: Annotated[int, Field(ge=2)] = 50
    """Predictions a sample, the last of which changes nothing, as released."""
    guidance: Annotated[float, Field(ge=0)] = 5.0
    """Classifier-free guidance; 1: none."""
    resolution: Annotated[int, Field(ge=8)] = 384
    """Cells along each axis of the grid that the surface is taken from."""
    tau: PositiveFloat = 0.01
    """Distance within which the F-score counts a point as found; shapes lie within [-1, 1]."""
    pictures: Count = 4
    """Sampled shapes of which mesh and picture are saved."""


class SystemSettings(Settings):
    """Hunyuan3D-2.1's shape transformer, fine-tuned."""

    networks: ClassVar[tuple[str, ...]] = ("model", "vae", "conditioner")

    system: Literal["hunyuan3d"]
    """Hunyuan3D-2.1: the shape of a thing from one image."""
    data: Data
    """Shapes."""
    model: Model = Model()
    """Networks and weights."""
    evaluation: Evaluation = Evaluation()
    """How the trained model is judged."""

    @model_validator(mode="after")
    def _fits_together(self) -> "SystemSettings":
        points, shapes = self.data.points + self.data.sharp_points, self.model.autoencoder
        if shapes.latents > points:
            raise ValueError(
                f"model.autoencoder.latents = {shapes.latents} exceeds data.points + data.sharp_points = {points},"
                " of which they are chosen"
            )
        if shapes.features != POINT_FEATURES:
            raise ValueError(
                f"model.autoencoder.features = {shapes.features}, but the data has {POINT_FEATURES} numbers beside a point's"
                " place: its normal, and whether it lies on a sharp edge"
            )
        return self

    def weight_files(self) -> dict[str, str]:
        """Pretrained weights that a run reads: what for -> path."""
        return {"weights": self.model.weights}

    def hub(self) -> Hub:
        """What the cards of the trained models say of the family."""
        licence = "Tencent Hunyuan 3D 2.1 Community, which is not for the EU, the UK and South Korea"
        return Hub("image-to-3d", {"tencent/Hunyuan3D-2.1": licence})

    def metrics(self) -> list[Metric]:
        """Volumes first: that number is defined for an empty mesh, too."""
        return [
            Metric("volume_iou", "volume IoU", "", False, 3),
            Metric("chamfer", "Chamfer distance", "", True, 4),
            Metric("fscore", "F-score", "", False, 3),
            Metric("normal_consistency", "normal consistency", "", False, 3),
            Metric("watertight", "watertight meshes", "", False, 2),
            Metric("empty", "empty meshes", "", True, 2),
        ]

    def pictured(self) -> str:
        """What one sees in the pictures of an evaluation."""
        return "The held-out picture that a shape was sampled from, and another side: the true shape beside the sampled one."

    def facts(self) -> dict[str, Callable[..., float | None]]:
        """The tokens that describe an image."""
        return {"condition_tokens": token_count}

    def outside(self) -> list[str]:
        """The weights, and the shapes as their source has them."""
        return [*super().outside(), *(source_of(self.data, shape) for shape in self.data.shapes)]

    def parts(self) -> list[Part]:
        """The prepared shapes, in the order of ``data.shapes``; both sources end in the released layout."""
        how = {"source": self.data.source, "root": str(PurePosixPath(self.data.root))}
        how |= self.data.from_meshes.model_dump() if self.data.source == "meshes" else {"frame": FRAME}
        return [Part("shape", shape, how) for shape in self.data.shapes]


def source_of(data: Data, shape: str) -> str:
    """The file or folder that ``shape`` comes from."""
    return f"{PurePosixPath(data.root)}/{shape}" + (".ply" if data.source == "meshes" else "")
