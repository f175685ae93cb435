"""What the number of a claim can be of, and where ours stands: a row of the plan, or of the collected runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablation.claims.model import Moment
from ablation.settings import Settings

GB = 1e9 / 2**30  # in GiB: a gigabyte as it is defined
AROUND = 0.02  # share of a run's steps that the loss at a moment is the mean of

Row = Mapping[str, Any]
Reading = Callable[[Row], float | None]


@dataclass(frozen=True)
class Quantity:
    """A number of a cell: as the plan has it, and as a completed run does."""

    unit: str = ""
    planned: Reading | None = None
    measured: Reading | None = None
    basis: str = "predicted"
    """What the plan's number is."""
    timed: bool = False
    """Whether it is a time: what one device takes says nothing of another."""


def number(row: Row, name: str) -> float | None:
    """A column of a row; None where it is empty or not there."""
    value = row.get(name)
    return None if value in (None, "") or isinstance(value, str) or math.isnan(value) else float(value)


def _column(name: str, factor: float = 1.0) -> Reading:
    def read(row: Row) -> float | None:
        value = number(row, name)
        return None if value is None else value * factor

    return read


def _share(row: Row) -> float | None:
    trained, total = number(row, "trainable_params"), number(row, "total_params")
    return trained / total if trained is not None and total else None


def _measured_memory(row: Row) -> float | None:
    """What the allocator reserved and CUDA's context, in GB. A CPU's tensors are others."""
    reserved, context = number(row, "memory.peak_reserved_gib"), number(row, "context_gib")
    return None if None in (reserved, context) or row.get("memory.kind") != "cuda" else (reserved + context) / GB


def _epoch_minutes(row: Row) -> float | None:
    step, steps, epochs = (number(row, name) for name in ("time.step_median_s", "steps", "epochs"))
    return step * steps / epochs / 60 if None not in (step, steps) and epochs else None


PARTS = ("frozen_weights", "trained_weights", "gradients", "optimizer", "activations")
QUANTITIES = {
    "trainable_params": Quantity(planned=_column("trainable_params"), basis="counted"),
    "total_params": Quantity(planned=_column("total_params"), basis="counted"),
    "trainable_share": Quantity(planned=_share, basis="counted"),
    "memory_gb": Quantity("GB", _column("predicted_gib", 1 / GB), _measured_memory),
    **{f"{part}_gb": Quantity("GB", _column(f"{part}_gib", 1 / GB)) for part in PARTS},
    "epoch_minutes": Quantity("min", measured=_epoch_minutes, timed=True),
    "step_seconds": Quantity("s", measured=_column("time.step_median_s"), timed=True),
    "samples_per_second": Quantity("samples/s", measured=_column("time.samples_per_s"), timed=True),
    "loss": Quantity(measured=_column("final_loss")),
}


def quantities_of(settings: Settings) -> dict[str, Quantity]:
    """All quantities of a study's cells: the general ones, the system's metrics, and those of the pretrained model."""
    metrics = {}
    for metric in settings.metrics():
        metrics[metric.name] = Quantity(metric.unit, measured=_column(f"metric.{metric.name}"))
        metrics[f"pretrained.{metric.name}"] = Quantity(metric.unit, measured=_column(f"before.{metric.name}"))
    return {**QUANTITIES, **metrics}


def loss_at(history: Sequence[Row], at: Moment) -> float | None:
    """The mean loss around a moment of a run; None where its training did not get there."""
    name, wanted = ("step", at.step) if at.step is not None else ("epoch", at.epoch)
    index = next((i for i, row in enumerate(history) if row[name] >= wanted), None)
    if index is None:
        return None
    reach = int(AROUND * len(history) / 2)
    losses = [row["loss"] for row in history[max(0, index - reach) : index + reach + 1]]
    return sum(losses) / len(losses)
