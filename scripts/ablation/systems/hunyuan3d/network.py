"""The three networks of Hunyuan3D-2.1 as one, under the names of the release; only the shape transformer learns."""

import torch
from torch import Tensor, nn

from ablation.systems.hunyuan3d.conditioner import ImageConditioner
from ablation.systems.hunyuan3d.flow import flow_step
from ablation.systems.hunyuan3d.model.dit import ShapeTransformer
from ablation.systems.hunyuan3d.settings import Model
from ablation.systems.hunyuan3d.vae.vae import ShapeVAE


class ShapeGenerator(nn.Module):
    """From an image to a shape. Its forward pass is the training objective, so that whatever wraps it sees the whole step.

    The transformer is to be trained in training mode: in evaluation mode the release's experts get no gradient.
    """

    def __init__(self, settings: Model):
        super().__init__()
        self.model = ShapeTransformer(settings.architecture)
        self.vae = ShapeVAE(settings.autoencoder)
        self.conditioner = ImageConditioner(settings.conditioner)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The flow's loss, a scalar, for samples of :class:`~ablation.systems.hunyuan3d.data.dataset.ShapeDataset`."""
        data = self.latents(batch["surface"], batch["chosen"], batch["posterior_noise"])
        condition = self.describe(batch["image"])
        return flow_step(self.model, data, batch["flow_noise"], batch["time"], condition).loss

    @torch.no_grad()
    def latents(self, surface: Tensor, chosen: Tensor, noise: Tensor) -> Tensor:
        """``surface`` [B, N, 7], ``chosen`` [B, latents], ``noise`` [B, latents, C] -> scaled latents [B, latents, C]."""
        return self.vae.scaled(self.vae.encode(surface, chosen).sample(noise))

    def describe(self, image: Tensor) -> Tensor:
        """``image`` [B, 3, H, W] in [-1, 1] -> tokens [B, L, D], without gradient."""
        return self.conditioner(image)

    def velocity(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Latents [B, N, C], times [B], tokens [B, L, D] -> velocity [B, N, C]."""
        return self.model(x, t, condition)
