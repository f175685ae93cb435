"""The cache of embeddings: a folder of sentences and a folder of images, written once, read through memory maps.

Sentences: ``texts.json``, their texts and numbers of tokens, and ``tokens.npy`` [all tokens, D], one sentence after the other.
Images: ``background.npy`` [P, D], and for each episode a file of its name, [steps in use, cameras, versions, P, D]; the first
version is the image itself. All in fp16.
"""

import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ablation.errors import UserError
from ablation.files import write_json
from ablation.systems.rdt.data.augment import augmented
from ablation.systems.rdt.data.episode import Episode, Recording, read_image, recording
from ablation.systems.rdt.data.images import empty, fitted, pasted
from ablation.systems.rdt.settings import Data

log = logging.getLogger(__name__)

GIB = 2**30
TEXTS, TOKENS, BACKGROUND = "texts.json", "tokens.npy", "background.npy"
IMAGES_AT_ONCE = 32  # through the encoder

EncodeText = Callable[[str], Tensor]
"""A sentence -> [N, D], fp16."""
EncodeImages = Callable[[Tensor], Tensor]
"""Images [N, 3, S, S], uint8 -> [N, P, D], fp16."""


class TextTokens:
    """Embedded sentences, padded to ``length`` tokens."""

    def __init__(self, folder: Path, length: int):
        listed = json.loads((folder / TEXTS).read_text(encoding="utf-8"))
        ends = np.cumsum([count for _, count in listed]).tolist()
        self.length = length
        self._spans = {text: (end - count, end) for (text, count), end in zip(listed, ends, strict=True)}
        self._tokens = np.load(folder / TOKENS, mmap_mode="r")
        if too_long := [(count, text) for text, count in listed if count > length]:
            count, text = max(too_long)
            raise UserError(f"data.text_length = {length} is too short for an instruction of {count} tokens: {text!r}")

    def __call__(self, sentence: str) -> tuple[Tensor, Tensor]:
        """Tokens [L, D], fp16, zeros behind the sentence, and the mask [L], true where a token counts."""
        if sentence not in self._spans:
            raise UserError(f"the instruction {sentence!r} was not embedded; it is in none of the episodes")
        start, end = self._spans[sentence]
        tokens = torch.zeros(self.length, self._tokens.shape[1], dtype=torch.float16)
        tokens[: end - start] = torch.from_numpy(self._tokens[start:end].copy())
        return tokens, torch.arange(self.length) < end - start


class ImageTokens:
    """Embedded images of episodes."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.background = torch.from_numpy(np.load(folder / BACKGROUND))
        """Of an image that is not there [P, D]."""
        self._open: dict[str, NDArray[np.float16]] = {}

    def __call__(self, episode: Episode, step: int, camera: int, version: int) -> Tensor:
        """The tokens [P, D] of what the ``camera``-th camera of the robot saw at ``step``, counted from the first in use."""
        if episode.name not in self._open:
            self._open[episode.name] = np.load(self._folder / image_file(episode), mmap_mode="r")
        return torch.from_numpy(self._open[episode.name][step, camera, version].copy())

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}  # a map that crosses into another process would be copied into memory


class Tokens(NamedTuple):
    """All that is embedded."""

    text: TextTokens
    images: ImageTokens


def image_file(episode: Episode) -> str:
    """The place of an episode's images in the cache."""
    return f"episodes/{episode.name}.npy"


def embed_texts(episodes: Sequence[Episode], encode: EncodeText, out: Path) -> None:
    """All instructions of the episodes, and the empty one."""
    texts = dict.fromkeys(["", *(text for episode in episodes for kind in episode.instructions for text in kind)])
    embedded = [encode(text) for text in tqdm(texts, desc="embedding instructions", disable=None)]
    write_json(out / TEXTS, [[text, len(tokens)] for text, tokens in zip(texts, embedded, strict=True)])
    np.save(out / TOKENS, torch.cat(embedded).numpy())


def embed_images(episodes: Sequence[Episode], encode: EncodeImages, data: Data, out: Path) -> None:
    """All images of the episodes in all their versions. UserError where the disk has no room for them."""
    background = encode(empty(data.image_size, data.background)[None])[0]
    steps = sum(episode.steps - episode.first for episode in episodes)
    _check_room(out, cache_bytes(steps, data, *background.shape))
    np.save(out / BACKGROUND, background.numpy())
    for episode in tqdm(episodes, desc="embedding images", disable=None):
        path = out / image_file(episode)
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (episode.steps - episode.first, len(data.views), data.versions, *background.shape)
        tokens = open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        with recording(episode.path, data.mapping) as opened:
            _embed_episode(opened, episode, encode, data, tokens)
        tokens.flush()


def cache_bytes(steps: int, data: Data, patches: int, dim: int) -> int:
    """Disk that the images of so many steps take."""
    return steps * len(data.views) * data.versions * patches * dim * np.dtype(np.float16).itemsize


def _embed_episode(opened: Recording, episode: Episode, encode: EncodeImages, data: Data, tokens: NDArray[np.float16]) -> None:
    flat, images, done = tokens.reshape(-1, *tokens.shape[-2:]), _versions(opened, episode, data), 0
    while batch := list(islice(images, IMAGES_AT_ONCE)):
        flat[done : done + len(batch)] = encode(torch.stack(batch)).numpy()
        done += len(batch)


def _versions(opened: Recording, episode: Episode, data: Data) -> Iterator[Tensor]:
    """All images of an episode as the encoder takes them; a changed one is a pure function of its place and its number."""
    for step in range(episode.first, episode.steps):
        for number, view in enumerate(data.views):
            image = fitted(read_image(opened, episode.path, view, step, data.jpeg), data.image_size)
            yield pasted(image, data.image_size, data.background)
            for version in range(1, data.versions):
                rng = np.random.default_rng([zlib.crc32(episode.name.encode()), step, number, version])
                yield pasted(augmented(rng, data.augment, image), data.image_size, data.background)


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    log.info("the embeddings of the images take %.2f GiB; %.2f GiB are free", needed / GIB, free / GIB)
    if needed > free:
        raise UserError(
            f"the embeddings of the images need {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free at {out}\n"
            "  fewer data.augment.versions, or data.augment.share: 0, need less; results/ may be a link to a larger disk"
        )
