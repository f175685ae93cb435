"""The ``newsystem`` system: what the trainer and the predictor of memory need; the protocol is ``systems/base.py``."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ablation.systems.base import Draw, Evaluation, Objective
from ablation.systems.newsystem.data import Waves
from ablation.systems.newsystem.network import Denoiser
from ablation.systems.newsystem.settings import SystemSettings

PREVIEWED = 64  # held-out waves whose error a preview gives


class System:
    """The network with the settings of one run."""

    fp32_modules = ()
    """Prefixes of modules that compute in fp32 whatever the precision of the run."""
    objectives = ("error",)
    """Names of the losses of a step; each is asked for alone."""

    def __init__(self, settings: SystemSettings):
        self.settings = settings

    def build(self) -> nn.Module:
        """The network with fresh weights. It is also built on the device ``meta``: read no value of a weight here."""
        return Denoiser(self.settings.data.length, self.settings.model.width, self.settings.model.depth)

    def load_weights(self, model: nn.Module, files: dict[str, Path]) -> None:
        """Fill ``model``, which has no memory yet: here with fresh weights. ``systems/weights.py`` reads files, strictly."""
        model.load_state_dict(self.build().state_dict(), assign=True)

    def recomputable(self, model: nn.Module) -> Sequence[nn.Module]:
        """The blocks but the last, in the order of the forward pass: those that a run may recompute in the backward pass."""
        return model.blocks[:-1]

    def samples(self, folders: Sequence[Path], train: bool) -> Waves:
        """The waves of one split, from the prepared folders in the order of ``settings.parts()``."""
        return Waves(folders[0], self.settings.data, train)

    def fake_batch(self, batch: int) -> dict[str, Tensor]:
        """Random tensors in the shapes and types of a real batch: what memory is predicted from, and probes run on."""
        shape = (batch, self.settings.data.length)
        return {"clean": torch.randn(shape), "noisy": torch.randn(shape)}

    def objective(self, model: nn.Module, batch: dict[str, Tensor], name: str) -> Objective:
        """The mean squared error, in fp32. Of several objectives, ``name`` says which; parts of a loss go into the record."""
        error = nn.functional.mse_loss(model(batch["noisy"]).float(), batch["clean"])
        return Objective(error, {})

    def evaluate(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> Evaluation:
        """The error on held-out waves: their mean, and each alone, which the report's intervals are from.

        Pictures for the report go to ``out``, PNG or WebP; ``settings.pictured()`` says what one sees.
        """
        errors = self._errors(model, folders, device, len(self.samples(folders, train=False)))
        items = [{"item": f"wave {number}", "error": error} for number, error in enumerate(errors)]
        return Evaluation({"error": sum(errors) / len(errors)}, items, {"error": "of a wave of variance 1"})

    def preview(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> dict[str, float]:
        """The error on a few held-out waves."""
        errors = self._errors(model, folders, device, PREVIEWED)
        return {"error": sum(errors) / len(errors)}

    def missing(self) -> list[str]:
        """What the run needs and does not find: data, weights; a line each, with what to do."""
        return []

    def _errors(self, model: nn.Module, folders: Sequence[Path], device: torch.device, most: int) -> list[float]:
        samples, size = self.samples(folders, train=False), self.settings.evaluation.batch
        draws, errors = [Draw(0, 0, 0, index) for index in range(min(most, len(samples)))], []
        for start in range(0, len(draws), size):
            batch = default_collate([samples[draw] for draw in draws[start : start + size]])
            cleaned = model(batch["noisy"].to(device)).float().cpu()
            errors += (cleaned - batch["clean"]).square().mean(1).tolist()
        return errors
