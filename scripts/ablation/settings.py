"""The settings of one run that every system shares, and the base of all configuration models."""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from ablation.parts import Part

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Scale = Literal["demo", "full"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


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

    epochs: PositiveInt | None = None
    """Passes over the training data; give this or steps."""
    steps: PositiveInt | None = None
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
    checkpoint_every: PositiveInt = 500
    """Optimizer steps between checkpoints, from which an interrupted run resumes."""
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

    threads: PositiveInt = 4
    """CPU threads a job."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Data-loader processes; 0 loads in the training process."""
    mem_gib: PositiveInt = 32
    """Host memory a job, in GiB."""
    runtime_min: PositiveInt = 1440
    """Time limit a job on a cluster, in minutes."""


class Settings(Strict):
    """What a run is, less its axes. A system adds data, model, loss and evaluation."""

    system: Name
    """The model family."""
    title: str = ""
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

    def weight_files(self) -> dict[str, str]:
        """Pretrained weights that a run reads: what for -> path."""
        return {}

    def parts(self) -> list[Part]:
        """The prepared data that a run reads."""
        return []

    def outside(self) -> list[str]:
        """Files and folders that a run reads and the workflow does not make: data and weights."""
        return list(self.weight_files().values())

    def facts(self) -> dict[str, Callable[..., float | None]]:
        """Counts that a published claim can be about, by name: functions of what the claim's ``where`` names.

        None: not known on this machine.
        """
        return {}

    def metrics(self) -> list[Metric]:
        """The metrics to show, the most important one first."""
        return []
