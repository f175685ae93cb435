"""Judging Kolors on held-out layouts: denoising in and outside boxes, captions, retrieval, and what is seen in the boxes."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from ablation.systems.base import Draw, Evaluation
from ablation.systems.kolors import settings
from ablation.systems.kolors.architecture import TRAIN_STEPS
from ablation.systems.kolors.data.dataset import LayoutDataset
from ablation.systems.kolors.data.latents import load_vae
from ablation.systems.kolors.diffusion import add_noise, signal_left
from ablation.systems.kolors.generate import decode, generate
from ablation.systems.kolors.language import beyond_prefix
from ablation.systems.kolors.metrics import Judge, chance_of_recall, coverage, in_box, recall_at_1, squared_error, union
from ablation.systems.kolors.network import Kolors
from ablation.systems.kolors.objectives import caption_loss, caption_vectors
from ablation.systems.kolors.pictures import Shown, save_sheet

ROWS = 4  # pictures of a sheet
PREVIEWED, PREVIEW_PICTURES = 16, 4  # layouts of a preview

Row = dict[str, Any]
Batch = dict[str, Tensor]


class Errors(NamedTuple):
    """Squared errors summed over the cells they are in, and how many cells that was."""

    inside: float = 0.0
    inside_cells: float = 0.0
    outside: float = 0.0
    outside_cells: float = 0.0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(*(one + two for one, two in zip(self, other, strict=True)))

    def means(self) -> dict[str, float]:
        """The metrics of these names."""
        found = {"denoise_inside": (self.inside, self.inside_cells), "denoise_outside": (self.outside, self.outside_cells)}
        return {name: total / cells for name, (total, cells) in found.items() if cells}


def evaluate(
    model: Kolors, samples: LayoutDataset, vae: Path, how: settings.Evaluation, out: Path, device: torch.device
) -> Evaluation:
    """Metrics over the held-out layouts, and in boxes for each label; sheets of generated pictures in ``out``."""
    indices = range(min(how.samples, len(samples)))
    with computing(model, device):
        denoised = denoise(model, samples, indices, how, device)
        words, retrieved, notes = _words(model, samples, indices, how, device)
        pictures = draw(model, samples, indices[: how.pictures], vae, how, out, device)
    judged = judge(samples, indices, pictures)
    metrics = {**denoised.overall.means(), "caption_loss": words, **retrieved, **judged.overall}
    levels = ", ".join(f"{step}: {errors.means().get('denoise_inside', 0):.3f}" for step, errors in denoised.levels.items())
    return Evaluation(
        metrics,
        _by_label(denoised, judged),
        {
            "layouts": f"{len(indices)} held out; their latents and the noise are the same for every model",
            "denoising": "mean squared error of the latents (their variance is about 1) that the predicted noise leaves",
            "denoising error in boxes, by diffusion step": levels,
            **notes,
            "pictures": f"{how.steps} Euler steps, guidance {how.guidance:g}, one fixed noise a picture",
            **judged.notes,
        },
    )


@torch.no_grad()
def preview(
    model: Kolors, samples: LayoutDataset, vae: Path, how: settings.Evaluation, out: Path, device: torch.device
) -> dict[str, float]:
    """The error of denoising on a few held-out layouts, and a sheet of pictures of fewer."""
    indices = range(min(PREVIEWED, how.samples, len(samples)))
    with computing(model, device):
        denoised = denoise(model, samples, indices, how, device)
        draw(model, samples, indices[: min(PREVIEW_PICTURES, how.pictures)], vae, how, out, device)
    return denoised.overall.means()


def computing(model: Kolors, device: torch.device) -> AbstractContextManager:
    """Number formats as in training, for passes that are not the network's ``forward``."""
    kind = model.unet.dtype
    return torch.autocast(device.type, kind, enabled=kind != torch.float32)


class Denoised(NamedTuple):
    """Errors over all layouts, at each diffusion step, and in the boxes of each label."""

    overall: Errors
    levels: dict[int, Errors]
    labels: dict[str, Errors]


def denoise(
    model: Kolors, samples: LayoutDataset, indices: Sequence[int], how: settings.Evaluation, device: torch.device
) -> Denoised:
    """Errors of the latents that caption and layout are denoised to; a cell that is partly in a box counts on both sides.

    The error of the noise itself is nearly nothing at the noisy steps, where alone a layout tells what the latents do not.
    """
    levels = {round((number + 0.5) * TRAIN_STEPS / how.noise_levels): Errors() for number in range(how.noise_levels)}
    labels: dict[str, Errors] = {}
    for chosen, batch in batches(samples, indices, how.batch, device):
        covered = coverage(batch["boxes"], batch["box_mask"], *batch["latents"].shape[-2:])
        inside = union(covered)
        prompt, layout = model.prompt(batch["tokens"], batch["token_mask"]), model.layout(batch)
        for step in levels:
            steps = torch.full_like(batch["diffusion"], step)
            noisy = add_noise(batch["latents"], batch["noise"], steps)
            predicted = model.denoise(noisy, steps, prompt, layout, batch["time_ids"])
            error = squared_error(predicted, batch["noise"]) * noise_to_signal(step)
            levels[step] += Errors(*_weighted(error, inside), *_weighted(error, 1 - inside))
            for row, index in enumerate(chosen):
                for number, label in enumerate(samples.placed(index).labels):
                    labels[label] = labels.get(label, Errors()) + Errors(*_weighted(error[row], covered[row, number]))
    return Denoised(sum(levels.values(), Errors()), levels, labels)


def noise_to_signal(step: int) -> float:
    """Variance of the noise over that of the signal: times an error of the predicted noise, that of the latents it leaves."""
    left = float(signal_left(torch.tensor(step)))
    return (1 - left) / left


def _weighted(error: Tensor, weight: Tensor) -> tuple[float, float]:
    return float((error * weight).sum()), float(weight.sum())


def _words(
    model: Kolors, samples: LayoutDataset, indices: Sequence[int], how: settings.Evaluation, device: torch.device
) -> tuple[float, dict[str, float], dict[str, str]]:
    """The captions' loss a token, the share of captions and pictures that find each other, and what these numbers mean."""
    loss, count, captions, pictures = 0.0, 0, [], []
    for _, batch in batches(samples, indices, how.batch, device):
        tokens = int(beyond_prefix(batch["token_mask"]).sum())
        features = model.features(batch)
        loss, count = loss + tokens * float(caption_loss(model, batch, features)), count + tokens
        captions.append(caption_vectors(model, batch).float().cpu())
        pictures.append(model.heads.retrieval.pictures(features).float().cpu())
    texts = [samples.layouts[index].caption for index in indices]
    same = torch.tensor([[one == two for two in texts] for one in texts])
    t2i, i2t = recall_at_1(torch.cat(captions), torch.cat(pictures), same)
    notes = {
        "captions": f"cross-entropy a token, over {count} tokens of {len(indices)} captions",
        "R@1": f"among {len(indices)} held-out pictures; guessing gives {chance_of_recall(same):.3f}. Pictures of the same"
        " caption stand for each other",
    }
    return loss / max(count, 1), {"retrieval_r1_t2i": t2i, "retrieval_r1_i2t": i2t}, notes


def draw(
    model: Kolors,
    samples: LayoutDataset,
    indices: Sequence[int],
    vae: Path,
    how: settings.Evaluation,
    out: Path,
    device: torch.device,
) -> list[Shown]:
    """Pictures of the layouts ``indices``, with and without telling the layout; sheets of them in ``out``."""
    decoder = load_vae(vae, device)
    shown = []
    for chosen, batch in batches(samples, indices, how.batch, device):
        with_layout, without = (decode(decoder, generate(model, batch, how, told)) for told in (True, False))
        for index, made, base in zip(chosen, with_layout, without, strict=True):
            true = samples.picture(index)
            shown.append(Shown(samples.layouts[index].caption, samples.placed(index), true, base, made))
    for start in range(0, len(shown), ROWS):
        save_sheet(out / f"layouts-{start // ROWS + 1}.png", shown[start : start + ROWS])
    return shown


class Judged(NamedTuple):
    """How often the boxes of pictures hold what they should: overall, by label, and what the number means."""

    overall: dict[str, float]
    labels: dict[str, list[bool]]
    notes: dict[str, str]


def judge(samples: LayoutDataset, indices: Sequence[int], pictures: Sequence[Shown]) -> Judged:
    """Whether what is in each box is most like the true content of a held-out box of its label."""
    truth = [(label, in_box(samples.picture(i), box)) for i in indices for label, box in zip(*samples.placed(i), strict=True)]
    if not pictures or len({label for label, _ in truth}) < 2:
        return Judged({}, {}, {})
    tell = Judge(*zip(*truth, strict=True))
    asked = [(label, box, shown) for shown in pictures for label, box in zip(*shown.placed, strict=True)]
    right = [tell(in_box(shown.made, box)) == label for label, box, shown in asked]
    without = [tell(in_box(shown.without, box)) == label for label, box, shown in asked]
    labels: dict[str, list[bool]] = {}
    for (label, _, _), found in zip(asked, right, strict=True):
        labels.setdefault(label, []).append(found)
    note = (
        f"{len(asked)} boxes of {len(pictures)} generated pictures; each is given the label of the most alike of the"
        f" {len(truth)} true boxes. {fmean(without):.2f} of them are right without the layout; of the true boxes themselves,"
        f" by the others, {tell.own_accuracy():.2f}"
    )
    return Judged({"label_accuracy": fmean(right)}, labels, {"label accuracy": note})


def _by_label(denoised: Denoised, judged: Judged) -> list[Row]:
    rows = []
    for label, errors in sorted(denoised.labels.items()):
        found = judged.labels.get(label)
        seen = {"label_accuracy": fmean(found)} if found else {}
        rows.append({"item": label, "denoise_inside": errors.means()["denoise_inside"], **seen})
    return rows


def batches(
    samples: LayoutDataset, indices: Sequence[int], size: int, device: torch.device
) -> Iterator[tuple[Sequence[int], Batch]]:
    """The held-out samples ``indices``, some at once."""
    for start in range(0, len(indices), size):
        chosen = indices[start : start + size]
        batch = default_collate([samples[Draw(0, 0, 0, index)] for index in chosen])
        yield chosen, {name: value.to(device) for name, value in batch.items()}
