"""RDT's diffusion over action chunks: the training loss (DDPM) and sampling (DPM-Solver++).

The network predicts the clean actions. Noise follows the squared cosine of Nichol & Dhariwal (ICML 2021) over 1000 steps.
"""

from math import pi
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.systems.rdt.model.runner import Observation

if TYPE_CHECKING:
    from diffusers import DPMSolverMultistepScheduler

STEPS = 1000
SAMPLING_STEPS = 5
OFFSET = 0.008  # of the cosine, so that the first step is not free of noise
LARGEST_BETA = 0.999  # the noise that one step may add; the last would add all


def alphas_cumprod(steps: Tensor) -> Tensor:
    """How much of the signal's variance is left at ``steps`` [...], integers below STEPS -> fp32 [...].

    Diffusers' DDPMScheduler holds this as a table. Here it is computed from the step, in closed form: the product of the
    ratios that the table multiplies is the ratio of their ends. So nothing need be copied to the device, or be kept from a
    module's cast to half precision.
    """
    steps = steps.double()
    last = steps == STEPS - 1
    left = _cosine((steps + 1 - last.double()) / STEPS) / _cosine(torch.zeros_like(steps))
    return torch.where(last, (1 - LARGEST_BETA) * left, left).float()


def _cosine(time: Tensor) -> Tensor:
    return torch.cos((time + OFFSET) / (1 + OFFSET) * pi / 2).square()


def add_noise(actions: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """``actions`` [B, H, A] as they are at the diffusion ``steps`` [B]."""
    left = alphas_cumprod(steps)[:, None, None]
    return left.sqrt() * actions + (1 - left).sqrt() * noise


def training_loss(model: nn.Module, observation: Observation, actions: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """Mean squared error of the predicted clean ``actions`` [B, H, A], fp32; over all entries, those of no robot included."""
    predicted = model(add_noise(actions, noise, steps), steps, observation)
    return F.mse_loss(predicted.float(), actions.float())


def solver(sampling_steps: int) -> "DPMSolverMultistepScheduler":
    """DPM-Solver++ of second order (Lu et al. 2022) set to ``sampling_steps``; its ``timesteps`` fall."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="sample"
    )
    scheduler.set_timesteps(sampling_steps)
    return scheduler


@torch.no_grad()
def sample(model: nn.Module, observation: Observation, noise: Tensor, sampling_steps: int = SAMPLING_STEPS) -> Tensor:
    """From ``noise`` [B, H, A] to actions [B, H, A], fp32; 0 where a robot has no entry."""
    scheduler, actions = solver(sampling_steps), noise.float()
    for step in scheduler.timesteps:
        # Through forward, whatever wraps it (autocast, adapters); that adapts the observation each time, a tenth of the work.
        predicted = model(actions, step.to(actions.device).expand(len(actions)), observation)
        actions = scheduler.step(predicted.float(), step, actions).prev_sample
    return actions * observation.action_mask
