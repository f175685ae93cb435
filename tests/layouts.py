"""What the tests of Kolors' data share: pictures, tables, a tokenizer, an autoencoder, all small and made on the spot."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from diffusers import AutoencoderKL
from PIL import Image

from ablation.systems.kolors.data.boxes import Box
from ablation.systems.kolors.data.layouts import Layout

SENTENCES = ["a photo of a cat and a cup on grass", "two dogs near the blue house", "the quick brown fox jumps over it"]


def save_picture(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0, **options) -> Path:
    """Random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_table(path: Path, rows: Iterable[tuple[str, str]], end: str = "\n") -> Path:
    """``image<TAB>caption``, a line each."""
    path.write_bytes("".join(f"{image}\t{caption}{end}" for image, caption in rows).encode())
    return path


def some_layouts(root: Path, count: int, size: tuple[int, int] = (40, 30)) -> list[Layout]:
    """Pictures below ``root`` with two boxes each."""
    made = []
    for number in range(count):
        save_picture(root / f"{number}.png", size, seed=number)
        boxes = (Box("cat", (100 + number, 200, 500, 700)), Box("a cup", (500, 300, 700, 650)))
        made.append(Layout(f"{number}.png", *size, f"a photo of a cat and a cup on grass {number}", boxes))
    return made


def save_tokenizer(folder: Path) -> Path:
    """A sentencepiece model of a few pieces, where ChatGLM's tokenizer has its own."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5), model_prefix=str(folder / "tokenizer"), vocab_size=64,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return folder


def save_vae(folder: Path) -> Path:
    """An autoencoder with random weights and SDXL's kind of blocks; a latent cell is 8 pixels wide."""
    torch.manual_seed(0)
    blocks = (8, 8, 8, 8)
    vae = AutoencoderKL(
        block_out_channels=blocks, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=32, scaling_factor=0.13025,
    )  # fmt: skip
    vae.save_pretrained(folder)
    return folder
