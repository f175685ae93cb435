"""The ``hunyuan3d`` system: what the trainer needs of Hunyuan3D-2.1's shape transformer.

What prepares and what judges is loaded where it is used: libraries that training does without, seconds of its start.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ablation.systems.base import Evaluation, Objective
from ablation.systems.hunyuan3d.data.dataset import ShapeDataset
from ablation.systems.hunyuan3d.network import ShapeGenerator
from ablation.systems.hunyuan3d.settings import POINT_FEATURES, SystemSettings, source_of
from ablation.systems.hunyuan3d.weights import DOWNLOAD, PARTS, UNTRAINED, load_weights, missing_parts


class System:
    """Hunyuan3D-2.1 with the settings of one run."""

    fp32_modules = ()
    objectives = ("flow",)

    def __init__(self, settings: SystemSettings):
        self.settings = settings

    def build(self) -> nn.Module:
        """The three networks with fresh weights."""
        return ShapeGenerator(self.settings.model)

    def load_weights(self, model: nn.Module, files: dict[str, Path]) -> None:
        """Fill the three networks from the released file."""
        load_weights({name: getattr(model, name) for name in PARTS}, files["weights"])

    def recomputable(self, model: nn.Module) -> Sequence[nn.Module]:
        """The blocks of the transformer but the last."""
        return model.model.blocks[:-1]

    def samples(self, folders: Sequence[Path], train: bool) -> ShapeDataset:
        """Pictures of one split, each with its shape."""
        return ShapeDataset(folders, self.settings.data, self.settings.model, train)

    def fake_batch(self, batch: int) -> dict[str, Tensor]:
        """Random points, a grey image and noise; the first points become latents."""
        data, model = self.settings.data, self.settings.model
        side, points = model.conditioner.image_size, data.points + data.sharp_points
        tokens = (batch, model.architecture.latents, model.architecture.channels)
        return {
            "surface": torch.rand(batch, points, 3 + POINT_FEATURES),
            "chosen": torch.arange(model.architecture.latents).repeat(batch, 1),
            "image": torch.zeros(batch, 3, side, side),
            "posterior_noise": torch.randn(tokens),
            "flow_noise": torch.randn(tokens),
            "time": torch.rand(batch),
        }

    def objective(self, model: nn.Module, batch: dict[str, Tensor], name: str) -> Objective:
        """The error of the velocity. The experts' balance enters its gradient, not its value."""
        return Objective(model(batch), {})

    def evaluate(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> Evaluation:
        """Shapes sampled from held-out pictures against the true ones; meshes and pictures of some in ``out``."""
        from ablation.systems.hunyuan3d import judge

        return judge.evaluate(model, self.samples(folders, train=False), self.settings.evaluation, out, device)

    def preview(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> dict[str, float]:
        """The loss on fixed draws of held-out samples, and one of them as a mesh in ``out``."""
        from ablation.systems.hunyuan3d import judge

        return judge.preview(model, self.samples(folders, train=False), self.settings.evaluation, out, device)

    def missing(self) -> list[str]:
        """Shapes and weights that are not there."""
        data, weights = self.settings.data, Path(self.settings.model.weights)
        lines = []
        if lacking := [shape for shape in data.shapes if not Path(source_of(data, shape)).exists()]:
            lines.append(f"data: {data.root} lacks the shapes {', '.join(lacking)}\n  see docs/data.md for the layout")
        if problem := missing_parts(weights):
            lines.append(f"weights: {problem}; {UNTRAINED}\n{DOWNLOAD}")
        return lines
