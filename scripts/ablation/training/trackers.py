"""Experiment trackers that a study asks for, through Accelerate's: they get what TensorBoard gets."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator

from ablation.errors import UserError
from ablation.settings import Tracker
from ablation.sweep import Run

RUN_NAME: Mapping[Tracker, str] = {"mlflow": "run_name", "wandb": "name"}
"""What each calls the name of a run."""


def check_trackers(run: Run) -> None:
    """Raises :class:`UserError` for one whose package is missing: Accelerate would leave it out without a word."""
    for name in run.settings.compute.trackers:
        if find_spec(name) is None:
            raise UserError(f"compute.trackers: {name} is not installed here: pip install {name}, or leave it out of the study")


@contextmanager
def tracked(accelerator: Accelerator, run: Run) -> Iterator[None]:
    """While it trains, ``accelerator.log`` reaches the trackers, from the first process alone.

    A project is a study, a run a run; where it goes is theirs to be told (``MLFLOW_TRACKING_URI``, ``WANDB_MODE``). An attempt
    that goes on from a checkpoint begins a new run there.
    """
    chosen = run.settings.compute.trackers
    if not chosen:
        yield
        return
    accelerator.log_with = [*chosen]
    config: dict[str, Any] = {axis: value for axis, value in run.axes.items() if value is not None}
    accelerator.init_trackers(run.study, config, {name: {RUN_NAME[name]: run.id} for name in chosen})
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # end_training would end the process group as well
            tracker.finish()
        accelerator.trackers.clear()
