"""Pretrain the demo's small autoencoder of images on scikit-learn's digits, and write its folder (diffusers, fp16).

Only digits that the demo study trains on are used. ``make pretrain-dit-vae`` takes 4 minutes on one CPU core, and
gives one like the committed one, not the same bits.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ablation.cli import call
from ablation.study import load_study
from ablation.systems.dit.data.images import centred, read_picture
from ablation.systems.dit.data.listing import find_images, split

ROOT = Path(__file__).parent.parent
DEMO = load_study(ROOT / "config/studies/dit-images.yaml", {"scale": "demo"})
WIDTHS = (16, 32, 32, 32)  # channels; every level but the last halves the image
GROUPS = 8  # of its norms
DIVERGENCE = 1e-3  # weight of the latents' divergence from the normal distribution
SHIFT = 2  # pixels that an image is moved at most
SPACED = 7  # of so many digits, one is looked at for the scale of the latents: they are sorted by class
WARM_UP = 0.05  # share of the steps


def make_autoencoder() -> AutoencoderKL:
    """With fresh weights."""
    levels = len(WIDTHS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=DEMO.model.architecture.latent_channels,
        norm_num_groups=GROUPS,
        sample_size=DEMO.data.size,
        mid_block_add_attention=False,
    )


def read_digits() -> tuple[Tensor, Tensor]:
    """Images [N, 3, S, S] in [-1, 1]: those that the study trains on, and those that it keeps."""
    with tempfile.TemporaryDirectory() as folder:
        listed = find_images(DEMO.data, Path(folder)).images
        images = [centred(read_picture(Path(folder) / one.file), DEMO.data.size) for one in listed]
    trained, kept = split(images, DEMO.data.test)
    return torch.stack(trained) / 127.5 - 1, torch.stack(kept) / 127.5 - 1


def moved(images: Tensor, rng: np.random.Generator) -> Tensor:
    """``images``, all of them shifted by the same few pixels."""
    left, top = rng.integers(0, 2 * SHIFT + 1, 2)
    side = images.shape[-1]
    return F.pad(images, (SHIFT,) * 4, value=-1.0)[..., top : top + side, left : left + side]


def losses(model: AutoencoderKL, images: Tensor, noisy: bool) -> tuple[Tensor, Tensor]:
    """Mean absolute error of the images, and divergence of the latents, a number."""
    distribution = model.encode(images).latent_dist
    latents = distribution.sample() if noisy else distribution.mean
    return F.l1_loss(model.decode(latents).sample, images), distribution.kl().mean() / latents[0].numel()


@torch.no_grad()
def validate(model: AutoencoderKL, images: Tensor) -> dict[str, float]:
    """Errors on ``images``, and the deviation of their latents."""
    error, divergence = losses(model, images, noisy=False)
    deviation = model.encode(images).latent_dist.mean.std()
    return {"error": error.item(), "divergence": divergence.item(), "deviation": deviation.item()}


@torch.no_grad()
def save(model: AutoencoderKL, images: Tensor, folder: Path) -> None:
    """Half precision; scaled, the latents of ``images`` have deviation 1."""
    found = model.encode(images).latent_dist
    deviation = (found.mean.var() + found.var.mean()).sqrt().item()
    model.register_to_config(scaling_factor=round(1 / deviation, 4))
    model.half().save_pretrained(str(folder))


def main() -> None:
    """Read, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    trained, kept = read_digits()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = make_autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=WARM_UP, cycle_momentum=False)
    progress = tqdm(range(args.steps), desc="pretraining")
    for step in progress:
        images = moved(trained[torch.from_numpy(rng.permutation(len(trained))[: args.batch])], rng)
        error, divergence = losses(model, images, noisy=True)
        optimizer.zero_grad()
        (error + DIVERGENCE * divergence).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99 or step == args.steps - 1:
            progress.write(f"{step + 1}: " + ", ".join(f"{k} {v:.4f}" for k, v in validate(model, kept).items()))
    save(model, trained[::SPACED], args.output)


if __name__ == "__main__":
    call(main)
