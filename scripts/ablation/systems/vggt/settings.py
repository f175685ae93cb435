"""The settings of the ``vggt`` system: data, model, loss, evaluation."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from ablation.parts import Part
from ablation.patterns import touches
from ablation.settings import Depth, Fraction, Hub, Metric, Name, Place, Settings, Size, Strict

PHOTO_SCENES = ("motorcycle", "library", "studio", "parlour", "gallery")


class Transformer(Strict):
    """A stack of transformer blocks."""

    depth: Depth
    """Blocks."""
    heads: Size
    """Attention heads."""
    mlp_ratio: PositiveFloat = 4.0
    """Width of the MLP over the width of the tokens."""


class Dpt(Strict):
    """The dense heads."""

    features: Size = 256
    """Channels of the fused maps."""
    channels: tuple[Size, Size, Size, Size] = (256, 512, 1024, 1024)
    """Channels of the four levels, fine to coarse; multiples of 4."""
    layers: tuple[int, int, int, int] = (4, 11, 17, 23)
    """Aggregator depths that feed the four levels."""

    @field_validator("channels")
    @classmethod
    def _fours(cls, channels: tuple[int, ...]) -> tuple[int, ...]:
        if any(c % 4 for c in channels):
            raise ValueError("every number of channels must be a multiple of 4 (sines and cosines of two axes)")
        return channels


class Architecture(Strict):
    """Sizes of VGGT; the defaults are those of the released VGGT-1B."""

    image_size: Size = 518
    """Side of the square image that the position table is for, in pixels."""
    patch_size: Size = 14
    """Side of a patch, in pixels."""
    embed_dim: Size = 1024
    """Width of the tokens."""
    depth: Depth = 24
    """Pairs of frame and global blocks."""
    heads: Size = 16
    """Attention heads of the aggregator."""
    mlp_ratio: PositiveFloat = 4.0
    """Width of the aggregator's MLPs over the width of its tokens."""
    registers: Size = 4
    """Register tokens a frame."""
    qk_norm: bool = True
    """LayerNorm on queries and keys."""
    rope_base: PositiveFloat = 100.0
    """Base of the rotary position embedding."""
    layer_scale: PositiveFloat = 0.01
    """Initial gain of the residual branches."""
    vit: Transformer = Transformer(depth=24, heads=16)
    """The DINOv2 trunk."""
    camera: Transformer = Transformer(depth=4, heads=16)
    """The camera head's trunk, twice as wide as the tokens."""
    dpt: Dpt = Dpt()
    """The depth and point heads."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Architecture":
        for name, width, heads in (
            ("heads", self.embed_dim, self.heads),
            ("vit.heads", self.embed_dim, self.vit.heads),
            ("camera.heads", 2 * self.embed_dim, self.camera.heads),
        ):
            if width % heads:
                raise ValueError(f"{name} = {heads} does not divide the width {width}")
        if (self.embed_dim // self.heads) % 4:
            raise ValueError(f"embed_dim / heads = {self.embed_dim // self.heads} must be a multiple of 4 (rotary halves)")
        if not all(0 <= layer < self.depth for layer in self.dpt.layers):
            raise ValueError(f"dpt.layers = {list(self.dpt.layers)} must lie in 0 .. {self.depth - 1} (depth = {self.depth})")
        return self


class Model(Strict):
    """The network and its pretrained weights."""

    weights: Place = "models/VGGT-1B/model.safetensors"
    """The released model.safetensors or model.pt, or weights of the same names."""
    architecture: Architecture = Architecture()
    """Sizes of the network; left out, those of VGGT-1B."""


class Split(Strict):
    """What is trained on and what is kept for evaluation."""

    by: Literal["image", "scene"] = "image"
    """image: the last images of every scene are kept; scene: whole scenes are."""
    train: Annotated[float, Field(gt=0, lt=1)] = 0.85
    """Share of images (or scenes) trained on."""
    test: tuple[Name, ...] = ()
    """With `by: scene`, the scenes to keep; left out, the last ones of the list."""


class Augment(Strict):
    """Random changes of the training images; the same for all frames of a sequence where geometry demands it."""

    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest share of the image's sides that a random crop keeps; it stays centred on the principal point."""
    aspect: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative stretch of one side of the crop against the other."""
    mirror: Fraction = 0.0
    """Probability of mirroring a whole sequence, scene and cameras with it."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Strength of the colour jitter: brightness, contrast, saturation."""
    grey: Fraction = 0.0
    """Probability of a grey image."""


class Data(Strict):
    """Scenes in the layout of ETH3D's high-resolution multi-view set, and how they become sequences."""

    source: Literal["eth3d", "photos"] = "eth3d"
    """eth3d: scenes under `root`; photos: the demo's scenes, made by the workflow from real photographs."""
    root: Place = "data/eth3d"
    """Folder of the scenes (source eth3d)."""
    scenes: Annotated[tuple[Name, ...], Field(min_length=1)] = (
        "facade",
        "electro",
        "office",
        "terrace",
        "delivery_area",
    )
    """Names of the scenes."""
    resolution: tuple[PositiveInt, PositiveInt] = (518, 518)
    """Height and width of the images, in pixels; multiples of the patch size."""
    multi_scale: tuple[PositiveInt, ...] = ()
    """Widths to train at, one an optimizer step at random; heights follow. Left out, all batches have `resolution`."""
    fit: Literal["crop", "stretch"] = "crop"
    """crop: keep the aspect ratio and cut around the principal point; stretch: resize both sides to fit."""
    depth_range: tuple[PositiveFloat, PositiveFloat] = (0.1, 100.0)
    """Depths outside are invalid, in metres, or in the unit of `scale`."""
    scale: Annotated[Literal["metric", "median"], Field(exclude_if=lambda value: value == "metric")] = "metric"
    """metric: models are in metres; median: all lengths of a scene are divided by its median depth, the unit of errors, too."""
    target: Literal["sparse", "dense", "laser"] = "sparse"
    """Depth to train on: the COLMAP points, the same densified by interpolation, or the laser scan."""
    split: Split = Split()
    """Training and evaluation."""
    frames: PositiveInt = 8
    """Images a sequence."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a sequence's images that the next one repeats."""
    augment: Augment = Augment()
    """Random changes of the training images."""

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        if len(set(self.scenes)) < len(self.scenes):
            raise ValueError("a scene stands twice in scenes")
        if self.depth_range[0] >= self.depth_range[1]:
            raise ValueError(f"depth_range {list(self.depth_range)} must rise")
        if unknown := [s for s in self.scenes if s not in PHOTO_SCENES] if self.source == "photos" else []:
            raise ValueError(f"scenes: {', '.join(unknown)} is no scene of source photos (there are {', '.join(PHOTO_SCENES)})")
        if unknown := [s for s in self.split.test if s not in self.scenes]:
            raise ValueError(f"split.test: {', '.join(unknown)} is not in scenes ({', '.join(self.scenes)})")
        if self.split.by == "scene" and not self.train_scenes:
            raise ValueError("split by scene leaves no scene to train on; name more scenes")
        return self

    @property
    def test_scenes(self) -> tuple[str, ...]:
        """The scenes kept for evaluation when the split is by scene."""
        count = max(1, round(len(self.scenes) * (1 - self.split.train)))
        return self.split.test or self.scenes[-count:]

    @property
    def train_scenes(self) -> tuple[str, ...]:
        """The scenes trained on when the split is by scene."""
        return tuple(scene for scene in self.scenes if scene not in self.test_scenes)

    @property
    def unit(self) -> str:
        """Of depths and their errors."""
        return "m" if self.scale == "metric" else "median depths"

    def sizes(self, patch: int) -> list[tuple[int, int]]:
        """All (height, width) trained at."""
        height, width = self.resolution
        return [(round(height * w / width / patch) * patch, w) for w in self.multi_scale] or [self.resolution]


class Loss(Strict):
    """Weights of the training objective."""

    camera: NonNegativeFloat = 2.0
    """Camera encoding, L1."""
    conf: NonNegativeFloat = 5.0
    """Depth error weighted by the predicted confidence."""
    reg: NonNegativeFloat = 5.0
    """Depth error."""
    grad: NonNegativeFloat = 5.0
    """Difference of depth gradients."""
    quantile: Annotated[float, Field(gt=0, le=1)] | None = 0.98
    """Depth errors above this quantile are left out; null keeps all."""
    window_weight: NonNegativeFloat = 0.0
    """Errors in detail regions (windows) count 1 + this times."""


class Evaluation(Strict):
    """How the trained model is judged."""

    alignment: Literal["median", "least_squares", "none"] = "median"
    """One scale a sequence, from the prediction to the unit of the data: ratio of medians, least squares, or none."""
    pictures: Annotated[int, Field(ge=0)] = 4
    """Views whose prediction is saved as a picture."""


class SystemSettings(Settings):
    """VGGT with LoRA on ETH3D."""

    networks: ClassVar[tuple[str, ...]] = ("aggregator", "camera_head", "depth_head", "point_head")

    system: Literal["vggt"]
    """VGGT: cameras and depth of a scene from its images."""
    data: Data = Data()
    """Scenes and sequences."""
    model: Model = Model()
    """Network and weights."""
    loss: Loss = Loss()
    """Training objective."""
    evaluation: Evaluation = Evaluation()
    """How the trained model is judged."""

    @model_validator(mode="after")
    def _whole_patches(self) -> "SystemSettings":
        patch = self.model.architecture.patch_size
        for key, sides in (("resolution", self.data.resolution), ("multi_scale", self.data.multi_scale)):
            if wrong := [side for side in sides if side % patch]:
                near = ", ".join(str(max(1, round(side / patch)) * patch) for side in wrong)
                raise ValueError(
                    f"data.{key}: {', '.join(map(str, wrong))} is no multiple of the patch size {patch}; nearest: {near}"
                )
        return self

    def objective(self, trained: Sequence[str]) -> int:
        """2 where the camera's loss trains anything: in 1 it went backward through earlier refinements, too."""
        return 2 if any(touches(name, pattern) for name in ("aggregator", "camera_head") for pattern in trained) else 1

    def prefix_cut(self, trained: Sequence[str]) -> int | None:
        """Depths of the aggregator before all that is trained; 0: the trunk alone, None: that is trained, too."""
        depths = self.model.architecture.depth

        def reached(*names: str) -> bool:
            return any(touches(f"aggregator.{name}", pattern) for name in names for pattern in trained)

        if reached("patch_embed"):
            return None
        return next((d for d in range(depths) if reached(f"frame_blocks.{d}", f"global_blocks.{d}")), depths)

    def weight_files(self) -> dict[str, str]:
        """Pretrained weights that a run reads: what for -> path."""
        return {"weights": self.model.weights}

    def hub(self) -> Hub:
        """What the cards of the trained models say of the family."""
        return Hub("depth-estimation", {"facebook/VGGT-1B": "non-commercial use only"})

    def metrics(self) -> list[Metric]:
        """Depth first, then where it counts, then the cameras."""
        unit = self.data.unit
        return [
            Metric("depth_mae", "depth MAE", unit, True, 3),
            Metric("depth_mae_planar", "MAE, planar", unit, True, 3),
            Metric("depth_mae_detail", "MAE, detail", unit, True, 3),
            Metric("depth_absrel", "AbsRel", "", True, 3),
            Metric("depth_rmse", "RMSE", unit, True, 3),
            Metric("depth_delta1", "δ < 1.25", "", False, 3),
            Metric("pose_auc30", "pose AUC@30°", "", False, 3),
        ]

    def pictured(self) -> str:
        """What one sees in the pictures of an evaluation."""
        return "Held-out views: image, prediction, truth, error. All rows of a view share their colour scales."

    def facts(self) -> dict[str, Callable[..., float | None]]:
        """The photographs of a scene, or of all."""
        return {"images": self._images}

    def _images(self, scene: str | None = None) -> int | None:
        """Photographs of a scene of ETH3D, or of all the study's; the distorted and the undistorted ones are the same."""
        scenes = self.data.scenes if scene is None else (scene,)
        if self.data.source != "eth3d" or not set(scenes) <= set(self.data.scenes):
            return None
        folders = [[*Path(self.data.root, name, "images").glob("*/")] for name in scenes]
        return sum(max(len([*one.iterdir()]) for one in found) for found in folders) if all(folders) else None

    def outside(self) -> list[str]:
        """The weights and the scenes of ETH3D."""
        scenes = [f"{self.data.root}/{scene}" for scene in self.data.scenes] if self.data.source == "eth3d" else []
        return [*super().outside(), *scenes]

    def parts(self) -> list[Part]:
        """The prepared scenes, in the order of ``data.scenes``."""
        data, patch = self.data, self.model.architecture.patch_size
        largest = max([data.resolution, *data.sizes(patch)])
        how = {
            "size": list(largest),
            "fit": data.fit,
            "depth_range": list(data.depth_range),
            "dense": data.target == "dense",
            **({} if data.scale == "metric" else {"scale": data.scale}),
        }
        if data.source == "eth3d":
            root = str(PurePosixPath(data.root))
            return [Part("scene", name, {**how, "root": root}) for name in data.scenes]
        return [Part("scene", name, how, needs=(Part("capture", name, {}),)) for name in data.scenes]
