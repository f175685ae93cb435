"""The frozen autoencoder between images and latents: AutoencoderKL from a folder of diffusers."""

from pathlib import Path

import torch
from torch import Tensor

from ablation.errors import UserError
from ablation.systems.released import load_frozen, read_config

DOWNLOAD = """\
  The autoencoder of DiT-XL/2 (0.3 GB): hf download facebook/DiT-XL-2-256 vae/ --local-dir models/DiT-XL-2-256"""


DEFAULT_SCALE = 0.18215  # of Stable Diffusion's autoencoder, whose older descriptions do not name it


class Autoencoder:
    """Images to distributions of latents, and latents to images, in fp32; with ``slicing``, one image after the other."""

    def __init__(self, folder: Path, device: torch.device, slicing: bool):
        from diffusers import AutoencoderKL

        self.device = device
        # Fresh weights first (low_cpu_mem_usage): else what a file lacks would be told as an error of another kind.
        how = {"use_safetensors": True, "torch_dtype": torch.float32, "low_cpu_mem_usage": False}
        self.model = load_frozen(AutoencoderKL, folder, DOWNLOAD, **how).to(device)
        if slicing:
            self.model.enable_slicing()
        self.scale = scale_of(folder)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """``images`` [N, 3, S, S], uint8 -> means and log-variances [N, 2C, h, w], fp32, on the CPU."""
        distribution = self.model.encode(images.to(self.device).float() / 127.5 - 1).latent_dist
        return torch.cat([distribution.mean, distribution.logvar], dim=1).cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled ``latents`` [N, C, h, w] -> images [N, 3, S, S], uint8, on the CPU."""
        with torch.autocast(self.device.type, enabled=False):
            images = self.model.decode(latents.to(self.device).float() / self.scale).sample
        return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def scale_of(folder: Path) -> float:
    """The transformer's latents over those of the autoencoder in ``folder``: without a word of it, as diffusers has it."""
    return float(read_config(folder, DOWNLOAD).get("scaling_factor", DEFAULT_SCALE))


def unfit(folder: Path, latent_channels: int, factor: int) -> list[str]:
    """What is missing of the autoencoder, or does not fit the transformer; a line each. Reads one small file."""
    try:
        config = read_config(folder, DOWNLOAD)
    except UserError as error:
        return [f"model.autoencoder: {error}"]
    found = {
        "model.architecture.latent_channels": (config.get("latent_channels"), latent_channels),
        "data.size over model.architecture.latent_size": (2 ** (len(config.get("block_out_channels", [0])) - 1), factor),
    }
    return [
        f"model.autoencoder: {folder} gives {theirs}, {setting} says {ours}"
        for setting, (theirs, ours) in found.items()
        if theirs != ours
    ]
