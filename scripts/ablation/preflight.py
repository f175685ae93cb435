"""The plan of a study: for every run, before any job, what it would train and whether it can run.

Verdicts: ``invalid`` (it cannot run, with the reason), ``oom`` (weights, gradients and optimizer state alone exceed the
card), ``unpredicted`` (nothing speaks against it; its activations are not predicted).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from ablation.canonical import canonical
from ablation.hardware import Card
from ablation.settings import Settings
from ablation.sweep import Run
from ablation.systems import load_system
from ablation.training.precision import cast_frozen
from ablation.training.strategy import apply_strategy, count_parameters

GIB = 2**30
ADAM_STATES = 2  # first and second moment, in the type of the weight


def plan(runs: Sequence[Run], card: Card) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each run, and what is missing on this machine (each with what to do). Needs no GPU, data or weights."""
    missing = {key: load_system(settings).missing() for key, settings in _distinct(runs).items()}
    size = cache(_static_size)
    sizes = {run.id: size(_Shape(run)) for run in runs}
    rows = [_row(run, card, sizes[run.id], missing[id(run.settings)]) for run in runs]
    return rows, list(dict.fromkeys(line for lines in missing.values() for line in lines))


def _distinct(runs: Sequence[Run]) -> dict[int, Settings]:
    return {id(run.settings): run.settings for run in runs}


class _Shape:
    """What the size of a run's weights depends on; runs that agree in it are measured once."""

    def __init__(self, run: Run):
        self.run = run
        model = run.settings.model_dump(mode="json", include={"system", "model", "lora"})
        self._key = canonical([model, run.strategy.model_dump(mode="json"), run.rank, run.axes["precision"]])

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and other._key == self._key


def _static_size(shape: _Shape) -> dict[str, Any]:
    """Parameters, and GiB that do not depend on the data, from the model on the meta device."""
    run = shape.run
    system = load_system(run.settings)
    with torch.device("meta"):
        model = apply_strategy(system.build(), run.strategy, run.rank, run.settings.lora)
    cast_frozen(model, run.axes["precision"], system.fp32_modules)
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad) / GIB
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad) / GIB
    counts = count_parameters(model)
    return {
        "total_params": counts["total"],
        "trainable_params": counts["trainable"],
        "frozen_weights_gib": frozen,
        "trained_weights_gib": trained,
        "gradients_gib": trained,
        "optimizer_gib": ADAM_STATES * trained,
    }


def _row(run: Run, card: Card, size: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    verdict, reason = _verdict(run, card, size, missing)
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in size.items()}
    return {
        "run": run.id,
        **run.axes,
        "effective_batch": run.effective_batch,
        **shown,
        "budget_gib": card.memory_gib,
        "verdict": verdict,
        "reason": reason,
    }


def unsupported(run: Run, card: Card) -> str | None:
    """Why ``run`` cannot run on ``card``, whatever its data and weights; None if it can."""
    if run.axes["precision"] not in card.precisions:
        return f"{card.name} does not train in {run.axes['precision']} (it does in {', '.join(card.precisions)})"
    return "runs on several GPUs are not supported yet" if run.axes["gpus"] > 1 else None


def _verdict(run: Run, card: Card, size: dict[str, Any], missing: list[str]) -> tuple[str, str]:
    if missing:
        return "invalid", "; ".join(line.splitlines()[0] for line in missing)
    if reason := unsupported(run, card):
        return "invalid", reason
    static = sum(value for name, value in size.items() if name.endswith("_gib"))
    parts = f"weights, gradients and optimizer state take {static:.2f} of {card.memory_gib:g} GiB"
    return ("oom", parts) if static > card.memory_gib else ("unpredicted", f"{parts}; activations are not predicted")
