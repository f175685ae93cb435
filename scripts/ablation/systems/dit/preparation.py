"""Making the parts of the prepared data."""

from collections.abc import Sequence
from pathlib import Path

from ablation.parts import Part
from ablation.systems.dit.autoencoder import Autoencoder
from ablation.systems.dit.data.captions import cache_captions
from ablation.systems.dit.data.latents import cache_latents
from ablation.systems.dit.data.listing import find_images, read_list, source_root, write_list
from ablation.systems.dit.judge import train_judge
from ablation.systems.dit.settings import Data, Judge
from ablation.systems.released import encoder_device
from ablation.systems.t5 import TextEncoder


def prepare(part: Part, needs: Sequence[Path], out: Path) -> None:
    """``images``: find and open them; ``latents``, ``text``: what the frozen networks make of them; ``judge``: train it."""
    if part.stage == "images":
        data = Data(**part.settings, flip=False)
        write_list(find_images(data, out), source_root(data, out), out)
        return
    listed, device = read_list(needs[0]), encoder_device()
    if part.stage == "latents":
        vae = Autoencoder(Path(part.settings["autoencoder"]), device, part.settings["slicing"])
        cache_latents(listed, vae.encode, Data(**part.settings["data"]), out)
    elif part.stage == "text":
        texts = (text for told in listed.images for text in told.captions)
        cache_captions(texts, TextEncoder(Path(part.settings["encoder"]), device), out)
    else:
        judge = Judge(**part.settings["judge"])
        train_judge(listed, part.settings["test"], part.settings["size"], judge, device, out)
