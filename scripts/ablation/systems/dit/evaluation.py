"""Judging a transformer: the images that it draws, and its loss on those that it has not seen."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from ablation.systems.base import Draw, Evaluation
from ablation.systems.dit import settings
from ablation.systems.dit.autoencoder import Autoencoder
from ablation.systems.dit.data.dataset import LatentDataset
from ablation.systems.dit.data.listing import Listed, spread
from ablation.systems.dit.diffusion import Denoiser, guided, sample, training_losses
from ablation.systems.dit.judge import TrainedJudge
from ablation.systems.dit.metrics import frechet_distance, moments
from ablation.systems.dit.pictures import save_grid

POOLED = 4  # cells along a side, to whose means latents are shrunk before they are compared

Batch = dict[str, Tensor]


class Wish(NamedTuple):
    """What an image is asked for."""

    name: str
    told: Batch


def condition_of(batch: Batch) -> tuple[Tensor, ...]:
    """What the network is told in a batch."""
    return (batch["label"],) if "label" in batch else (batch["tokens"], batch["mask"])


def denoiser(model: nn.Module, told: Batch) -> Denoiser:
    """``model`` as it is told ``told``."""
    return lambda latents, steps: model(latents, steps, *condition_of(told))


@torch.no_grad()
def loss(model: nn.Module, samples: LatentDataset, count: int, batch: int, device: torch.device) -> float:
    """Mean squared error of the noise in ``count`` held-out images, evenly spread; at steps and with noise of their own."""
    total = 0.0
    chosen = spread(len(samples), count)
    for some in _batches(chosen, batch):
        held = _on(default_collate([samples[Draw(0, 0, 0, index)] for index in some]), device)
        found = training_losses(denoiser(model, held), held["latents"], held["noise"], held["step"])["mse"]
        total += float(found) * len(some)
    return total / len(chosen)


def distinct(samples: LatentDataset, listed: Listed, captions: int) -> list[Wish]:
    """All classes, or so many ``captions`` of held-out images, evenly spread."""
    if samples.captions is None:
        return [Wish(name, {"label": torch.tensor(label)}) for label, name in enumerate(listed.classes)]
    images = [samples.images[index][1] for index in spread(len(samples), captions)]
    return [Wish(told.captions[0], samples.told(told, Draw(0, 0, 0, 0))) for told in images]


def in_turn(wishes: Sequence[Wish], count: int) -> list[Wish]:
    """``count`` wishes, one after the other, over and over."""
    return [wishes[number % len(wishes)] for number in range(count)]


def draw(
    model: nn.Module, samples: LatentDataset, wished: Sequence[Wish], how: settings.Evaluation, device: torch.device
) -> Tensor:
    """Scaled latents [N, C, h, w] for the wishes, on the CPU. Each begins from noise of its own: its number's."""
    shape, drawn = samples[Draw(0, 0, 0, 0)]["noise"].shape, []
    for numbers in _batches(range(len(wished)), how.batch):
        told = _on(default_collate([wished[number].told for number in numbers]), device)
        untold = _on(default_collate([samples.told_nothing() for _ in numbers]), device)
        noise = np.stack([np.random.default_rng(number).standard_normal(shape, np.float32) for number in numbers])
        noise_in = guided(denoiser(model, told), denoiser(model, untold), len(noise[0]), how.guidance)
        drawn.append(sample(noise_in, torch.from_numpy(noise).to(device), how.steps).cpu())
    return torch.cat(drawn)


def evaluate(
    model: nn.Module,
    samples: LatentDataset,
    listed: Listed,
    how: settings.Evaluation,
    autoencoder: Autoencoder,
    reference: TrainedJudge | LatentDataset,
    out: Path,
    device: torch.device,
) -> Evaluation:
    """Metrics of drawn images against ``reference``, the judge or the images trained on; ``samples.png`` in ``out``."""
    wished = in_turn(distinct(samples, listed, -(-how.samples // how.columns)), how.samples)
    latents = draw(model, samples, wished, how, device)
    images = torch.cat([autoencoder.decode(some) for some in latents.split(how.batch)])
    save_grid(out / "samples.png", grid_rows(wished, images, how.rows, how.columns))
    notes = {"samples": f"{len(wished)}, {how.steps} steps of DPM-Solver++, guidance {how.guidance:g}"}
    held = loss(model, samples, len(samples), how.batch, device)
    if isinstance(reference, TrainedJudge):
        metrics, items, note = judged(reference, images, wished, samples, listed.classes)
    else:
        metrics, items, note = compared(latents, samples, reference)
    return Evaluation({**metrics, "loss": held}, items, {**notes, **note})


def judged(
    judge: TrainedJudge, images: Tensor, wished: Sequence[Wish], samples: LatentDataset, classes: Sequence[str]
) -> tuple[dict[str, float], list[dict], dict[str, str]]:
    """How many images the judge takes for what was wished, and how far their features are from those trained on."""
    verdict = judge(images)
    right = verdict.labels == np.array([int(wish.told["label"]) for wish in wished])
    metrics = {"accuracy": float(right.mean()), "frechet": frechet_distance(moments(verdict.features), judge.trained)}
    names = np.array([wish.name for wish in wished])
    items = [{"item": name, "accuracy": float(right[names == name].mean())} for name in classes if name in names]
    some = spread(len(judge.kept.labels), len(images))  # the distance depends on how many there are
    real = frechet_distance(moments(judge.kept.features[some]), judge.trained)
    truth = np.array([told.label for _, told in samples.images])
    correct = float((judge.kept.labels == truth).mean())
    note = f"accuracy {correct:.3f}, Fréchet distance {real:.2f} ({len(some)} images): what perfect samples would have"
    return metrics, items, {"real held-out images have": note}


def compared(
    latents: Tensor, samples: LatentDataset, trained: LatentDataset
) -> tuple[dict[str, float], list[dict], dict[str, str]]:
    """How far the drawn ``latents`` are from those of the images trained on, by their means over a coarse grid."""
    reference = moments(_coarse(_means(trained, range(len(trained)))))
    kept = spread(len(samples), len(latents))
    real = frechet_distance(moments(_coarse(_means(samples, kept))), reference)
    note = f"Fréchet distance {real:.2f} ({len(kept)} images): what perfect samples would have"
    return {"latent_frechet": frechet_distance(moments(_coarse(latents)), reference)}, [], {"real held-out images have": note}


def grid_rows(wished: Sequence[Wish], images: Tensor, rows: int, columns: int) -> list[tuple[str, Tensor]]:
    """The first images of the first few wishes."""
    names = [wish.name for wish in wished]
    return [
        (name, images[[number for number, other in enumerate(names) if other == name][:columns]])
        for name in islice(dict.fromkeys(names), rows)
    ]


def _means(samples: LatentDataset, which: Sequence[int]) -> Tensor:
    """Scaled latents [N, C, h, w] of images as they are: the means of their distributions."""
    return torch.stack([samples.latents(samples.images[index][0], 0).chunk(2)[0] for index in which]) * samples.scale


def _coarse(latents: Tensor) -> NDArray[np.float32]:
    return F.adaptive_avg_pool2d(latents, POOLED).flatten(1).numpy()


def _on(batch: Batch, device: torch.device) -> Batch:
    return {name: value.to(device) for name, value in batch.items()}


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
