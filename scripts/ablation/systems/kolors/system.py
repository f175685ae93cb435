"""The ``kolors`` system: what the trainer needs of Kolors with a layout adapter.

What prepares and what judges is loaded where it is used: libraries that training does without, seconds of its start.
"""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from ablation.systems.base import Evaluation, Objective
from ablation.systems.kolors.architecture import TIME_IDS, TRAIN_STEPS
from ablation.systems.kolors.data.dataset import LayoutDataset
from ablation.systems.kolors.data.tokens import Tokenizer
from ablation.systems.kolors.network import Kolors
from ablation.systems.kolors.objectives import OBJECTIVES
from ablation.systems.kolors.settings import FROZEN, SystemSettings
from ablation.systems.kolors.weights import DOWNLOAD, load_network, missing_weights


class System:
    """Kolors with the settings of one run."""

    fp32_modules = ()
    objectives = tuple(OBJECTIVES)

    def __init__(self, settings: SystemSettings):
        self.settings = settings

    def build(self) -> nn.Module:
        """UNet, language model, adapter and heads with fresh weights."""
        return Kolors(self.settings.model.architecture, self.settings.data.text_length)

    def load_weights(self, model: nn.Module, files: dict[str, Path]) -> None:
        """Fill UNet and language model from their folders; adapter and heads start fresh, always at the same values.

        The language model is only ever read, so it is held as its file has it: 12 GB in place of 25.
        """
        sizes = self.settings.model.architecture
        unet = sizes.unet.config(sizes.text_encoder.dim)
        load_network(model.unet, files["unet"], "unet", unet, torch.float32)
        load_network(model.text_encoder, files["text_encoder"], "text_encoder", sizes.text_encoder.config(), None)
        model.start()

    def recomputable(self, model: nn.Module) -> Sequence[nn.Module]:
        """The blocks of the UNet but the last, with what the adapter does in them."""
        unet, found = model.unet, []
        for part in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            for resnet, attention in zip_longest(part.resnets, getattr(part, "attentions", ())):
                found += [resnet, *(attention.transformer_blocks if attention else ())]
        return found[:-1]

    def samples(self, folders: Sequence[Path], train: bool) -> LayoutDataset:
        """The captioned pictures with boxes of one split."""
        tokenizer = Tokenizer(Path(self.settings.model.folder("tokenizer")))
        return LayoutDataset(folders, tokenizer, self.settings.data, TRAIN_STEPS, train)

    def fake_batch(self, batch: int) -> dict[str, Tensor]:
        """Random latents, noise and words; all boxes there, all samples of one size."""
        data, sizes = self.settings.data, self.settings.model.architecture
        cells = data.resolution // sizes.unet.factor
        latents = (batch, sizes.unet.latents, cells, cells)
        boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).repeat(batch, data.max_boxes, 1)
        labels = (batch, data.max_boxes, data.label_length)
        return {
            **{name: torch.randn(latents) for name in ("latents", "noise", "feature_noise")},
            "diffusion": torch.randint(TRAIN_STEPS, (batch,)),
            "tokens": torch.randint(sizes.text_encoder.vocabulary, (batch, data.text_length)),
            "token_mask": torch.ones(batch, data.text_length, dtype=torch.bool),
            "boxes": boxes,
            "box_mask": torch.ones(batch, data.max_boxes, dtype=torch.bool),
            "labels": torch.randint(sizes.text_encoder.vocabulary, labels),
            "label_mask": torch.ones(labels, dtype=torch.bool),
            "time_ids": torch.full((batch, TIME_IDS), float(data.resolution)),
        }

    def objective(self, model: nn.Module, batch: dict[str, Tensor], name: str) -> Objective:
        """One of captioning, retrieval and generation. Nothing is random here: the samples hold noise and diffusion steps."""
        loss, parts = model(batch, name)
        return Objective(getattr(self.settings.objectives, name) * loss, parts)

    def evaluate(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> Evaluation:
        """Denoising in and outside boxes, captions, retrieval; pictures of some held-out layouts in ``out``."""
        from ablation.systems.kolors import evaluation

        how, vae = self.settings.evaluation, Path(self.settings.model.folder("vae"))
        return evaluation.evaluate(model, self.samples(folders, train=False), vae, how, out, device)

    def preview(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> dict[str, float]:
        """The error of denoising on a few held-out layouts, and pictures of fewer."""
        from ablation.systems.kolors import evaluation

        how, vae = self.settings.evaluation, Path(self.settings.model.folder("vae"))
        return evaluation.preview(model, self.samples(folders, train=False), vae, how, out, device)

    def missing(self) -> list[str]:
        """Networks, tokenizer, pictures and tables that are not there."""
        model = self.settings.model
        problems = [missing_weights(Path(model.folder(name)), name) for name in FROZEN]
        problems += [f"{path} is not there" for path in map(model.folder, ("tokenizer", "vae")) if not Path(path).is_dir()]
        lines = [f"weights: {'; '.join(lacking)}\n{DOWNLOAD}"] if (lacking := [each for each in problems if each]) else []
        data = [path for path in self.settings.data.outside() if not Path(path).exists()]
        return lines + [f"data: {path} is not there; see docs/data.md" for path in data]
