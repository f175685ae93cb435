"""The settings of one run that every system shares, and the base of all configuration models."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from ablation.canonical import short_hash
from ablation.errors import is_control
from ablation.parts import Part

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Scale = Literal["demo", "full"]
Tracker = Literal["mlflow", "wandb"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Warmup = bool | Literal["power"]
"""Of the average's decay, by :func:`ablation.training.schedules.average_decay`."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]
Size = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of a part of a network: more is a slip of the pen, and would be found out with all memory full."""
Depth = Annotated[int, Field(ge=1, le=1000)]
"""Blocks or layers, each of which is built."""
NOT_OF_A_STEP = {"title", "evaluation", "compute", "hardware", "scale", "training"}


def _place(text: str) -> str:
    if any(map(is_control, text)):
        raise ValueError("a path holds no line ends or other control characters")
    if "{" in text or "}" in text:
        raise ValueError("a path holds no braces: Snakemake takes them for wildcards")
    if any(len(step.encode()) > 255 for step in text.split("/")):
        raise ValueError("a name in a path has at most 255 bytes")
    return str(PurePosixPath(text))


Place = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_place)]
"""The path of a file or folder. It reaches no shell unquoted, so it may hold anything else."""


class Strict(BaseModel):
    """A configuration section: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, hide_input_in_errors=True
    )


class Metric(NamedTuple):
    """A number that evaluation gives, and how to show it."""

    name: str
    label: str
    unit: str
    lower_is_better: bool
    digits: int


class Hub(NamedTuple):
    """What a model card says of a model family, in the Hugging Face Hub's words."""

    task: str
    releases: dict[str, str]
    """The repositories of its pretrained weights, each with the licence of these."""


class LoraSettings(Strict):
    """Low-rank adapters (Hu et al. 2021), shared by all strategies that use them."""

    alpha_per_rank: PositiveFloat = 2.0
    """Scaling: lora_alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout before the adapter."""


class Guards(Strict):
    """What the trainer watches for. NaN and Inf always end a run as diverged."""

    stuck_after: PositiveInt = 500
    """Optimizer steps after which a loss that has not fallen is reported as stuck."""
    stuck_drop: Fraction = 0.01
    """The relative fall of the mean loss, from the first tenth of those steps to the last, below which it counts as stuck."""


class Training(Strict):
    """The optimizer and its schedule (AdamW), and what is saved."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Passes over the training data; give this or steps."""
    steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Optimizer steps; give this or epochs."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Shape of the learning rate after warm-up."""
    warmup: Fraction = 0.1
    """Share of all steps in which the learning rate rises linearly from zero."""
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    """Learning rate at the end of the cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Adam's averaging constants."""
    eps: PositiveFloat = 1e-8
    """Adam's denominator constant."""
    clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient; null does not clip."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the running average of the trained weights, which is what is evaluated and saved; 0: none."""
    ema_warmup: Annotated[Warmup | None, Field(exclude_if=lambda value: value is None)] = None
    """How the decay of `ema` rises to its value: false, not at all, as in DiT; true, at most (1 + n) / (10 + n) in update n, as
    in Hunyuan3D-2.1; power, at most 1 - (n - 1)^-0.75, as in RDT. null: as in the system's release, or true without one there.
    """
    compile: bool = False
    """Compile the repeated blocks (torch.compile; needs a C++ compiler). Memory is predicted as if they were not."""
    checkpoint_every: PositiveInt | None = 500
    """Optimizer steps between checkpoints, from which an interrupted run resumes; null: none but those of the epochs."""
    checkpoint_epochs: PositiveInt | None = None
    """Epochs between checkpoints, beside those by steps; null: none."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints kept; older ones are removed once a newer one is complete."""
    preview_every: PositiveInt | None = None
    """Optimizer steps between previews: held-out data through the model as it is, kept under previews/; null: none."""
    guards: Guards = Guards()
    """What the trainer watches for."""

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self


class Compute(Strict):
    """What a job asks of its machine. Changing it reruns nothing."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Machines a job, on SLURM; the GPUs of a run are spread evenly over them."""
    threads: Annotated[int, Field(ge=1, le=4096)] = 4
    """CPU threads a GPU."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Data-loader processes; 0 loads in the training process."""
    mem_gib: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Host memory a job, on each of its machines, in GiB."""
    runtime_min: Annotated[int, Field(ge=10, le=1_000_000)] = 1440
    """Time limit a job on a cluster, in minutes; five before it, the run saves a checkpoint and queues again."""
    patience_min: Annotated[float, Field(gt=0, le=100_000)] = 10
    """Minutes that a process of several waits for another, which may be writing a checkpoint or a preview; then all end."""
    pack: Annotated[int, Field(ge=1, le=16)] = 1
    """Runs that may share a GPU of this machine, each in its part of the memory, as far as they fit by prediction; 1: none do.

    Their times cannot be compared. Jobs sent to SLURM share nothing: there the scheduler owns the cards.
    """
    runs_per_job: Annotated[int, Field(ge=1, le=100)] = 1
    """Runs that one job may do one after the other, so that libraries are loaded once for all of them; for runs that are short.

    The job of a run goes on with others of the study that start from the same weights and data and that no job has begun; their
    own jobs then find the results. Not for runs of several processes, nor beside ``pack``.
    """
    prefix_cache_gib: Annotated[float, Field(ge=0, le=1_000_000)] = 16
    """Disk that may hold what frozen parts make of the images, for all runs of one precision and data; 0: none."""
    trackers: list[Tracker] = []
    """Where each step's numbers go beside TensorBoard: mlflow, wandb; to be installed and set up by you."""


class Settings(Strict):
    """What a run is, less its axes. A system adds data, model, loss and evaluation."""

    networks: ClassVar[tuple[str, ...]] = ()
    """The modules that its network may consist of, with which patterns begin, for any settings; empty: not known."""
    released_average: ClassVar[Warmup | None] = None
    """How the decay of the release's own average warms up (``training.ema_warmup``); None: as true, or it has no average."""

    system: Name
    """The model family."""
    title: Annotated[str, Field(max_length=300)] = ""
    """One line for the head of the report."""
    scale: Scale = "demo"
    """demo: a few layers and small data, minutes on a CPU. full: the released architecture and weights."""
    hardware: Name = "rtx4090"
    """The card the study is for: a file of config/hardware/."""
    lora: LoraSettings = LoraSettings()
    """Low-rank adapters."""
    training: Training
    """Optimizer, schedule, checkpoints."""
    compute: Compute = Compute()
    """What a job asks of its machine."""

    @model_validator(mode="after")
    def _average_as_released(self) -> "Settings":
        if self.training.ema and self.training.ema_warmup is None and self.released_average is not None:
            self.__dict__["training"] = self.training.model_copy(update={"ema_warmup": self.released_average})
        return self

    def weight_files(self) -> dict[str, str]:
        """Pretrained weights that a run reads: what for -> path."""
        return {}

    def parts(self) -> list[Part]:
        """The prepared data that a run reads."""
        return []

    @cached_property
    def inputs_hash(self) -> str:
        """A hash of what the frozen part of a network and its inputs depend on."""
        return short_hash(self.model_dump(mode="json", include={"system", "data", "model"}))

    @cached_property
    def step_hash(self) -> str:
        """A hash of what the shape of a step depends on, but for the training; once for all runs that share them."""
        return short_hash(self.model_dump(mode="json", exclude=NOT_OF_A_STEP), 24)

    def prefix_cut(self, trained: Sequence[str]) -> int | None:
        """How far the network reaches before all that is ``trained`` (patterns, as in a strategy); None where nothing does.

        What it makes of the inputs is shared by runs (:mod:`ablation.prefix`). A cut of a system's own; more is further.
        """
        return None

    def objective(self, trained: Sequence[str]) -> int:
        """The version of what training minimises, where ``trained`` (patterns, as in a strategy) are its weights.

        It is raised when a loss or a gradient is corrected: results of an earlier one are trained again, and never compared.
        """
        return 1

    def network_version(self) -> int:
        """The version of what the network computes with given weights.

        It is raised when that is corrected: what pretrained weights reach is then evaluated again.
        """
        return 1

    def outside(self) -> list[str]:
        """Files and folders that a run reads and the workflow does not make: data and weights."""
        return list(self.weight_files().values())

    def facts(self) -> dict[str, Callable[..., float | None]]:
        """Counts that a published claim can be about, by name: functions of what the claim's ``where`` names.

        None: not known on this machine.
        """
        return {}

    def hub(self) -> Hub:
        """What the cards of the trained models say of the family."""
        return Hub("other", {})

    def metrics(self) -> list[Metric]:
        """The metrics to show, the most important one first."""
        return []

    def pictured(self) -> str:
        """What one sees in the pictures of an evaluation, in a sentence or two."""
        return ""
