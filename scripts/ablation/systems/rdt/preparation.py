"""Making the parts of the prepared data."""

from collections.abc import Sequence
from pathlib import Path

from ablation.parts import Part
from ablation.systems.rdt.data.episodes import find_episodes, read_list, write_list
from ablation.systems.rdt.data.tokens import embed_images, embed_texts
from ablation.systems.rdt.encoders import ImageEncoder
from ablation.systems.rdt.settings import Data
from ablation.systems.rdt.simulation.record import record_episodes
from ablation.systems.released import encoder_device
from ablation.systems.t5 import TextEncoder


def prepare(part: Part, needs: Sequence[Path], out: Path) -> None:
    """``episodes``: examine them, or record them first; ``text``, ``image``: the embeddings of what they tell and show."""
    if part.stage == "episodes":
        data = Data(**part.settings)
        root = out if data.source == "simulation" else Path(data.root)
        if data.source == "simulation":
            record_episodes(root, data.simulation.side, data.simulation.seed, data.simulation.episodes)
        write_list(find_episodes(root, data), root, out)
    elif part.stage == "text":
        embed_texts(read_list(needs[0]), TextEncoder(Path(part.settings["encoder"]), encoder_device()), out)
    else:
        encode = ImageEncoder(Path(part.settings["encoder"]), encoder_device())
        embed_images(read_list(needs[0]), encode, Data(**part.settings["data"]), out)
