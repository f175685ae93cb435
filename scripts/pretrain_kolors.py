"""Make what the demo of Kolors starts from: small networks of its classes, trained on collages of real photographs.

Writes ``vae``, ``tokenizer``, ``text_encoder`` and ``unet`` in diffusers' folder layout, fp16. They are made in this order: the
VAE learns to reproduce collages, the text encoder to continue their captions, the UNet to denoise the VAE's latents as the
captions tell. Captions tell no places, so the layout is what is left for the adapter.

The committed ``resources/kolors-demo`` was made by these functions, called one by one: the autoencoder by an earlier state of
them, its decoder trained on alone after the UNet had learnt. ``make pretrain-kolors`` (about 40 minutes on one CPU core) gives
some like it, not the same bits.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.kolors.text_encoder import ChatGLMModel
from sentencepiece import SentencePieceTrainer
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ablation.cli import call
from ablation.files import write_json
from ablation.pretraining import train
from ablation.study import load_study
from ablation.systems.kolors.architecture import TRAIN_STEPS
from ablation.systems.kolors.data.collages import Photographs, collage, read_photographs
from ablation.systems.kolors.data.tokens import Tokenizer
from ablation.systems.kolors.diffusion import add_noise
from ablation.systems.kolors.language import Prompt, beyond_prefix, next_word_loss, read, read_prompt, text_encoder
from ablation.systems.kolors.language import words as word_vectors

ROOT = Path(__file__).parent.parent
PHOTOGRAPHS = ROOT / "resources/photographs"
STUDY = load_study(ROOT / "config/studies/kolors-3x4090.yaml", {"scale": "demo"})
DEMO, SIDE, LENGTH = STUDY.model, STUDY.data.resolution, STUDY.data.text_length
SEED = 7  # collages of this seed are no study's
DIVERGENCE = 1e-7  # weight of the latents' divergence from the normal distribution
LOG_VARIANCE = -4.0  # of the latents in the beginning: with more noise, half of the channels learn to tell nothing
EDGES = 0.5  # weight of differences between neighbouring pixels, without which small things blur
PIECES = 450  # of the tokenizer: the captions' words, their parts, and all bytes
TOLD = 0.5  # share of the captions that stand behind some of their own words
UNTOLD = 0.1  # share of the latents that are denoised without a caption, for guidance


class Drawn(NamedTuple):
    """Collages: ``images`` [N, 3, S, S], uint8, their ``captions``, and the words of each that tell what is on it."""

    images: Tensor
    captions: list[str]
    words: list[list[str]]


def draw(sources: Photographs, count: int) -> Drawn:
    """``count`` of them."""
    numbers = tqdm(range(count), "drawing collages", mininterval=5)
    made = [collage(sources, np.random.default_rng([SEED, number]), SIDE) for number in numbers]
    images = torch.from_numpy(np.stack([np.asarray(one.image) for one in made])).permute(0, 3, 1, 2)
    words = [[*(label for label, _ in one.boxes), one.caption.split()[-1]] for one in made]
    return Drawn(images.contiguous(), [one.caption for one in made], words)


# --- the autoencoder -------------------------------------------------------------------------------------------------


def write_vae(folder: Path, drawn: Drawn, steps: int, batch: int) -> None:
    """Train on images and write it, with the factor that brings its latents to a standard deviation of 1."""
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, block_out_channels=[16, 32, 48],
        layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=SIDE, force_upcast=False,
    )  # fmt: skip
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.latent_channels :] = LOG_VARIANCE
    rng = np.random.default_rng(SEED)

    def loss() -> Tensor:
        wanted = pixels(drawn.images[rng.integers(len(drawn.images), size=batch)])
        posterior = vae.encode(wanted).latent_dist
        made = vae.decode(posterior.sample()).sample
        edges = sum(F.l1_loss(made.diff(dim=axis), wanted.diff(dim=axis)) for axis in (2, 3))
        return F.l1_loss(made, wanted) + EDGES * edges + DIVERGENCE * posterior.kl().mean()

    train(vae, loss, steps, 2e-3, "pretraining the VAE")
    with torch.no_grad():
        deviation = vae.encode(pixels(drawn.images[:256])).latent_dist.sample().std().item()
    vae.register_to_config(scaling_factor=round(1 / deviation, 5))
    vae.half().save_pretrained(str(folder))


def pixels(images: Tensor) -> Tensor:
    """From 0 .. 255 to -1 .. 1."""
    return images.float() / 127.5 - 1


# --- the text encoder ------------------------------------------------------------------------------------------------


def write_tokenizer(folder: Path, captions: Sequence[str]) -> None:
    """A sentencepiece model in which the captions' words are pieces, and bytes stand for all else, as in ChatGLM's."""
    folder.mkdir(parents=True, exist_ok=True)
    SentencePieceTrainer.train(
        sentence_iterator=iter(captions), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=PIECES,
        byte_fallback=True, normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    config = {"tokenizer_class": "ChatGLMTokenizer", "padding_side": "left", "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", config)


def write_text_encoder(folder: Path, tokenizer: Tokenizer, drawn: Drawn, steps: int, batch: int) -> None:
    """Train to continue captions, and write it.

    Half of the captions stand behind some of their own words: a language model of the released size has learnt from all its
    texts to take up what it was told before, and before the caption is where the adapter's heads tell it of the image.
    """
    model = text_encoder(DEMO.architecture.text_encoder)
    nn.init.normal_(model.embedding.word_embeddings.weight, std=0.3)
    captions = [[*tokenizer.prefix, *tokenizer.pieces.encode(caption)] for caption in drawn.captions]
    words = [[tokenizer.pieces.encode(word) for word in told] for told in drawn.words]
    rng = np.random.default_rng(SEED)

    def loss() -> Tensor:
        chosen = rng.integers(len(captions), size=batch)
        before = [before_caption(rng, words[index]) if rng.random() < TOLD else [] for index in chosen]
        rows = [told + captions[index] for told, index in zip(before, chosen, strict=True)]
        length = max(map(len, rows))
        tokens = torch.tensor([[tokenizer.pad] * (length - len(row)) + row for row in rows])
        mask, caption = (last(map(len, some), length) for some in (rows, (captions[index] for index in chosen)))
        states = read(model, word_vectors(model, tokens), mask)
        return next_word_loss(model.output_layer(states), tokens, beyond_prefix(caption))

    train(model, loss, steps, 3e-3, "pretraining the text encoder")
    model.half().save_pretrained(str(folder))


def before_caption(rng: np.random.Generator, words: list[list[int]]) -> list[int]:
    """The tokens of some of ``words``, in random order."""
    chosen = rng.permutation(len(words))[: rng.integers(1, len(words), endpoint=True)]
    return [token for index in chosen for token in words[index]]


def last(counts: Iterable[int], length: int) -> Tensor:
    """True for the last of ``length`` places, as many as each of ``counts`` [N] says: [N, length]."""
    return torch.arange(length) >= length - torch.tensor(list(counts))[:, None]


# --- the UNet --------------------------------------------------------------------------------------------------------


def write_unet(folder: Path, vae: AutoencoderKL, text: ChatGLMModel, tokenizer: Tokenizer, drawn: Drawn, **how: int) -> None:
    """Train to denoise latents as captions tell, and write it."""
    sizes = DEMO.architecture
    unet = UNet2DConditionModel(sample_size=SIDE // sizes.unet.factor, **sizes.unet.config(sizes.text_encoder.dim))
    means, deviations = encode_images(vae, drawn.images)
    told = encode_texts(text, [*drawn.captions, ""], tokenizer)
    times = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]]).expand(how["batch"], -1)
    rng = np.random.default_rng(SEED)

    def loss() -> Tensor:
        chosen = torch.from_numpy(rng.integers(len(means), size=how["batch"]))
        caption = torch.where(torch.rand(len(chosen)) < UNTOLD, len(told.states) - 1, chosen)
        latents = means[chosen] + deviations[chosen] * torch.randn_like(means[chosen])
        noise, steps = torch.randn_like(latents), torch.randint(TRAIN_STEPS, (len(chosen),))
        added = {"text_embeds": told.pooled[caption], "time_ids": times}
        made = unet(add_noise(latents, noise, steps), steps, told.states[caption], added_cond_kwargs=added).sample
        return F.mse_loss(made, noise)

    train(unet, loss, how["steps"], 2e-3, "pretraining the UNet")
    unet.half().save_pretrained(str(folder))


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each image's latents, scaled [N, 4, S/4, S/4]."""
    found = [vae.encode(pixels(some)).latent_dist for some in tqdm(images.split(64), "encoding images", mininterval=5)]
    scale = vae.config.scaling_factor
    return scale * torch.cat([one.mean for one in found]), scale * torch.cat([one.std for one in found])


def encode_texts(model: ChatGLMModel, texts: Sequence[str], tokenizer: Tokenizer) -> Prompt:
    """As Kolors is told the texts, all at once."""
    padded = [tokenizer.caption(text, LENGTH) for text in texts]
    some = [padded[start : start + 256] for start in range(0, len(padded), 256)]
    found = [read_prompt(model, *map(torch.stack, zip(*each, strict=True))) for each in some]
    return Prompt(*map(torch.cat, zip(*found, strict=True)))


# --- all -------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Autoencoder, tokenizer, text encoder, UNet: each stands on those before it, as they are on disk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder, such as resources/kolors-demo")
    parser.add_argument("--collages", type=int, default=6000, help="that all learn from")
    parser.add_argument("--vae-steps", type=int, default=5000)
    parser.add_argument("--text-steps", type=int, default=2000)
    parser.add_argument("--unet-steps", type=int, default=3200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    drawn = draw(read_photographs(PHOTOGRAPHS), args.collages)
    vae, text, tokens, unet = (args.output / name for name in ("vae", "text_encoder", "tokenizer", "unet"))

    write_vae(vae, drawn, args.vae_steps, batch=16)
    write_tokenizer(tokens, drawn.captions)
    tokenizer = Tokenizer(tokens)
    write_text_encoder(text, tokenizer, drawn, args.text_steps, batch=64)
    read = AutoencoderKL.from_pretrained(str(vae)).float(), ChatGLMModel.from_pretrained(str(text)).float()
    write_unet(unet, *read, tokenizer, drawn, steps=args.unet_steps, batch=16)


if __name__ == "__main__":
    call(main)
