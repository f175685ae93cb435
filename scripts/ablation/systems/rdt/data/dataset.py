"""Every step of every episode as a training or evaluation sample."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ablation.systems.base import Draw
from ablation.systems.rdt.data.augment import augmented
from ablation.systems.rdt.data.dropout import Hidden, draw_hidden, nothing_hidden
from ablation.systems.rdt.data.episode import Episode, Recording, read_image, recording
from ablation.systems.rdt.data.statistics import Statistics
from ablation.systems.rdt.data.unified import aloha_to_unified
from ablation.systems.rdt.settings import CAMERAS, Data


class Chance(IntEnum):
    """What is random in a sample. Each has numbers of its own, so that runs that differ in one share the others."""

    TEXT = 1
    NOISE = 2
    HIDDEN = 3
    IMAGES = 4


class StepDataset(Dataset[dict[str, Tensor]]):
    """Samples of the given episodes.

    A sample holds ``state`` [1, 128] and its ``mask`` [1, 128]; ``actions`` [horizon, 128], from the same step on, the last
    of the episode repeated; ``images`` [history, 3, 3, S, S], uint8, older first, cameras in the order of ``CAMERAS``, and
    ``shown`` [history, 3], false where an image is only background; ``text``, the number of the instruction in ``texts``;
    ``frequency`` in Hz.
    """

    def __init__(
        self, episodes: Sequence[Episode], statistics: Statistics, data: Data, horizon: int, history: int, train: bool
    ):
        self.episodes, self.data = list(episodes), data
        self.horizon, self.history, self.train = horizon, history, train
        self.state_mean = statistics.state_mean.astype(np.float32)
        self.state_std = statistics.state_std.astype(np.float32)
        self.ends = np.cumsum([episode.steps - episode.first for episode in self.episodes])
        sentences = (text for episode in self.episodes for kind in episode.instructions for text in kind)
        self.texts = list(dict.fromkeys(["", *sentences]))
        """All instructions; the first is empty."""
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def __len__(self) -> int:
        return int(self.ends[-1])

    def groups(self) -> list[int]:
        """All samples are alike and may share a batch."""
        return [0] * len(self)

    def place(self, index: int) -> tuple[Episode, int]:
        """Episode and step of a sample."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.ends, index, side="right"))
        episode = self.episodes[number]
        return episode, episode.steps - int(self.ends[number]) + index

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample that ``draw`` asks for; all randomness comes from its seed, epoch and index."""
        episode, step = self.place(draw.index)
        hidden = self._hidden(draw)
        with recording(episode.path) as opened:
            state, mask = self._state(opened, step, hidden, draw)
            actions = self._actions(opened, step)
            images, shown = self._images(opened, episode, step, hidden, draw)
        return {
            "state": torch.from_numpy(state),
            "mask": torch.from_numpy(mask),
            "actions": torch.from_numpy(actions),
            "images": images,
            "shown": shown,
            "text": torch.tensor(0 if hidden.text else self._numbers[self._text(episode, draw)]),
            "frequency": torch.tensor(0 if hidden.frequency else self.data.frequency),
        }

    def _hidden(self, draw: Draw) -> Hidden:
        if not self.train:
            return nothing_hidden(self.history, len(CAMERAS))
        return draw_hidden(generator(draw, Chance.HIDDEN), self.data.dropout, self.history, len(CAMERAS))

    def _state(
        self, opened: Recording, step: int, hidden: Hidden, draw: Draw
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        state, mask = aloha_to_unified(opened.qpos(step, step + 1))
        if self.train and self.data.noise_snr is not None:
            state = noisy(generator(draw, Chance.NOISE), state, self.state_std, self.data.noise_snr)
        if hidden.state:
            state = self.state_mean[None].copy()
        return state, np.zeros_like(mask)[None] if hidden.mask else mask[None]

    def _actions(self, opened: Recording, step: int) -> NDArray[np.float32]:
        actions = aloha_to_unified(opened.actions(step, step + self.horizon), "action")[0]
        return np.pad(actions, ((0, self.horizon - len(actions)), (0, 0)), mode="edge")

    def _text(self, episode: Episode, draw: Draw) -> str:
        """One of the kinds, then one of its sentences; the original instruction in evaluation."""
        if not self.train:
            return episode.instructions[0][0]
        rng = generator(draw, Chance.TEXT)
        sentences = episode.instructions[rng.integers(len(episode.instructions))]
        return sentences[rng.integers(len(sentences))]

    def _images(self, opened: Recording, episode: Episode, step: int, hidden: Hidden, draw: Draw) -> tuple[Tensor, Tensor]:
        """The images at ``step`` and before; steps that are not in use count as not there."""
        size = self.data.image_size
        background = torch.tensor(self.data.background, dtype=torch.uint8)[:, None, None]
        images = background.expand(self.history, len(CAMERAS), 3, size, size).clone()
        shown = torch.zeros(self.history, len(CAMERAS), dtype=torch.bool)
        for age, at in enumerate(range(step - self.history + 1, step + 1)):
            for number, camera in enumerate(CAMERAS):
                if camera not in self.data.cameras or at < episode.first or hidden.images[age, number]:
                    continue
                image = fitted(read_image(opened, episode.path, camera, at, self.data.jpeg), size)
                if self.train:
                    image = augmented(generator(draw, Chance.IMAGES, age, number), self.data.augment, image)
                paste(images[age, number], image)
                shown[age, number] = True
        return images, shown


def generator(draw: Draw, chance: Chance, *which: int) -> np.random.Generator:
    """The random numbers of one thing in one sample of one epoch; ``which`` tells apart things of one kind."""
    return np.random.default_rng([draw.seed, draw.epoch, draw.index, chance, *which])


def noisy(rng: np.random.Generator, state: NDArray[np.float32], std: NDArray[np.float32], snr: float) -> NDArray[np.float32]:
    """``state`` [1, 128] with noise ``snr`` dB below the spread ``std`` [128] of the data."""
    return state + rng.standard_normal(state.shape, np.float32) * std * np.float32(10 ** (-snr / 20))


def fitted(image: NDArray[np.uint8], size: int) -> Tensor:
    """``image`` [H, W, 3] as [3, h, w] in [0, 1], its longer side ``size``."""
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    scale = size / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    if (height, width) != image.shape[:2]:
        tensor = F.interpolate(tensor, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return tensor[0]


def paste(canvas: Tensor, image: Tensor) -> None:
    """Write ``image`` [3, h, w] in [0, 1] into the middle of ``canvas`` [3, S, S], uint8."""
    height, width = image.shape[1:]
    top, left = (canvas.shape[1] - height) // 2, (canvas.shape[2] - width) // 2
    canvas[:, top : top + height, left : left + width] = (image * 255).round().to(torch.uint8)
