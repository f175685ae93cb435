"""The settings of the ``rdt`` system: the network, its frozen encoders, the data, the evaluation."""

from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from ablation.parts import Part
from ablation.settings import Depth, Fraction, Hub, Metric, Place, Settings, Size, Strict, Warmup
from ablation.systems.rdt.robots import ROBOTS, VIEWS, Preset, Robot, View, as_features
from ablation.systems.rdt.simulation.task import FREQUENCY, Side
from ablation.systems.rdt.slots import UNIFIED


class Adaptors(Strict):
    """Linear layers, GELU between them, that bring each kind of token to the width of the network."""

    lang: Depth = 2
    """Layers for language tokens."""
    img: Depth = 2
    """Layers for image tokens."""
    state: Depth = 3
    """Layers for states and actions."""


class Images(Strict):
    """The image tokens of one sample, in this order: time, older first, then camera, then patch."""

    history: Size = 2
    """Points in time."""
    cameras: Size = 3
    """Cameras: exterior, right wrist, left wrist."""
    patches: Size = 729
    """Tokens of one image; SigLIP so400m/14 at 384 x 384 gives 27 x 27."""

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.history * self.cameras * self.patches


class Architecture(Strict):
    """Sizes of RDT; the defaults are those of the released RDT-1B."""

    hidden_size: Size = 2048
    """Width of the tokens."""
    depth: Depth = 28
    """Blocks; even ones attend to the language, odd ones to the images."""
    heads: Size = 32
    """Attention heads."""
    action_dim: Size = 128
    """Entries of a state or an action: the unified vector of all robots."""
    horizon: Size = 64
    """Actions predicted at once."""
    lang_dim: Size = 4096
    """Width of the language tokens (T5 v1.1-xxl)."""
    lang_length: Size = 1024
    """Most language tokens."""
    img_dim: Size = 1152
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


class Encoders(Strict):
    """The frozen networks whose embeddings of instructions and images are cached: folders in the layout of transformers."""

    text: Place = "models/t5-v1_1-xxl"
    """A T5 encoder: config.json, safetensors, and its tokenizer."""
    image: Place = "models/siglip-so400m-patch14-384"
    """A SigLIP image tower, alone or with its text tower: config.json and safetensors."""


class Model(Strict):
    """The network, its pretrained weights, and the encoders before it."""

    weights: Place = "models/rdt-1b/pytorch_model.bin"
    """The released pytorch_model.bin or model.safetensors, or weights of the same names."""
    encoders: Encoders = Encoders()
    """Frozen, and not part of what is trained."""
    architecture: Architecture = Architecture()
    """Sizes of the network; left out, those of RDT-1B."""


Byte = Annotated[int, Field(ge=0, le=255)]


class Augment(Strict):
    """Random changes of a training image; the strengths are those of the release.

    A third of the changed images differ in colour, a third by noise and blur, a third in both.
    """

    share: Fraction = 0.5
    """Share of the images of which a sample sees a changed version."""
    versions: PositiveInt = 1
    """Changed versions of every image in the cache of embeddings; each takes as much disk as the image itself."""
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


class Simulation(Strict):
    """Episodes that the workflow records itself: a scripted robot with one arm, in MuJoCo."""

    side: Side = "home"
    """Where the robot stands and which colours the blocks have: `away` is a shift of domain from `home`."""
    episodes: PositiveInt = 60
    """Episodes to record."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the blocks' and the robot's places."""


class Data(Strict):
    """Episodes of a robot as HDF5 files, and how their steps become samples."""

    source: Literal["aloha", "lerobot", "simulation"] = "aloha"
    """aloha: HDF5 files under `root`; lerobot: a LeRobot data set, v2.1 or v3.0; simulation: recorded by the workflow."""
    root: Place = "data/rdt"
    """Folder of the episodes: of *.hdf5, also in folders below, or of a LeRobot data set."""
    simulation: Simulation = Simulation()
    """What is recorded (source simulation)."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the episodes that is kept for evaluation, spread evenly over their names."""
    bad: Literal["skip", "refuse"] = "refuse"
    """What to do about corrupt and short episodes: leave them out and say so, or stop."""
    min_steps: PositiveInt = 128
    """Shorter episodes are bad."""
    still: NonNegativeFloat = 1e-2
    """Steps before the first joint has moved by more than this (as recorded) are left out."""
    robot: Preset | Robot = "agilex"
    """What the recorded numbers are: agilex, the release's machine; aloha, Stanford's ALOHA, ACT; one_arm; or a mapping."""
    jpeg: Literal["bgr", "rgb"] = "bgr"
    """Order of the colours in JPEG files in HDF5; ALOHA's recorder hands RGB to OpenCV, which takes it for BGR and swaps it."""
    text_length: PositiveInt = 1024
    """Tokens to which every instruction is padded; a longer one is an error."""
    image_size: PositiveInt = 384
    """Side of the network's square images, in pixels."""
    background: tuple[Byte, Byte, Byte] = (127, 127, 127)
    """Colour (RGB) of borders and of images that are not there: the mean of SigLIP's training images."""
    frequency: PositiveInt = 25
    """Control frequency of the robot, in Hz."""
    noise_snr: float | None = 40.0
    """Signal-to-noise ratio of the states, in dB, against their standard deviation in their episode; null: no noise."""
    dropout: Fraction = 0.1
    """Probability with which each condition (frequency, state, mask, each image, text) is hidden."""
    augment: Augment = Augment()
    """Random changes of the training images."""

    @model_validator(mode="after")
    def _of_the_simulated_robot(self) -> "Data":
        if self.source == "simulation":
            for key, wanted in SIMULATED.items():
                if (given := getattr(self, key)) != wanted:
                    raise ValueError(f"{key} = {given!r}: the simulated robot (source simulation) needs {wanted!r}")
        return self

    @property
    def mapping(self) -> Robot:
        """The robot, where it is named by a preset, too."""
        if not isinstance(self.robot, str):
            return self.robot
        return as_features(ROBOTS[self.robot]) if self.source == "lerobot" else ROBOTS[self.robot]

    @property
    def views(self) -> tuple[View, ...]:
        """What its cameras show, in the order of the network's image tokens; the network sees `background` for others."""
        return tuple(view for view in VIEWS if view in self.mapping.cameras)

    @property
    def versions(self) -> int:
        """Of every image in the cache: as it is, and changed."""
        return 1 + (self.augment.versions if self.augment.share else 0)


SIMULATED = {"robot": "one_arm", "jpeg": "bgr", "frequency": FREQUENCY}


class Evaluation(Strict):
    """How the trained model is judged: on recorded steps, and in closed loop where there is a simulation."""

    samples: PositiveInt = 256
    """Held-out steps, evenly spread, whose actions are predicted."""
    batch: PositiveInt = 16
    """Steps that are predicted at once."""
    sampling_steps: PositiveInt = 5
    """Denoising steps of a prediction."""
    rollouts: Annotated[int, Field(ge=0)] = 40
    """Episodes that the model drives the simulated robot in (source simulation)."""
    execute: PositiveInt = 8
    """Actions of each prediction that the simulated robot carries out before the next."""
    pictures: Annotated[int, Field(ge=0)] = 4
    """Rollouts of which a strip of images is saved."""


class SystemSettings(Settings):
    """RDT-1B, fine-tuned on episodes of a robot."""

    networks: ClassVar[tuple[str, ...]] = ("model", "lang_adaptor", "img_adaptor", "state_adaptor")
    released_average: ClassVar[Warmup | None] = "power"

    system: Literal["rdt"]
    """RDT: actions of a robot from an instruction and camera images."""
    data: Data = Data()
    """Episodes and samples."""
    model: Model = Model()
    """Network, weights, encoders."""
    evaluation: Evaluation = Evaluation()
    """How the trained model is judged."""

    @model_validator(mode="after")
    def _fits_the_data(self) -> "SystemSettings":
        a = self.model.architecture
        if a.action_dim != UNIFIED:
            raise ValueError(f"model.architecture.action_dim = {a.action_dim}: the unified vector has {UNIFIED} entries")
        if a.images.cameras != len(VIEWS):
            raise ValueError(
                f"model.architecture.images.cameras = {a.images.cameras}: there are {len(VIEWS)}, also for a robot with fewer"
            )
        if self.data.text_length > a.lang_length:
            raise ValueError(
                f"data.text_length = {self.data.text_length} is more than model.architecture.lang_length = {a.lang_length}"
            )
        if self.evaluation.execute > a.horizon:
            raise ValueError(f"evaluation.execute = {self.evaluation.execute} is more than the horizon {a.horizon}")
        return self

    def weight_files(self) -> dict[str, str]:
        """Pretrained weights that a run reads: what for -> path."""
        return {"weights": self.model.weights}

    def hub(self) -> Hub:
        """What the cards of the trained models say of the family."""
        return Hub("robotics", {"robotics-diffusion-transformer/rdt-1b": "MIT"})

    def metrics(self) -> list[Metric]:
        """Success first where there is a robot to try it on, then the errors of the predicted actions."""
        errors = [
            Metric("sample_mse", "sample MSE", "", True, 4),
            Metric("sample_l2err", "sample L2 error", "", True, 4),
        ]
        closed_loop = [
            Metric("success", "success", "", False, 2),
            Metric("distance", "distance at the end", "m", True, 3),
        ]
        return [*closed_loop, *errors] if self.rolls_out else errors

    def pictured(self) -> str:
        """What one sees in the pictures of an evaluation."""
        return "Actions of held-out steps, recorded and predicted; the robot's attempts where there is a simulation."

    @property
    def rolls_out(self) -> bool:
        """Whether the evaluation drives a robot."""
        return self.data.source == "simulation" and self.evaluation.rollouts > 0

    def outside(self) -> list[str]:
        """Weights, encoders, and the folder of the episodes."""
        encoders = [self.model.encoders.text, self.model.encoders.image]
        return [*super().outside(), *encoders, *([self.data.root] if self.data.source != "simulation" else [])]

    def parts(self) -> list[Part]:
        """The episodes, then the embeddings of their instructions and of their images."""
        data, encoders = self.data, self.model.encoders
        memory = {"demo": 4, "full": 32}[self.scale]
        examined = data.model_dump(mode="json", include={"source", "bad", "min_steps", "still", "robot", "jpeg"})
        examined |= {"frequency": data.frequency} if data.source == "lerobot" else {}
        simulated = {"simulation": data.simulation.model_dump()}
        where = simulated if data.source == "simulation" else {"root": str(PurePosixPath(data.root))}
        episodes = Part("episodes", data.source, {**examined, **where})
        text = Part("text", data.source, {"encoder": encoders.text}, (episodes,), gpus=1, mem_gib=memory)
        seen = data.model_dump(mode="json", include={"source", "robot", "jpeg", "image_size", "background"})
        changes = {**data.augment.model_dump(), "share": 1} if data.augment.share else {"share": 0}
        images = {"encoder": encoders.image, "data": {**seen, "augment": changes}}
        return [episodes, text, Part("image", data.source, images, (episodes,), gpus=1, mem_gib=memory)]
