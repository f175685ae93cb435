"""What is probed: a cell of the sweep, named by the content that its memory and its step time depend on."""

from dataclasses import dataclass, replace
from functools import cached_property

from ablation.canonical import short_hash
from ablation.hardware import Card
from ablation.preflight import unsupported
from ablation.study import AXES
from ablation.sweep import NOT_OF_TRAINING, Run, slug

STEPS = 5  # optimizer steps of a probe; StepClock leaves the first three out
NOT_OF_A_STEP = {
    *("epochs", "steps", "schedule", "warmup", "min_lr"),
    *("checkpoint_every", "checkpoint_epochs", "keep_checkpoints", "preview_every", "guards"),
}


def unprobeable(run: Run, card: Card) -> str | None:
    """Why ``run`` cannot be probed on ``card``; None if it can."""
    if reason := unsupported(run, card):
        return reason
    gpus, method = run.axes["gpus"], run.strategy.distributed
    if gpus == 1 and method == "ddp":
        return None
    return f"a probe is one process; what a run on {gpus} GPU{'s' * (gpus > 1)} with {method} needs is predicted in the plan"


@dataclass(frozen=True)
class Cell:
    """A run that stands for its cell, and where and for how long it is measured."""

    run: Run
    card: Card
    device: str
    """What is known of the device before a job runs on it: the name of a GPU, ``cpu``, or what SLURM is asked for."""
    steps: int = STEPS

    @cached_property
    def name(self) -> str:
        """Readable, and the same for all that costs the same: cells that differ in their learning rate share it."""
        axes = {axis: self.run.axes[axis] for axis in AXES if axis != "seed"}
        excluded = {**dict.fromkeys(NOT_OF_TRAINING, True), "training": NOT_OF_A_STEP}
        content = {
            "settings": self.run.settings.model_dump(mode="json", exclude=excluded),
            "strategy": self.run.strategy.model_dump(mode="json", exclude={"lr"}),
            "axes": {axis: value for axis, value in axes.items() if axis != "strategy"},
            "budget_gib": self.card.usable_gib,
            "device": self.device,
            "steps": self.steps,
        }
        return f"{slug(axes)}-{short_hash(content)}"


def at_batch(run: Run, batch: int, accumulation: int) -> Run:
    """``run`` with another batch; its id stays, for it is how a job finds the run in its study."""
    return replace(run, axes={**run.axes, "batch": batch, "accumulation": accumulation})
