"""The ``rdt`` system: what the trainer needs of RDT on the episodes of a robot.

What prepares and what judges is loaded where it is used: libraries that training does without, seconds of its start.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ablation.systems.base import Evaluation, Objective
from ablation.systems.rdt.data.dataset import StepDataset
from ablation.systems.rdt.data.episodes import count_steps, read_list, split
from ablation.systems.rdt.data.tokens import ImageTokens, TextTokens, Tokens, cache_bytes
from ablation.systems.rdt.diffusion import STEPS, training_loss
from ablation.systems.rdt.model.runner import RDTRunner, observation_of
from ablation.systems.rdt.settings import SystemSettings
from ablation.systems.rdt.weights import DOWNLOAD as WEIGHTS_DOWNLOAD
from ablation.systems.rdt.weights import load_weights

log = logging.getLogger(__name__)

GIB = 2**30
LARGE = 10 * GIB  # a cache that is worth a warning
PREVIEWED = 16  # samples of a preview


class System:
    """RDT with the settings of one run."""

    fp32_modules = ()
    objectives = ("actions",)

    def __init__(self, settings: SystemSettings):
        self.settings = settings

    def build(self) -> nn.Module:
        """RDT and its adaptors with fresh weights."""
        return RDTRunner(self.settings.model.architecture)

    def load_weights(self, model: nn.Module, files: dict[str, Path]) -> None:
        """Fill ``model`` from the released file."""
        load_weights(model, files["weights"])

    def recomputable(self, model: nn.Module) -> Sequence[nn.Module]:
        """Every block but the last."""
        return model.model.blocks[:-1]

    def samples(self, folders: Sequence[Path], train: bool) -> StepDataset:
        """The steps of the episodes of one split."""
        listed, text, images = folders
        data, architecture = self.settings.data, self.settings.model.architecture
        trained, kept = split(read_list(listed), data.test)
        tokens = Tokens(TextTokens(text, data.text_length), ImageTokens(images))
        return StepDataset(trained if train else kept, tokens, data, architecture.horizon, architecture.images.history, train)

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

    def objective(self, model: nn.Module, batch: dict[str, Tensor], name: str) -> Objective:
        """The error of the clean actions. Nothing is random here: the samples hold noise and diffusion steps."""
        loss = training_loss(model, observation_of(batch), batch["actions"], batch["noise"], batch["diffusion"])
        return Objective(loss, {})

    def evaluate(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> Evaluation:
        """Errors of predicted actions on held-out steps; where there is a simulation, also attempts at the task in it."""
        from ablation.systems.rdt.evaluation import by_item, drive, held_still, mean_of, predict
        from ablation.systems.rdt.pictures import save_actions

        settings, samples = self.settings, self.samples(folders, train=False)
        evaluation = settings.evaluation
        predicted = predict(model, samples, evaluation.samples, evaluation, device)
        attempts = drive(model, settings, samples, out, device) if settings.rolls_out else []
        notes = {
            "samples": f"{len(predicted.rows)} steps of {len(samples.episodes)} held-out episodes",
            "a robot that holds still would have": f"sample MSE {held_still(samples, predicted, evaluation.samples):.4f}",
        }
        if attempts:
            notes["success"] = f"{len(attempts)} episodes in closed loop, {evaluation.execute} actions a prediction"
        save_actions(out / "actions.png", predicted)
        return Evaluation(mean_of([*attempts, *predicted.rows]), by_item([*attempts, *predicted.rows]), notes)

    def preview(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> dict[str, float]:
        """Errors of predicted actions on a few held-out steps, and a picture of them."""
        from ablation.systems.rdt.evaluation import mean_of, predict
        from ablation.systems.rdt.pictures import save_actions

        samples = self.samples(folders, train=False)
        predicted = predict(model, samples, PREVIEWED, self.settings.evaluation, device)
        save_actions(out / "actions.png", predicted)
        return mean_of(predicted.rows)

    def missing(self) -> list[str]:
        """Episodes, encoders and weights that are not there, or do not fit each other."""
        from ablation.systems.rdt.encoders import unfit

        lines = self._missing_episodes() if self.settings.data.source != "simulation" else []
        lines += unfit(self.settings)
        if not Path(self.settings.model.weights).is_file():
            lines.append(f"weights: {self.settings.model.weights} is not there\n{WEIGHTS_DOWNLOAD}")
        return lines

    def _missing_episodes(self) -> list[str]:
        """No episodes; where there are some, a warning of the disk that they will take."""
        data, a = self.settings.data, self.settings.model.architecture
        steps = count_steps(Path(data.root), data)
        if steps == 0:
            what = "a LeRobot data set" if data.source == "lerobot" else "a *.hdf5 file with an episode"
            return [f"data: there is no {what} below {data.root}; see docs/data.md for the layout"]
        if (needed := cache_bytes(steps, data, a.images.patches, a.img_dim)) > LARGE:
            log.warning("the embeddings of the images below %s will take %.0f GiB of disk", data.root, needed / GIB)
        return []
