"""Judging RDT: the actions it predicts on held-out steps, and what it achieves when it drives the simulated robot."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ablation.systems.base import Draw
from ablation.systems.rdt.data.dataset import StepDataset
from ablation.systems.rdt.diffusion import sample
from ablation.systems.rdt.encoders import ImageEncoder
from ablation.systems.rdt.metrics import sample_errors
from ablation.systems.rdt.model.runner import Observation, observation_of
from ablation.systems.rdt.policy import Policy
from ablation.systems.rdt.settings import Evaluation, SystemSettings
from ablation.systems.rdt.simulation.rollout import Rollout, rollouts
from ablation.systems.rdt.simulation.sheet import write_sheet

Row = dict[str, Any]


class Predicted(NamedTuple):
    """Some held-out samples and the actions predicted for them."""

    rows: list[Row]
    """For each sample its ``item``, the instruction, and its errors."""
    actions: Tensor
    """[N, H, 128]."""
    recorded: Tensor
    """[N, H, 128]."""
    mask: Tensor
    """The slots in use [128]."""


def predict(model: nn.Module, samples: StepDataset, count: int, evaluation: Evaluation, device: torch.device) -> Predicted:
    """Predict the actions of ``count`` steps, evenly spread. Each begins from noise of its own."""
    indices = spread(len(samples), count)
    norms = [torch.from_numpy(norm).float() for norm in samples.norms]
    rows, actions, recorded = [], [], []
    for chosen in _batches(indices, evaluation.batch):
        batch = default_collate([samples[Draw(0, 0, 0, index)] for index in chosen])
        observation = Observation(*(value.to(device) for value in observation_of(batch)))
        actions.append(sample(model, observation, batch["noise"].to(device), evaluation.sampling_steps).cpu())
        recorded.append(batch["actions"])
        places = [samples.place(index)[0] for index in chosen]
        errors = sample_errors(actions[-1], recorded[-1], batch["mask"], torch.stack([norms[place] for place in places]))
        for row, place in enumerate(places):
            found = {name: float(values[row]) for name, values in errors.items()}
            rows.append({"item": samples.episodes[place].instruction, **found})
    return Predicted(rows, torch.cat(actions), torch.cat(recorded), batch["mask"][0, 0])


def drive(model: nn.Module, settings: SystemSettings, samples: StepDataset, out: Path, device: torch.device) -> list[Row]:
    """Episodes that nobody recorded, driven by the model: ``item``, ``success`` and ``distance`` of each; strips in ``out``."""
    simulation, evaluation = settings.data.simulation, settings.evaluation
    encode = ImageEncoder(Path(settings.model.encoders.image), device)
    policy = Policy(model, settings, samples.tokens.text, encode, device)
    numbers = range(simulation.episodes, simulation.episodes + evaluation.rollouts)

    def attempts(numbers: range, frames: bool) -> list[Rollout]:
        history = settings.model.architecture.images.history
        return rollouts(policy, simulation.side, simulation.seed, numbers, evaluation.execute, history, frames)

    shown = attempts(numbers[: evaluation.pictures], frames=True)
    for number, attempt in zip(numbers, shown, strict=False):
        end = "success" if attempt.success else "touched-the-other" if attempt.touched_other else "missed"
        write_sheet(out / f"rollout-{number}-{end}.png", attempt)
    done = [*shown, *attempts(numbers[evaluation.pictures :], frames=False)]
    return [{"item": attempt.instruction, "success": float(attempt.success), "distance": attempt.distance} for attempt in done]


def held_still(samples: StepDataset, predicted: Predicted, count: int) -> float:
    """The sample MSE of a robot that is told to stay where it is."""
    states = torch.stack([samples[Draw(0, 0, 0, index)]["state"] for index in spread(len(samples), count)])
    ones = torch.ones(len(states), states.shape[-1])
    errors = sample_errors(states.expand_as(predicted.recorded), predicted.recorded, predicted.mask[None, None], ones)
    return float(errors["sample_mse"].mean())


def mean_of(rows: Iterable[Row]) -> dict[str, float]:
    """The mean of every number."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row if name != "item")
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def by_item(rows: Sequence[Row]) -> list[Row]:
    """The same for each item."""
    items = dict.fromkeys(row["item"] for row in rows)
    return [{"item": item, **mean_of(row for row in rows if row["item"] == item)} for item in items]


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` indices spread evenly over ``range(count)``."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round()).astype(int).tolist()


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
