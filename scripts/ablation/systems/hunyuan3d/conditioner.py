"""What Hunyuan3D-2.1 sees of an image: the tokens of a frozen DINOv2, zeros where it shall see nothing."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model

from ablation.systems.hunyuan3d.settings import Conditioner
from ablation.systems.hunyuan3d.tokens import token_count

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's red, green and blue, in [0, 1]
DEVIATION = (0.229, 0.224, 0.225)


def prepare_images(images: Tensor, size: int) -> Tensor:
    """``images`` [B, 3, H, W] in [-1, 1] -> [B, 3, size, size] as DINOv2 wants them, in fp32.

    The shorter side becomes ``size`` (bilinear, antialiased), the middle of the longer one is kept.
    """
    square = _centre(_resize((images.float() + 1) / 2, size), size)
    return (square - square.new_tensor(MEAN)[:, None, None]) / square.new_tensor(DEVIATION)[:, None, None]


def _resize(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    shorter = min(height, width)
    if shorter == size:
        return images
    new = (size * height // shorter, size * width // shorter)
    return F.interpolate(images, new, mode="bilinear", align_corners=False, antialias=True)


def _centre(images: Tensor, size: int) -> Tensor:
    top, left = (round((side - size) / 2) for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


class ImageEncoder(nn.Module):
    """A DINOv2 of random weights; nothing is downloaded."""

    def __init__(self, c: Conditioner):
        super().__init__()
        self.model = Dinov2Model(
            Dinov2Config(
                image_size=c.trained_size,
                patch_size=c.patch_size,
                hidden_size=c.dim,
                num_hidden_layers=c.depth,
                num_attention_heads=c.heads,
                mlp_ratio=c.mlp_ratio,
            )
        )

    def forward(self, prepared: Tensor) -> Tensor:
        """[B, 3, S, S] -> tokens after the last norm, the class token first [B, L, D]."""
        return self.model(prepared).last_hidden_state


class ImageConditioner(nn.Module):
    """Parameter names and shapes equal those of ``conditioner`` in the release, but for four of transformers (``weights.py``).

    It is frozen: no parameter takes a gradient, and none passes through it.
    """

    def __init__(self, settings: Conditioner):
        super().__init__()
        self.settings = settings
        self.main_image_encoder = ImageEncoder(settings)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "ImageConditioner":
        """Stays as it is: a frozen network has no training mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """``images`` [B, 3, H, W] in [-1, 1] -> tokens [B, L, D]."""
        return self.main_image_encoder(prepare_images(images, self.settings.image_size))

    def unconditional(self, batch: int) -> Tensor:
        """[B, L, D]: what stands for no image, zeros."""
        parameter = next(self.parameters())
        tokens = token_count(self.settings.image_size, self.settings.patch_size)
        return parameter.new_zeros(batch, tokens, self.settings.dim)
