"""DiT's diffusion: 1000 steps of linear variances (Ho et al. 2020); the noise is predicted, and the variance of a step."""

from collections.abc import Callable
from math import log, pi

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 1000
BETAS = (1e-4, 0.02)  # the first and the last

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Latents [B, C, h, w] and steps [B] -> the network's output."""


class Table:
    """What every step of the diffusion does; all [STEPS], fp32."""

    def __init__(self, device: torch.device | str):
        beta = torch.linspace(*BETAS, STEPS, dtype=torch.float64, device=device)  # there, so that nothing is copied
        left = (1 - beta).cumprod(0)
        before = F.pad(left[:-1], (1, 0), value=1.0)
        posterior = beta * (1 - before) / (1 - left)
        posterior = torch.cat([posterior[1:2], posterior[1:]])  # the first is 0 and has no logarithm
        values = {
            "signal": left.sqrt(),
            "noise": (1 - left).sqrt(),
            "from_start": beta * before.sqrt() / (1 - left),
            "from_noisy": (1 - before) * (1 - beta).sqrt() / (1 - left),
            "log_least": posterior.log(),
            "log_most": beta.log(),
        }
        self._values = {name: value.float() for name, value in values.items()}

    def __getitem__(self, what: tuple[str, Tensor]) -> Tensor:
        """The value ``name`` at ``steps`` [B] -> [B, 1, 1, 1]."""
        name, steps = what
        return self._values[name][steps][:, None, None, None]


def training_losses(denoise: Denoiser, clean: Tensor, noise: Tensor, steps: Tensor) -> dict[str, Tensor]:
    """The error of the noise, ``mse``; where the network predicts variances, also their bound ``vlb``, in bits a number.

    DiT trains by their sum (the hybrid of Nichol & Dhariwal, ICML 2021); the bound's gradient reaches the variances alone.
    """
    table = Table(clean.device)
    noisy = table["signal", steps] * clean + table["noise", steps] * noise
    predicted, variance = halves(denoise(noisy, steps).float(), clean.shape[1])
    losses = {"mse": F.mse_loss(predicted, noise)}
    if variance.shape[1]:
        losses["vlb"] = _bound(table, clean, noisy, steps, predicted.detach(), variance).mean()
    return losses


def halves(output: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """The noise and the variances (without channels where there are none) in a network's output."""
    return output[:, :channels], output[:, channels:]


def _bound(table: Table, clean: Tensor, noisy: Tensor, steps: Tensor, predicted: Tensor, variance: Tensor) -> Tensor:
    """The variational bound at ``steps``, for each sample [B]: how far the predicted step back is from the true one."""
    start = (noisy - table["noise", steps] * predicted) / table["signal", steps]
    true_mean = table["from_start", steps] * clean + table["from_noisy", steps] * noisy
    mean = table["from_start", steps] * start + table["from_noisy", steps] * noisy
    least, most = table["log_least", steps], table["log_most", steps]
    log_variance = least + (variance + 1) / 2 * (most - least)
    divergence = normal_divergence(true_mean, least, mean, log_variance)
    likelihood = discretised_likelihood(clean, mean, log_variance / 2)
    bits = torch.where(steps[:, None, None, None] == 0, -likelihood, divergence) / log(2)
    return bits.flatten(1).mean(1)


def normal_divergence(mean: Tensor, log_variance: Tensor, other: Tensor, other_log_variance: Tensor) -> Tensor:
    """The Kullback-Leibler divergence from a normal distribution to another, each entry by itself, in nats."""
    distance = (mean - other).square() * (-other_log_variance).exp()
    return 0.5 * (other_log_variance - log_variance - 1 + (log_variance - other_log_variance).exp() + distance)


def discretised_likelihood(values: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Log-probability of the 256 shades of ``values`` in [-1, 1] under a normal distribution, as if latents were pixels."""
    centred, inverse = values - mean, (-log_deviation).exp()
    upper = _normal_cdf((centred + 1 / 255) * inverse).clamp(min=1e-12)
    lower = _normal_cdf((centred - 1 / 255) * inverse)
    between = (upper - lower).clamp(min=1e-12)
    ends = torch.where(values > 0.999, (1 - lower).clamp(min=1e-12), between)
    return torch.where(values < -0.999, upper, ends).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """By tanh, as the release has it: the exact one gives other losses and gradients at step 0, by per cents."""
    return 0.5 * (1 + torch.tanh((2 / pi) ** 0.5 * (x + 0.044715 * x**3)))


def guided(denoise: Denoiser, unconditional: Denoiser, channels: int, guidance: float) -> Denoiser:
    """The noise by classifier-free guidance (Ho & Salimans 2022): beyond what is told, away from what is not; 1: as told."""

    def noise(latents: Tensor, steps: Tensor) -> Tensor:
        told = halves(denoise(latents, steps).float(), channels)[0]
        if guidance == 1:
            return told
        untold = halves(unconditional(latents, steps).float(), channels)[0]
        return untold + guidance * (told - untold)

    return noise


@torch.no_grad()
def sample(noise_in: Denoiser, noise: Tensor, steps: int) -> Tensor:
    """From ``noise`` [B, C, h, w] to latents, fp32, by DPM-Solver++ of second order (Lu et al. 2022)."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=STEPS,
        beta_schedule="linear",
        beta_start=BETAS[0],
        beta_end=BETAS[1],
        prediction_type="epsilon",
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(steps)
    latents = noise.float()
    for step in scheduler.timesteps:
        predicted = noise_in(latents, step.to(latents.device).expand(len(latents)))
        latents = scheduler.step(predicted, step, latents).prev_sample
    return latents
