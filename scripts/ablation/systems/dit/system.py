"""The ``dit`` system: what the trainer needs of a diffusion transformer on images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ablation.errors import UserError
from ablation.systems.base import Evaluation, Objective
from ablation.systems.dit import autoencoder, encoder, evaluation
from ablation.systems.dit.autoencoder import Autoencoder
from ablation.systems.dit.data.captions import Captions
from ablation.systems.dit.data.coco import annotation_file
from ablation.systems.dit.data.dataset import LatentDataset
from ablation.systems.dit.data.latents import Latents
from ablation.systems.dit.data.listing import read_list, source_root, split
from ablation.systems.dit.diffusion import STEPS, training_losses
from ablation.systems.dit.judge import TrainedJudge
from ablation.systems.dit.network import CaptionTransformer, ClassTransformer
from ablation.systems.dit.pictures import save_grid
from ablation.systems.dit.settings import SystemSettings
from ablation.systems.dit.weights import load_weights, unfit

PREVIEWED = 4  # samples of a class or caption in a preview
PREVIEW_LOSSES = 64  # held-out images whose loss a preview gives


class System:
    """A diffusion transformer with the settings of one run."""

    fp32_modules = ()
    objectives = ("noise",)

    def __init__(self, settings: SystemSettings):
        self.settings = settings

    def build(self) -> nn.Module:
        """The transformer with fresh weights."""
        kinds = {"class": ClassTransformer, "caption": CaptionTransformer}
        return kinds[self.settings.data.condition](self.settings.model.architecture)

    def load_weights(self, model: nn.Module, files: dict[str, Path]) -> None:
        """Fill ``model`` from the released file; from scratch, with fresh weights of the random generator's seed."""
        if "weights" in files:
            load_weights(model, files["weights"])
        else:
            model.load_state_dict(self.build().state_dict(), assign=True)

    def recomputable(self, model: nn.Module) -> Sequence[nn.Module]:
        """Every block but the last."""
        return model.transformer.transformer_blocks[:-1]

    def samples(self, folders: Sequence[Path], train: bool) -> LatentDataset:
        """The images of one split, as latents."""
        images, latents, told = folders
        data, a, listed = self.settings.data, self.settings.model.architecture, read_list(images)
        if len(listed.classes) > a.classes:
            raise UserError(f"the images have {len(listed.classes)} classes, model.architecture.classes is {a.classes}")
        captions = Captions(told, data.text_length) if data.condition == "caption" else None
        trained, kept = split(list(enumerate(listed.images)), data.test)
        scale = autoencoder.scale_of(Path(self.settings.model.autoencoder))
        return LatentDataset(trained if train else kept, Latents(latents), captions, data, scale, a.classes, train)

    def fake_batch(self, batch: int) -> dict[str, Tensor]:
        """Random latents and noise; classes or captions."""
        a, data = self.settings.model.architecture, self.settings.data
        shape = (batch, a.latent_channels, a.latent_size, a.latent_size)
        told = {"label": torch.randint(a.classes + 1, (batch,))}
        if data.condition == "caption":
            told = {
                "tokens": torch.randn(batch, data.text_length, a.text_dim).half(),
                "mask": torch.ones(batch, data.text_length, dtype=torch.bool),
            }
        return {"latents": torch.randn(shape), "noise": torch.randn(shape), "step": torch.randint(STEPS, (batch,)), **told}

    def objective(self, model: nn.Module, batch: dict[str, Tensor], name: str) -> Objective:
        """The error of the noise. Nothing is random here: the samples hold noise and diffusion steps."""
        denoise = evaluation.denoiser(model, batch)
        losses = training_losses(denoise, batch["latents"], batch["noise"], batch["step"])
        parts = {part: value.detach() for part, value in losses.items()} if len(losses) > 1 else {}
        return Objective(sum(losses.values()), parts)

    def evaluate(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> Evaluation:
        """Images that ``model`` draws against real ones, and its loss on held-out ones; a grid of samples in ``out``."""
        how, samples = self.settings.evaluation, self.samples(folders, train=False)
        decoder = self._autoencoder(device)
        if self.settings.data.condition == "class":
            reference = TrainedJudge(folders[2], self.settings.data.judge.size, device)
        else:
            reference = self.samples(folders, train=True)
        return evaluation.evaluate(model, samples, read_list(folders[0]), how, decoder, reference, out, device)

    def preview(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> dict[str, float]:
        """The loss on a few held-out images, and a small grid of samples."""
        samples, listed = self.samples(folders, train=False), read_list(folders[0])
        how = self.settings.evaluation
        first = evaluation.distinct(samples, listed, how.rows)[: how.rows]
        wished = evaluation.in_turn(first, PREVIEWED * len(first))
        images = self._autoencoder(device).decode(evaluation.draw(model, samples, wished, how, device))
        save_grid(out / "samples.png", evaluation.grid_rows(wished, images, how.rows, PREVIEWED))
        return {"loss": evaluation.loss(model, samples, PREVIEW_LOSSES, how.batch, device)}

    def missing(self) -> list[str]:
        """Images, weights and frozen networks that are not there, or do not fit each other."""
        data, model = self.settings.data, self.settings.model
        a = model.architecture
        lines = self._missing_images()
        if model.weights is not None:
            lines += unfit(Path(model.weights), data.condition, a)
        lines += autoencoder.unfit(Path(model.autoencoder), a.latent_channels, data.size // a.latent_size)
        if data.condition == "caption":
            lines += encoder.unfit(Path(model.text_encoder), a.text_dim)
        return lines

    def _autoencoder(self, device: torch.device) -> Autoencoder:
        model = self.settings.model
        return Autoencoder(Path(model.autoencoder), device, model.slicing)

    def _missing_images(self) -> list[str]:
        data = self.settings.data
        if not Path(data.root).is_dir():
            return [f"data: there is no folder {data.root}; see docs/data.md for its layout"]
        if data.source != "coco":
            return []
        needed = [source_root(data, Path()), annotation_file(Path(data.root), data.part, data.condition)]
        return [f"data: {path} is not there; see docs/data.md for COCO's layout" for path in needed if not path.exists()]
