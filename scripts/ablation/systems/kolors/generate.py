"""From noise to pictures, by Euler steps with guidance, as Kolors' pipeline makes them."""

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from ablation.systems.kolors.architecture import TRAIN_STEPS
from ablation.systems.kolors.diffusion import FIRST_BETA, LAST_BETA
from ablation.systems.kolors.network import Kolors
from ablation.systems.kolors.settings import Evaluation


def sampler(steps: int) -> EulerDiscreteScheduler:
    """Kolors' scheduler set to ``steps``."""
    scheduler = EulerDiscreteScheduler(
        TRAIN_STEPS, FIRST_BETA, LAST_BETA, "scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    scheduler.set_timesteps(steps)
    return scheduler


@torch.no_grad()
def generate(model: Kolors, batch: Mapping[str, Tensor], how: Evaluation, with_layout: bool) -> Tensor:
    """Latents [B, C, h, w] for the captions of ``batch`` and, if asked, its layouts, from its noise.

    Guidance leads away from what the released UNet makes of the empty text: no layout is told there, as in GLIGEN's sampling.
    """
    scheduler, time_ids = sampler(how.steps), batch["time_ids"]
    prompt, empty = model.prompt(batch["tokens"], batch["token_mask"]), model.empty_prompt(batch)
    layout = model.layout(batch) if with_layout else None
    latents = batch["noise"].float() * scheduler.init_noise_sigma
    for step in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, step)
        steps = step.to(latents.device).expand(len(latents))
        found = model.denoise(seen, steps, prompt, layout, time_ids).float()
        if how.guidance > 1:
            without = model.denoise(seen, steps, empty, None, time_ids).float()
            found = without + how.guidance * (found - without)
        latents = scheduler.step(found, step, latents).prev_sample
    return latents


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> list[Image.Image]:
    """The pictures of ``latents`` [B, C, h, w] in the UNet's scale."""
    images = vae.decode(latents.float() / vae.config.scaling_factor).sample
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(each) for each in pixels]
