"""The ``rdt`` system: what the trainer needs of RDT on the episodes of a robot."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ablation.parts import Part
from ablation.systems.base import Evaluation, Objective
from ablation.systems.rdt.data.dataset import StepDataset
from ablation.systems.rdt.data.episodes import find_episodes, read_list, split, write_list
from ablation.systems.rdt.data.statistics import statistics_of
from ablation.systems.rdt.data.tokens import ImageTokens, TextTokens, Tokens, embed_images, embed_texts
from ablation.systems.rdt.diffusion import STEPS, training_loss
from ablation.systems.rdt.encoders import ImageEncoder, TextEncoder, encoder_device, unfit
from ablation.systems.rdt.evaluation import closed_loop, predict_samples
from ablation.systems.rdt.model.runner import Observation, RDTRunner
from ablation.systems.rdt.settings import Data, SystemSettings
from ablation.systems.rdt.weights import DOWNLOAD as WEIGHTS_DOWNLOAD
from ablation.systems.rdt.weights import load_weights

PREVIEWED = 16  # samples of a preview


class System:
    """RDT with the settings of one run."""

    fp32_modules = ()

    def __init__(self, settings: SystemSettings):
        self.settings = settings

    def build(self) -> nn.Module:
        """RDT and its adaptors with fresh weights."""
        return RDTRunner(self.settings.model.architecture)

    def load_weights(self, model: nn.Module, files: dict[str, Path]) -> None:
        """Fill ``model`` from the released file."""
        load_weights(model, files["weights"])

    def set_gradient_checkpointing(self, model: nn.Module, enabled: bool) -> None:
        """Recompute every block."""
        model.gradient_checkpointing(enabled)

    def samples(self, folders: Sequence[Path], train: bool) -> StepDataset:
        """The steps of the episodes of one split."""
        listed, text, images = folders
        data, architecture = self.settings.data, self.settings.model.architecture
        trained, kept = split(read_list(listed), data.test)
        tokens = Tokens(TextTokens(text, data.text_length), ImageTokens(images))
        statistics = statistics_of(trained)
        episodes = trained if train else kept
        return StepDataset(
            episodes, statistics, tokens, data, architecture.horizon, architecture.images.history, train
        )

    def fake_batch(self, batch: int) -> dict[str, Tensor]:
        """Random tokens, states and actions; all samples have the same sizes."""
        a, data = self.settings.model.architecture, self.settings.data
        return {
            "state": torch.randn(batch, 1, a.action_dim),
            "mask": torch.ones(batch, 1, a.action_dim),
            "actions": torch.randn(batch, a.horizon, a.action_dim),
            "noise": torch.randn(batch, a.horizon, a.action_dim),
            "diffusion": torch.randint(STEPS, (batch,)),
            "lang_tokens": torch.randn(batch, data.text_length, a.lang_dim).half(),
            "lang_mask": torch.ones(batch, data.text_length, dtype=torch.bool),
            "img_tokens": torch.randn(batch, a.images.tokens, a.img_dim).half(),
            "frequency": torch.full((batch,), data.frequency),
        }

    def objectives(self, model: nn.Module, batch: dict[str, Tensor]) -> Iterator[Objective]:
        """One objective: the error of the clean actions. Nothing is random here: noise and diffusion steps are the samples' own."""
        loss = training_loss(model, observation_of(batch), batch["actions"], batch["noise"], batch["diffusion"])
        yield Objective("actions", loss, {})

    def evaluate(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> Evaluation:
        """Errors of predicted actions on the held-out steps; where there is a simulation, also attempts at the task in it."""
        return Evaluation({}, [], {})

    def preview(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> dict[str, float]:
        """Errors of predicted actions on a few held-out steps."""
        return {}

    def missing(self) -> list[str]:
        """Episodes, encoders and weights that are not there, or do not fit each other."""
        data, lines = self.settings.data, []
        if data.source == "aloha" and next(Path(data.root).rglob("*.hdf5"), None) is None:
            lines.append(f"data: there is no *.hdf5 file below {data.root}; see docs/data.md for the layout")
        lines += unfit(self.settings)
        if not Path(self.settings.model.weights).is_file():
            lines.append(f"weights: {self.settings.model.weights} is not there\n{WEIGHTS_DOWNLOAD}")
        return lines

    @staticmethod
    def prepare(part: Part, needs: Sequence[Path], out: Path) -> None:
        """``episodes``: examine them, or record them first; ``text``, ``image``: the embeddings of what they tell and show."""
        if part.stage == "episodes":
            data = Data(**part.settings)
            root = out if data.source == "simulation" else Path(data.root)
            write_list(find_episodes(root, data), root, out)
        elif part.stage == "text":
            embed_texts(read_list(needs[0]), TextEncoder(Path(part.settings["encoder"]), encoder_device()), out)
        else:
            encode = ImageEncoder(Path(part.settings["encoder"]), encoder_device())
            embed_images(read_list(needs[0]), encode, Data(**part.settings["data"]), out)


def observation_of(batch: dict[str, Tensor]) -> Observation:
    """What the network is told in a batch of samples."""
    return Observation(
        batch["lang_tokens"], batch["lang_mask"], batch["img_tokens"], batch["state"], batch["mask"], batch["frequency"]
    )
