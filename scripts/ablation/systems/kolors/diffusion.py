"""Kolors' diffusion: the noise of a step, and what the network is to find.

``beta`` is linear in its square root from 0.00085 to 0.014 over 1100 steps, and the network predicts the noise (the release's
scheduler, Kwai-Kolors/Kolors, Apache-2.0).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ablation.systems.kolors.architecture import TRAIN_STEPS

FIRST_BETA, LAST_BETA = 0.00085, 0.014


def signal_left(steps: Tensor) -> Tensor:
    """How much of the signal's variance is left at ``steps`` [...], integers below TRAIN_STEPS -> fp32 [...].

    The table is made where it is needed: a thousand numbers, which nothing casts or has to save.
    """
    betas = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, TRAIN_STEPS, dtype=torch.float32, device=steps.device).square()
    return (1 - betas).cumprod(0)[steps]


def add_noise(latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """``latents`` [B, C, h, w] as they are at the diffusion ``steps`` [B]."""
    left = signal_left(steps)[:, None, None, None]
    return left.sqrt() * latents + (1 - left).sqrt() * noise


def denoising_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, fp32."""
    return F.mse_loss(predicted.float(), noise.float())
