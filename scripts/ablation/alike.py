"""Runs that train alike: their settings differ, but nothing that is in force within their steps does.

Such are averages whose decay warms up to the same value, however large the ones that are asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ablation.canonical import canonical
from ablation.settings import Training
from ablation.study import AXES, Study
from ablation.sweep import Run, all_axes
from ablation.training.schedules import average_decay


class Alike(NamedTuple):
    """Runs that are one training, under several names."""

    runs: list[Run]
    steps: int
    differs: dict[str, list[Any]]
    """The axes that differ -> their values, which have no effect."""


class OneTraining(NamedTuple):
    """Values of axes between which there is no difference, and of how many runs that holds."""

    differs: dict[str, list[Any]]
    steps: int
    runs: int
    decay: float | None
    """Of the average after the last step, where its decay is among what differs."""

    def __str__(self) -> str:
        axes = "; ".join(f"{axis} {', '.join(map(str, values))}" for axis, values in self.differs.items())
        why = "" if self.decay is None else f" (the average's decay in force ends at {self.decay:.4g})"
        return f"{axes}: no difference within {self.steps:,} steps{why}, in {self.runs} runs"


def alike(study: Study, runs: Iterable[Run], steps: Mapping[str, int]) -> list[Alike]:
    """The groups of ``runs`` that train alike. ``steps``: optimizer steps by run; a run without is not looked at."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.id in steps:
            groups.setdefault(canonical(in_force(run, steps[run.id])), []).append(run)
    return [Alike(group, steps[group[0].id], _differing(study, group)) for group in groups.values() if len(group) > 1]


def one_training(found: Sequence[Alike]) -> list[OneTraining]:
    """The same in short: the values that make no difference, each set once."""
    sets: dict[str, list[Alike]] = {}
    for group in found:
        sets.setdefault(canonical([group.differs, group.steps]), []).append(group)
    return [
        OneTraining(first.differs, first.steps, sum(len(group.runs) for group in groups), _decay(first))
        for groups in sets.values()
        for first in groups[:1]
    ]


def in_force(run: Run, steps: int) -> dict[str, Any]:
    """What training depends on within ``steps`` optimizer steps: the same for two runs that train alike."""
    view, training = run.training_view, run.settings.training
    settings = {**view["settings"], "training": _of_training(training, run.strategy.lr, steps)}
    if run.strategy.train.lora is None:
        settings["lora"] = None
    axes = {axis: value for axis, value in run.axes.items() if axis in AXES and axis != "strategy"}
    return {"axes": axes, "strategy": view["strategy"], "settings": settings}


def _of_training(training: Training, peak: float, steps: int) -> dict[str, Any]:
    found = training.model_dump(mode="json", exclude={"epochs", "schedule", "warmup", "min_lr", "ema", "ema_warmup"})
    if training.checkpoint_every and training.checkpoint_every >= steps:
        found["checkpoint_every"] = None  # the last step needs no checkpoint
    if training.preview_every:
        found["preview_every"] = min(training.preview_every, steps)  # it has a preview
    rising = round(training.warmup * steps)
    last = peak if training.schedule == "constant" or rising >= steps else min(training.min_lr, peak)
    return {**found, "steps": steps, "rate": [rising, last], "average": _average(training, steps)}


def _average(training: Training, steps: int) -> list[Any]:
    """The first and the last decay, and between two that differ how it rises; it never falls."""
    if not training.ema:
        return []
    first, last = average_decay(1, training), average_decay(steps, training)
    return [first, last, None if first == last else str(training.ema_warmup or True)]


def _differing(study: Study, runs: Sequence[Run]) -> dict[str, list[Any]]:
    rows = [all_axes(study, run) for run in runs]
    values = {axis: list(dict.fromkeys(row[axis] for row in rows)) for axis in rows[0]}
    return {axis: found for axis, found in values.items() if len(found) > 1}


def _decay(group: Alike) -> float | None:
    training, of_average = group.runs[0].settings.training, {"training.ema", "training.ema_warmup"} & group.differs.keys()
    return average_decay(group.steps, training) if training.ema and of_average else None
